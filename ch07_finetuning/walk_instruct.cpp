// `instruct`: a model that goes on with text learns to answer.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

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
  const std::vector<InstructionEntry> all = read_instructions(command.data);
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
  if (left_out > 0 && leads())
    fmt::print("{} answers are longer than the context and were left out\n", left_out);
  check(!examples.empty(), "no example fits in the model's context of {}", context);
  return examples;
}

/// Batches to measure the loss on.
std::vector<Batch> batches_of(const std::vector<Example>& examples, std::int32_t padding,
                              const MaskOptions& mask) {
  std::vector<Batch> batches;
  for (std::size_t first = 0; first < examples.size(); first += 32)
    batches.push_back(
        collate(std::span(examples).subspan(first, std::min<std::size_t>(32, examples.size() - first)),
                padding, mask));
  return batches;
}

}  // namespace

double instruct(const InstructCommand& command) {
  OpenModel open = open_model(command.tune.model, command.tune.placement);
  const GptConfig config = open.model.config();
  const TuneOptions tune = with_layout(command.tune, config);
  const Material data = material(command);
  const std::vector<Example> train = encode(open, data.train), validation = encode(open, data.validation);
  const MaskOptions mask{.prompt = command.mask_prompt};
  const bool short_answers = command.data.empty();
  const std::int64_t longest_answer = short_answers ? 24 : std::min<std::int64_t>(128, config.context / 2);

  ExactMatch before;
  if (leads()) {
    before = ask_all(open, data.test, 0, 0, longest_answer);
    fmt::print("Questions: {} to train, {} to test; before: {} of {} answers are exact, {:.1f}%\n",
               with_commas(static_cast<std::int64_t>(train.size())), before.count, before.exact, before.count,
               100 * before.share());
    if (!before.given.empty()) fmt::print("  for example: {}\n", shorten(before.given.front(), 90));
  }

  std::vector<double> steps, losses, watched_steps, watched;
  train_on_ranks(open, tune, tune.parallel_tuner(), [&](ParallelTuner& tuner, bool leads) {
    const std::int64_t trained = tuner.model().trained_count();
    const std::vector<Batch> watched_batches = batches_of(validation, open.end_of_text, mask);
    MetricsWriter metrics;
    std::optional<Progress> progress;
    if (leads) {
      fmt::print("Training {} of {} parameters, {} examples a step, loss on {}{}\n", with_commas(trained),
                 with_commas(parameter_count(config)), tune.batch,
                 command.mask_prompt ? "the answers" : "all tokens",
                 command.packing ? ", packed" : ", padded");
      if (!tune.out.empty()) metrics = MetricsWriter(tune.out / "metrics.jsonl");
      progress.emplace("learning to answer", tune.steps, "steps");
    }
    const auto watch = [&] {
      const double loss = mean_loss(tuner, watched_batches);
      if (!leads) return;
      watched_steps.push_back(static_cast<double>(tuner.steps_done()));
      watched.push_back(loss);
      metrics.write({{"step", tuner.steps_done()}, {"validation_loss", loss}});
      progress->say(fmt::format("step {:>5}  validation loss {:.4f}", tuner.steps_done(), loss));
    };
    watch();
    const std::int64_t every = std::max<std::int64_t>(1, tune.steps / 5);
    double average = 0;
    while (tuner.steps_done() < tuner.steps_total()) {
      const auto indices = examples_of_step(train.size(), tune.batch, tune.seed, tuner.steps_done());
      std::vector<PackedBatch> batches;
      std::int64_t targets = 0;
      for (std::int64_t i = 0; i < tune.accumulate; ++i) {
        std::vector<Example> chosen;
        for (const std::size_t index : micro_batch(indices, i, tune.accumulate))
          chosen.push_back(train[index]);
        // Packed: as many examples per row as fit, none of which sees another. Padded: one per row.
        std::size_t first = 0;
        if (command.packing)
          batches.push_back(pack(chosen, first, static_cast<std::int64_t>(chosen.size()), config.context,
                                 open.end_of_text, mask));
        else
          batches.push_back({collate(chosen, open.end_of_text, mask), {}});
        targets += target_count(batches.back().batch);
      }
      const ForwardOptions forward{
          .training = true, .seed = tune.seed, .step = static_cast<std::uint64_t>(tuner.steps_done())};
      const auto n = static_cast<double>(targets);
      const TunerReport r = tuner.step(answer_passes(batches, n, forward), n);
      if (leads) {
        average = r.step == 1 ? r.loss : 0.95 * average + 0.05 * r.loss;
        steps.push_back(static_cast<double>(r.step));
        losses.push_back(r.loss);
        metrics.write({{"step", r.step}, {"loss", r.loss}, {"lr", r.learning_rate}});
        progress->update(r.step, fmt::format("loss {:.4f}", average));
      }
      if (r.step % every == 0 || r.step == tune.steps) watch();
    }
    if (leads) progress->finish();
  });
  if (!leads()) return 0;

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
