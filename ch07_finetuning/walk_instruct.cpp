// `instruct`: a model that goes on with text learns to answer.
#include <fmt/format.h>

#include <algorithm>

#include "ch07_finetuning/finetuning.h"
#include "common/cli/format.h"
#include "common/cli/progress.h"
#include "common/core/error.h"
#include "common/finetuning/datasets.h"

namespace llm::ch07 {

namespace {

struct Material {
  std::vector<Asked> train, validation, test;
};

Material material(const InstructCommand& command) {
  Material m;
  if (command.data.empty()) {
    const std::uint64_t seed = command.tune.seed;
    m.train = story_questions(seed, 0, command.questions, command.style);
    m.validation = story_questions(seed, command.questions, 100, command.style);
    m.test = story_questions(seed, command.questions + 100, command.held_out, command.style);
    return m;
  }
  // 85% to train, 10% to test, 5% to watch, in the order of the file.
  const std::vector<Instruction> all = read_instructions(command.data);
  const auto train = all.size() * 85 / 100, test = all.size() / 10;
  check(train >= 1 && test >= 1 && train + test < all.size(), "{} holds too few entries to split: {}",
        command.data.string(), all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    auto& part = i < train ? m.train : i < train + test ? m.test : m.validation;
    part.push_back({styled_prompt(command.style, all[i].instruction, all[i].input), all[i].output});
  }
  return m;
}

/// What fits in the context; the number of those left out is told.
std::vector<Example> encode(const OpenModel& open, const std::vector<Asked>& asked) {
  std::vector<Example> examples;
  const std::int64_t context = open.model.config().context;
  std::int64_t left_out = 0;
  for (const Asked& a : asked) {
    const auto answer = static_cast<std::int64_t>(open.tokenizer->encode(" " + a.answer).size());
    if (answer + 3 > context)
      ++left_out;
    else
      examples.push_back(make_example(*open.tokenizer, a.prompt, a.answer, context + 1));
  }
  if (left_out > 0) fmt::print("{} answers are longer than the context and were left out\n", left_out);
  check(!examples.empty(), "no example fits in the model's context of {}", context);
  return examples;
}

double mean_loss(OpenModel& open, const std::vector<Example>& examples, const MaskOptions& mask) {
  StageActivations saved;
  StageScratch scratch;
  double sum = 0;
  std::int64_t targets = 0;
  for (std::size_t first = 0; first < examples.size(); first += 32) {
    const Batch batch =
        collate(std::span(examples).subspan(first, std::min<std::size_t>(32, examples.size() - first)),
                open.end_of_text, mask);
    open.model.forward(saved, batch.inputs);
    sum += open.model.loss(saved, scratch, batch.targets, std::nullopt);
    targets += target_count(batch);
  }
  return sum / static_cast<double>(targets);
}

}  // namespace

double instruct(const InstructCommand& command) {
  const TuneOptions& tune = command.tune;
  OpenModel open = open_model(tune.model, tune.placement);
  const Material data = material(command);
  const std::vector<Example> train = encode(open, data.train), validation = encode(open, data.validation);
  const MaskOptions mask{.prompt = command.mask_prompt};
  const bool short_answers = command.data.empty();
  const std::int64_t longest_answer =
      short_answers ? 24 : std::min<std::int64_t>(128, open.model.config().context / 2);

  const ExactMatch before = ask_all(open, data.test, 0, 0, longest_answer);
  fmt::print("Questions: {} to train, {} to test; before: {} of {} answers are exact, {:.1f}%\n",
             with_commas(static_cast<std::int64_t>(train.size())), before.count, before.exact, before.count,
             100 * before.share());
  if (!before.given.empty()) fmt::print("  for example: {}\n", shorten(before.given.front(), 90));

  auto adapters = attach_lora(open, tune);
  Tuner tuner(stores(open, adapters.get()), tune.tuner());
  fmt::print("Training {} of {} parameters, {} examples a step, loss on {}{}\n",
             with_commas(tuner.trained_count()), with_commas(open.model.parameters().count()), tune.batch,
             command.mask_prompt ? "the answers" : "all tokens", command.packing ? ", packed" : ", padded");
  MetricsWriter metrics = tune.out.empty() ? MetricsWriter() : MetricsWriter(tune.out / "metrics.jsonl");
  StageActivations saved;
  StageScratch scratch;
  std::vector<double> steps, losses, watched_steps, watched;
  Progress progress("learning to answer", tune.steps, "steps");
  const auto watch = [&] {
    const double loss = mean_loss(open, validation, mask);
    watched_steps.push_back(static_cast<double>(tuner.steps_done()));
    watched.push_back(loss);
    metrics.write({{"step", tuner.steps_done()}, {"validation_loss", loss}});
    progress.say(fmt::format("step {:>5}  validation loss {:.4f}", tuner.steps_done(), loss));
  };
  watch();
  const std::int64_t every = std::max<std::int64_t>(1, tune.steps / 5);
  double average = 0;
  while (tuner.steps_done() < tuner.steps_total()) {
    std::vector<Example> chosen;
    for (const std::size_t i : examples_of_step(train.size(), tune.batch, tune.seed, tuner.steps_done()))
      chosen.push_back(train[i]);
    // Packed: as many examples per row as fit, none of which sees another. Padded: one per row.
    std::size_t first = 0;
    PackedBatch packed;
    if (command.packing)
      packed = pack(chosen, first, static_cast<std::int64_t>(chosen.size()), open.model.config().context,
                    open.end_of_text, mask);
    else
      packed.batch = collate(chosen, open.end_of_text, mask);
    ForwardOptions forward{.training = true,
                           .seed = tune.seed,
                           .step = static_cast<std::uint64_t>(tuner.steps_done()),
                           .documents = packed.documents};
    const TunerReport r = tuner.step([&] {
      const auto targets = static_cast<double>(target_count(packed.batch));
      open.model.forward(saved, packed.batch.inputs, forward);
      const double sum =
          open.model.loss(saved, scratch, packed.batch.targets, static_cast<float>(1 / targets));
      open.model.backward(saved, scratch, packed.batch.inputs, forward);
      return sum / targets;
    });
    average = r.step == 1 ? r.loss : 0.95 * average + 0.05 * r.loss;
    steps.push_back(static_cast<double>(r.step));
    losses.push_back(r.loss);
    metrics.write({{"step", r.step}, {"loss", r.loss}, {"lr", r.learning_rate}});
    progress.update(r.step, fmt::format("loss {:.4f}", average));
    if (r.step % every == 0 || r.step == tune.steps) watch();
  }
  progress.finish();
  merge_lora(open, adapters, tune);

  const ExactMatch after = ask_all(open, data.test, 0, 0, longest_answer);
  fmt::print("\nAfter: {} of {} answers are exact, {:.1f}%\n", after.exact, after.count, 100 * after.share());
  int wrong = 0;
  for (std::size_t i = 0; i < after.given.size() && wrong < 3; ++i)
    if (after.given[i] != data.test[i].answer) {
      if (wrong++ == 0) fmt::print("What was wrong, for example:\n");
      fmt::print("  expected \"{}\", got \"{}\"\n", shorten(data.test[i].answer, 60),
                 shorten(after.given[i], 60));
    }
  if (!tune.metrics.empty())
    MetricsWriter(tune.metrics, true)
        .write({{"instruct", command.style}, {"exact_before", before.share()}, {"exact", after.share()}});
  if (!tune.out.empty()) {
    save_model(open, tune.out, command.style);
    if (tune.lora)
      fs::copy_file(tune.out / "finetuning.json", tune.out / "adapter" / "finetuning.json",
                    fs::copy_options::overwrite_existing);
    draw_curve(tune.out / "loss.svg", "Learning to answer", "nats per token", steps, losses, watched_steps,
               watched);
    fmt::print("Wrote {} (the model, its tokenizer, loss.svg)\n", tune.out.string());
  }
  return after.share();
}

}  // namespace llm::ch07
