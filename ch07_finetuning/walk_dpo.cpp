// `dpo`: from pairs of a better and a worse answer.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ch07_finetuning/finetuning.h"
#include "common/cli/format.h"
#include "common/cli/progress.h"
#include "common/core/error.h"
#include "common/finetuning/chat_format.h"
#include "common/finetuning/datasets.h"
#include "common/finetuning/policy.h"
#include "common/text/story.h"
#include "common/text/story_labels.h"

namespace llm::ch07 {

namespace {

struct Pair {
  Example chosen, rejected;
};

/// A story's end is what stands behind its beginning, as it is: no template.
Pair story_pair(const OpenModel& open, std::uint64_t seed, std::int64_t index) {
  const Preference p = make_preference(seed, static_cast<std::uint64_t>(index));
  const std::int64_t longest = open.model.config().context + 1;
  // `chosen` and `rejected` begin with the space that make_example puts there.
  return {make_example(*open.tokenizer, p.prompt, p.chosen.substr(1), longest),
          make_example(*open.tokenizer, p.prompt, p.rejected.substr(1), longest)};
}

std::vector<Pair> pairs(const OpenModel& open, const DpoCommand& command, bool held_out) {
  std::vector<Pair> all;
  if (command.data.empty()) {
    const std::int64_t first = held_out ? command.pairs : 0;
    const std::int64_t count = held_out ? command.held_out : command.pairs;
    for (std::int64_t i = 0; i < count; ++i) all.push_back(story_pair(open, command.tune.seed, first + i));
    return all;
  }
  const std::vector<Instruction> entries = read_instructions(command.data);
  const std::int64_t longest = open.model.config().context + 1;
  const std::size_t train = entries.size() * 85 / 100;
  for (std::size_t i = held_out ? train : 0; i < (held_out ? entries.size() : train); ++i) {
    const Instruction& e = entries[i];
    check(!e.chosen.empty() && !e.rejected.empty(), "{}: entry {} has no \"chosen\" and \"rejected\"",
          command.data.string(), i);
    const std::string prompt = alpaca_prompt(e.instruction, e.input);
    const auto tokens = [&](const std::string& text) {
      return static_cast<std::int64_t>(open.tokenizer->encode(text).size());
    };
    if (std::max(tokens(e.chosen), tokens(e.rejected)) + 3 > longest) continue;
    all.push_back({make_example(*open.tokenizer, prompt, e.chosen, longest),
                   make_example(*open.tokenizer, prompt, e.rejected, longest)});
  }
  check(!all.empty(), "{} has no pairs that fit in the model's context", command.data.string());
  return all;
}

/// Chosen answers first, rejected ones behind them.
Batch batch_of(const std::vector<Pair>& all, std::span<const std::size_t> chosen, std::int32_t padding) {
  std::vector<Example> rows;
  for (const std::size_t i : chosen) rows.push_back(all[i].chosen);
  for (const std::size_t i : chosen) rows.push_back(all[i].rejected);
  return collate(rows, padding);
}

/// log p of all pairs, chosen and rejected: a row of two for each.
struct PairScores {
  std::vector<double> chosen, rejected;
};
PairScores score(OpenModel& open, const std::vector<Pair>& all) {
  PairScores scores;
  PassBuffers buffers;
  constexpr std::size_t kBatch = 16;
  for (std::size_t first = 0; first < all.size(); first += kBatch) {
    std::vector<std::size_t> some;
    for (std::size_t i = first; i < std::min(first + kBatch, all.size()); ++i) some.push_back(i);
    const auto p = answer_log_probabilities(open.model, buffers, batch_of(all, some, open.end_of_text));
    scores.chosen.insert(scores.chosen.end(), p.begin(),
                         p.begin() + static_cast<std::ptrdiff_t>(some.size()));
    scores.rejected.insert(scores.rejected.end(), p.begin() + static_cast<std::ptrdiff_t>(some.size()),
                           p.end());
  }
  return scores;
}

/// How many of the model's own endings of held-out beginnings make valid stories.
double valid_share(const OpenModel& open, const DpoCommand& command) {
  std::vector<std::vector<std::int32_t>> prompts;
  std::vector<std::string> beginnings;
  for (std::int64_t i = 0; i < command.held_out; ++i) {
    const Preference p = make_preference(command.tune.seed, static_cast<std::uint64_t>(command.pairs + i));
    beginnings.push_back(p.prompt);
    prompts.push_back(make_prompt(*open.tokenizer, p.prompt, open.model.config().context));
  }
  AnswerOptions options{.sampling = {.temperature = 1, .seed = command.tune.seed}, .max_new_tokens = 120};
  const auto answers = generate_answers(open.model, prompts, open.end_of_text, options);
  std::int64_t valid = 0;
  for (std::size_t i = 0; i < answers.size(); ++i)
    valid += judge_story(beginnings[i] + open.tokenizer->decode(answers[i].tokens)).valid ? 1 : 0;
  return static_cast<double>(valid) / static_cast<double>(answers.size());
}

}  // namespace

void dpo(const DpoCommand& command) {
  const TuneOptions& tune = command.tune;
  OpenModel open = open_model(tune.model, tune.placement);
  const std::vector<Pair> train = pairs(open, command, false), held_out = pairs(open, command, true);
  // The reference is this model before training. It never changes, so its log-probabilities are made once.
  const PairScores reference = score(open, train), held_out_reference = score(open, held_out);
  const bool stories = command.data.empty();
  const double valid_before = stories ? valid_share(open, command) : 0;

  auto adapters = attach_lora(open, tune);
  Tuner tuner(stores(open, adapters.get()), tune.tuner());
  fmt::print("Pairs: {} to train, {} held out; training {} of {} parameters, beta {:g}\n",
             with_commas(static_cast<std::int64_t>(train.size())), held_out.size(),
             with_commas(tuner.trained_count()), with_commas(open.model.parameters().count()), command.beta);
  MetricsWriter metrics = tune.out.empty() ? MetricsWriter() : MetricsWriter(tune.out / "metrics.jsonl");
  std::vector<double> steps, margins, watched_steps, watched;
  Progress progress("learning preferences", tune.steps, "steps");
  DpoLoss now;
  const auto watch = [&] {
    const PairScores p = score(open, held_out);
    now =
        dpo_loss(p.chosen, p.rejected, held_out_reference.chosen, held_out_reference.rejected, command.beta);
    watched_steps.push_back(static_cast<double>(tuner.steps_done()));
    watched.push_back(now.margin);
    metrics.write({{"step", tuner.steps_done()},
                   {"held_out_loss", now.loss},
                   {"held_out_margin", now.margin},
                   {"held_out_accuracy", now.accuracy}});
    progress.say(
        fmt::format("step {:>5}  held out: loss {:.4f}, margin {:.3f}, {:.1f}% prefer the chosen answer",
                    tuner.steps_done(), now.loss, now.margin, 100 * now.accuracy));
  };
  watch();
  PassBuffers buffers;
  const std::int64_t every = std::max<std::int64_t>(1, tune.steps / 4);
  while (tuner.steps_done() < tuner.steps_total()) {
    const auto chosen = examples_of_step(train.size(), tune.batch, tune.seed, tuner.steps_done());
    const Batch batch = batch_of(train, chosen, open.end_of_text);
    std::vector<double> theirs;
    for (const std::size_t i : chosen) theirs.push_back(reference.chosen[i]);
    for (const std::size_t i : chosen) theirs.push_back(reference.rejected[i]);
    DpoLoss loss;
    const TunerReport r = tuner.step([&] {
      loss = dpo_gradients(open.model, buffers, batch, theirs, command.beta);
      return loss.loss;
    });
    steps.push_back(static_cast<double>(r.step));
    margins.push_back(loss.margin);
    metrics.write({{"step", r.step}, {"loss", r.loss}, {"margin", loss.margin}, {"accuracy", loss.accuracy}});
    progress.update(r.step, fmt::format("loss {:.4f}", r.loss));
    if (r.step % every == 0 || r.step == tune.steps) watch();
  }
  progress.finish();
  merge_lora(open, adapters, tune);
  MetricRecord record = {{"dpo_margin", now.margin}, {"dpo_accuracy", now.accuracy}};
  if (stories) {
    const double valid = valid_share(open, command);
    fmt::print(
        "\nThe model's own endings of {} held-out beginnings, at temperature 1: {:.1f}% made valid stories "
        "before, {:.1f}% do now\n",
        command.held_out, 100 * valid_before, 100 * valid);
    record.emplace_back("valid_before", valid_before);
    record.emplace_back("valid", valid);
  }
  if (!tune.metrics.empty()) MetricsWriter(tune.metrics, true).write(record);
  if (!tune.out.empty()) {
    save_model(open, tune.out, stories ? load_chat_format(tune.model).name : "alpaca");
    draw_curve(tune.out / "margin.svg", "Learning preferences", "margin of the implied rewards", steps,
               margins, watched_steps, watched);
    fmt::print("Wrote {} (the model, its tokenizer, margin.svg)\n", tune.out.string());
  }
}

}  // namespace llm::ch07
