// A tiny model and run for the tests of chapter 6, and running it under a layout.
#pragma once

#include <gtest/gtest.h>

#include <unistd.h>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/parallel/parallel_trainer.h"
#include "common/parallel/threads_communicator.h"

namespace llm::parallel_test {

/// Steps of a run. Sanitizers look for errors in the code, which a few steps go through, not at how roundings
/// grow.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr std::int64_t kSteps = 3;
#else
inline constexpr std::int64_t kSteps = 20;
#endif

inline GptConfig tiny_config() {
  GptConfig config;
  config.vocab_size = 61;
  config.context = 16;
  config.channels = 32;
  config.layers = 4;
  config.heads = 4;
  config.dropout = 0.1F;
  return config;
}

inline std::vector<std::uint16_t> tiny_tokens() {
  std::vector<std::uint16_t> tokens(5000);
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    state = state * 1664525u + 1013904223u;
    tokens[i] = static_cast<std::uint16_t>((state >> 24) % 9 + i % 2 * 20);
  }
  return tokens;
}

inline TrainerOptions tiny_run(std::int64_t micro_batches, std::int64_t steps = kSteps) {
  TrainerOptions o;
  o.schedule = {.peak = 1e-2, .floor = 1e-3, .warmup = 4, .steps = steps};
  o.adamw = {.beta1 = 0.9F, .beta2 = 0.95F, .eps = 1e-8F, .weight_decay = 0.1F};
  o.clip = 0.8;  // most steps are clipped
  o.batch = 2;
  o.accumulate = micro_batches;
  o.seed = 7;
  return o;
}

/// What a run leaves on rank 0.
struct Outcome {
  std::vector<double> losses, norms;
  std::unique_ptr<GptStage> model;
  Tensor values;
};

struct TestRun {
  GptConfig config = tiny_config();
  TrainerOptions trainer = tiny_run(4);
  ParallelOptions parallel;
  Placement placement;
  std::int64_t steps = kSteps;
};

inline ParallelOptions layout(int pp, int dp, int tp, int zero = 0) {
  ParallelOptions o;
  o.layout = {.pp = pp, .dp = dp, .tp = tp};
  o.zero = zero;
  return o;
}

/// Runs it on the ranks of `world`: losses and norms on rank 0. `each` may look at every rank's trainer at
/// the end.
inline Outcome run_on(Communicator& world, const TestRun& r,
                      const std::function<void(ParallelTrainer&)>& each) {
  const auto tokens = tiny_tokens();
  Outcome outcome;
  ParallelTrainer trainer(world, r.config, r.placement, tokens, 0, r.trainer, r.parallel);
  trainer.initialize(3);
  for (std::int64_t i = 0; i < r.steps; ++i) {
    const StepReport report = trainer.step();
    if (world.rank() != 0) continue;
    outcome.losses.push_back(report.loss);
    outcome.norms.push_back(report.gradient_norm);
  }
  each(trainer);
  return outcome;
}

/// Runs it on threads.
inline Outcome run(const TestRun& r, const std::function<void(ParallelTrainer&)>& each = {}) {
  Outcome outcome;
  run_ranks(r.parallel.layout.ranks(), {}, [&](Communicator& world) {
    std::unique_ptr<GptStage> model;
    Outcome here = run_on(world, r, [&](ParallelTrainer& trainer) {
      if (each) each(trainer);
      model = trainer.gather_model();
    });
    if (!model) return;
    here.values = model->parameters().values().clone();
    here.model = std::move(model);
    outcome = std::move(here);
  });
  return outcome;
}

/// How far apart two runs' parameters are: the largest difference over the largest value.
inline double difference(const Outcome& a, const Outcome& b) {
  double largest = 0, apart = 0;
  const auto x = a.values.span(), y = b.values.span();
  for (std::size_t i = 0; i < x.size(); ++i) {
    largest = std::max(largest, static_cast<double>(std::abs(x[i])));
    apart = std::max(apart, static_cast<double>(std::abs(x[i] - y[i])));
  }
  return apart / largest;
}

inline void expect_same_bits(const Outcome& a, const Outcome& b, const std::string& what) {
  ASSERT_EQ(a.losses.size(), b.losses.size()) << what;
  for (std::size_t i = 0; i < a.losses.size(); ++i) {
    ASSERT_EQ(a.losses[i], b.losses[i]) << what << ", loss of step " << i + 1;
    ASSERT_EQ(a.norms[i], b.norms[i]) << what << ", norm of step " << i + 1;
  }
  ASSERT_EQ(a.values.defined(), b.values.defined()) << what;
  if (!a.values.defined()) return;
  ASSERT_EQ(a.values.numel(), b.values.numel()) << what;
  EXPECT_EQ(std::memcmp(a.values.raw(), b.values.raw(), a.values.bytes()), 0) << what;
}

/// Runs that add up in another order. A float32 loss carries some roundings of 6e-8 per layer, and twenty
/// Adam steps pass on what they got; parameters are compared by their losses, because where a gradient is
/// almost zero Adam turns its rounding into a step of full size.
inline void expect_close(const Outcome& a, const Outcome& b, const std::string& what, double bound = 1e-5) {
  ASSERT_EQ(a.losses.size(), b.losses.size()) << what;
  for (std::size_t i = 0; i < a.losses.size(); ++i) {
    EXPECT_NEAR(a.losses[i], b.losses[i], bound * a.losses[i]) << what << ", loss of step " << i + 1;
    EXPECT_NEAR(a.norms[i], b.norms[i], 20 * bound * a.norms[i]) << what << ", norm of step " << i + 1;
  }
}

}  // namespace llm::parallel_test
