// Models in and out, questions and answers, curves: what the commands share.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "ch07_finetuning/finetuning.h"
#include "common/cli/svg.h"
#include "common/core/error.h"
#include "common/core/file.h"
#include "common/model/huggingface.h"
#include "common/text/story_labels.h"

namespace llm::ch07 {

TunerOptions TuneOptions::tuner() const {
  TunerOptions t;
  t.schedule = {.peak = learning_rate,
                .floor = learning_rate / 10,
                .warmup = std::min<std::int64_t>(20, steps / 10),
                .steps = steps};
  t.adamw.weight_decay = weight_decay;
  t.clip = clip;
  return t;
}

OpenModel open_model(const fs::path& folder, const Placement& placement) {
  check(fs::exists(folder / "model.safetensors"),
        "{} has no model.safetensors; chapter 5 makes such a folder (./book run ch05)", folder.string());
  OpenModel open{load_huggingface(folder), load_tokenizer(folder), 0};
  check(open.tokenizer->vocab_size() == open.model.config().vocab_size,
        "{} has a model with a vocabulary of {} and a tokenizer with one of {}", folder.string(),
        open.model.config().vocab_size, open.tokenizer->vocab_size());
  const auto end = open.tokenizer->end_of_text();
  check(end.has_value(), "the tokenizer of {} has no end-of-text token, which fine-tuning needs",
        folder.string());
  open.end_of_text = *end;
  if (placement.device != Device::cpu || placement.dtype != DType::f32)
    open.model = open.model.placed(placement);
  return open;
}

void save_model(const OpenModel& open, const fs::path& out, const std::string& style) {
  open.tokenizer->save(out);
  nlohmann::ordered_json about;
  about["template"] = style;
  write_file(out / "finetuning.json", about.dump(2) + "\n");
  if (open.model.placement().device == Device::cpu)
    save_huggingface(open.model, out);
  else
    save_huggingface(open.model.placed({}), out);
}

std::string styled_prompt(const std::string& style, const std::string& instruction,
                          const std::string& input) {
  if (style == "alpaca") return alpaca_prompt(instruction, input);
  if (style == "chat") return chat_prompt(input.empty() ? instruction : input + "\n" + instruction);
  fail_usage("there is no template named \"{}\"; use chat or alpaca", style);
}

std::vector<Asked> story_questions(std::uint64_t seed, std::int64_t first, std::int64_t count,
                                   const std::string& style) {
  std::vector<Asked> all;
  for (std::int64_t i = first; i < first + count; ++i) {
    const Question q = make_question(seed, static_cast<std::uint64_t>(i));
    all.push_back({styled_prompt(style, q.question, q.story), q.answer});
  }
  return all;
}

ExactMatch ask_all(const OpenModel& open, const std::vector<Asked>& asked, float temperature,
                   std::uint64_t seed, std::int64_t longest_answer) {
  AnswerOptions options;
  options.sampling.temperature = temperature;
  options.sampling.seed = seed;
  options.max_new_tokens = longest_answer;
  std::vector<std::vector<std::int32_t>> prompts;
  const std::int64_t room = std::max<std::int64_t>(2, open.model.config().context - longest_answer);
  for (const Asked& a : asked) prompts.push_back(make_prompt(*open.tokenizer, a.prompt, room));
  const std::vector<Answer> answers = generate_answers(open.model, prompts, open.end_of_text, options);
  ExactMatch result;
  result.count = static_cast<std::int64_t>(asked.size());
  for (std::size_t i = 0; i < asked.size(); ++i) {
    result.given.push_back(trimmed(open.tokenizer->decode(answers[i].tokens)));
    result.exact += answers[i].stopped && result.given.back() == asked[i].answer ? 1 : 0;
  }
  return result;
}

void draw_curve(const fs::path& path, const std::string& title, const std::string& measure,
                const std::vector<double>& steps, const std::vector<double>& training,
                const std::vector<double>& held_out_steps, const std::vector<double>& held_out) {
  LinePlot plot;
  plot.title = title;
  plot.x_label = "step";
  plot.y_label = measure;
  plot.series = {{"training", steps, training, true, false},
                 {"held out", held_out_steps, held_out, false, true}};
  write_file(path, svg(plot));
}

}  // namespace llm::ch07
