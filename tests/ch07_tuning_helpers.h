// A tiny model, examples for it, and fine-tuning it under a layout, for the tests of chapter 7.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <vector>

#include "common/finetuning/parallel_tuner.h"
#include "common/parallel/threads_communicator.h"
#include "tests/ch04_model_helpers.h"

namespace llm::tuning_test {

using testing::copy;

constexpr std::int64_t kSteps = 4, kMicroBatches = 4;

inline GptConfig config_of(float dropout = 0.1F) {
  GptConfig config;
  config.vocab_size = 37;
  config.context = 12;
  config.channels = 16;
  config.layers = 2;
  config.heads = 2;
  config.dropout = dropout;
  return config;
}

inline TunerOptions tuner_options() {
  return {.schedule = {.peak = 1e-2, .floor = 1e-3, .warmup = 1, .steps = kSteps}, .clip = 0.5};
}

/// Two examples of different lengths for each micro-batch of a step.
inline std::vector<std::vector<Example>> examples(std::int64_t step) {
  std::vector<std::vector<Example>> all;
  std::int32_t next = static_cast<std::int32_t>(step);
  for (std::int64_t m = 0; m < kMicroBatches; ++m) {
    auto& some = all.emplace_back();
    for (const std::int64_t length : {4 + m, 7 - m}) {
      Example e;
      for (std::int64_t i = 0; i < length; ++i) e.tokens.push_back(next = (next * 5 + 11) % 37);
      e.answer = length / 2;
      some.push_back(e);
    }
  }
  return all;
}

enum class Task { answers, packed, classes, pairs };

struct TuningRun {
  Task task = Task::answers;
  Layout layout = {};
  int zero = 0;
  std::optional<LoraOptions> lora = {};
  std::optional<TrainedPart> part = {};
  GptConfig config = config_of();
  Placement placement = {};
  std::int64_t steps = kSteps;
};

struct Outcome {
  std::vector<double> losses, norms, measured;  // measured: without training, before and after
  std::int64_t trained = 0;
  Tensor values, adapters, head;
};

inline std::vector<TextBatch> texts(std::int64_t step) {
  std::vector<TextBatch> all;
  for (const auto& some : examples(step)) {
    std::vector<std::vector<std::int32_t>> tokens;
    std::vector<std::int64_t> labels;
    for (const Example& e : some) {
      tokens.push_back(e.tokens);
      labels.push_back(e.tokens.back() % 3);
    }
    all.push_back(collate_texts(tokens, labels, 12, 0));
  }
  return all;
}

inline std::vector<Batch> batches(std::int64_t step) {
  std::vector<Batch> all;
  for (const auto& some : examples(step)) all.push_back(collate(some, 0));
  return all;
}

/// One step of the task, and how much its losses are divided by.
inline TunerReport take_step(ParallelTuner& tuner, Task task) {
  const std::int64_t step = tuner.steps_done();
  const ForwardOptions options{.training = true, .seed = 5, .step = static_cast<std::uint64_t>(step)};
  if (task == Task::classes) {
    const auto all = texts(step);
    return tuner.step(class_passes(tuner, all, 2 * kMicroBatches, options), 2 * kMicroBatches);
  }
  if (task == Task::pairs) {
    const auto all = batches(step);
    const std::vector<std::vector<double>> references(kMicroBatches, {-9, -11});
    return tuner.step(pair_passes(all, references, kMicroBatches, 0.3, options), kMicroBatches);
  }
  std::vector<PackedBatch> all;
  std::int64_t targets = 0;
  for (const auto& some : examples(step)) {
    std::size_t first = 0;
    if (task == Task::packed)
      all.push_back(pack(some, first, 1, 12, 0));
    else
      all.push_back({collate(some, 0), {}});
    targets += target_count(all.back().batch);
  }
  const auto n = static_cast<double>(targets);
  return tuner.step(answer_passes(all, n, options), n);
}

inline std::vector<double> measure(ParallelTuner& tuner, Task task) {
  if (task == Task::pairs) return answer_log_probabilities(tuner, batches(0));
  if (task != Task::classes) return {mean_loss(tuner, batches(0))};
  const auto classes = predict(tuner, texts(0));
  return {classes.begin(), classes.end()};
}

inline Outcome run(const TuningRun& r) {
  GptStage start(r.config);
  start.initialize(3);
  Outcome outcome;
  run_ranks(r.layout.ranks(), {}, [&](Communicator& world) {
    ParallelTunerOptions o;
    o.tuner = tuner_options();
    o.micro_batches = kMicroBatches;
    o.lora = r.lora;
    o.seed = 3;
    o.parallel.layout = r.layout;
    o.parallel.zero = r.zero;
    if (r.part) o.trains = trained_by(*r.part, r.config);
    ParallelTuner tuner(world, start, r.placement, o);
    if (r.task == Task::classes) tuner.add_head(3);
    const std::int64_t trained = tuner.model().trained_count();
    std::vector<double> measured = measure(tuner, r.task), losses, norms;
    for (std::int64_t i = 0; i < r.steps; ++i) {
      const TunerReport report = take_step(tuner, r.task);
      losses.push_back(report.loss);
      norms.push_back(report.gradient_norm);
    }
    const std::vector<double> after = measure(tuner, r.task);
    const ParallelTuner::Result made = tuner.gather();
    if (world.rank() != 0) {
      EXPECT_EQ(made.model, nullptr);
      return;
    }
    measured.insert(measured.end(), after.begin(), after.end());
    outcome = {losses, norms, measured, trained, made.model->parameters().values(), {}, {}};
    if (made.adapters) outcome.adapters = made.adapters->parameters().values();
    if (made.head) outcome.head = made.head->parameters().values();
  });
  return outcome;
}

inline void expect_same_bits(const Outcome& a, const Outcome& b) {
  EXPECT_EQ(a.losses, b.losses);
  EXPECT_EQ(a.norms, b.norms);
  EXPECT_EQ(a.measured, b.measured);
  EXPECT_EQ(a.trained, b.trained);
  EXPECT_EQ(copy(a.values), copy(b.values));
  if (a.adapters.defined()) {
    EXPECT_EQ(copy(a.adapters), copy(b.adapters));
  }
  if (a.head.defined()) {
    EXPECT_EQ(copy(a.head), copy(b.head));
  }
}

/// Sums in another order: roundings of 6e-8, some per layer, which a few Adam steps pass on. (Adam's first
/// steps move a parameter by the learning rate however small its gradient is, rounding and all.)
inline void expect_close_runs(const Outcome& a, const Outcome& b, double bound = 3e-5) {
  ASSERT_EQ(a.losses.size(), b.losses.size());
  EXPECT_EQ(a.trained, b.trained);
  for (std::size_t i = 0; i < a.losses.size(); ++i) {
    EXPECT_NEAR(a.losses[i], b.losses[i], bound * b.losses[i]) << "step " << i + 1;
    EXPECT_NEAR(a.norms[i], b.norms[i], 20 * bound * b.norms[i]) << "step " << i + 1;
  }
  ASSERT_EQ(a.measured.size(), b.measured.size());
  for (std::size_t i = 0; i < a.measured.size(); ++i)
    EXPECT_NEAR(a.measured[i], b.measured[i], bound * std::abs(b.measured[i])) << i;
}

inline const LoraOptions kLora{.rank = 2, .alpha = 4};

}  // namespace llm::tuning_test
