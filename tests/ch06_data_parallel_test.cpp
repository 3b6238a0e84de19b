// Data parallelism and ZeRO 0 to 3: against one process, against each other, and the memory they need.
#include <algorithm>
#include <random>

#include "common/core/memory_meter.h"
#include "common/parallel/exact_squares.h"
#include "common/training/trainer.h"
#include "tests/ch06_parallel_helpers.h"

namespace llm {
namespace {

using namespace parallel_test;

TEST(ExactSquares, IsExactWhateverTheOrder) {
  std::vector<float> x;
  std::mt19937 random(5);
  for (int i = 0; i < 100'000; ++i)
    x.push_back(
        std::ldexp(static_cast<float>(random()) * 0x1p-32F - 0.5F, static_cast<int>(random() % 90) - 60));
  x.push_back(1e-42F);  // subnormal
  x.push_back(0);
  ExactSquares once;
  once.add(x);
  std::shuffle(x.begin(), x.end(), random);
  ExactSquares::Digits sum{};
  for (std::size_t begin = 0; begin < x.size(); begin += 30'011) {  // like ranks with parts of it
    ExactSquares part;
    part.add(std::span(x).subspan(begin, std::min<std::size_t>(30'011, x.size() - begin)));
    const auto digits = part.digits();
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += digits[i];
  }
  EXPECT_EQ(once.value(), ExactSquares::value(sum));
  long double reference = 0;
  for (const float v : x) reference += static_cast<long double>(v) * v;
  EXPECT_NEAR(once.value(), static_cast<double>(reference), 1e-15 * static_cast<double>(reference));

  ExactSquares extremes;
  const float large[] = {3.4e38F, 3.4e38F, 1e-45F};
  extremes.add(large);
  EXPECT_NEAR(extremes.value(), 2 * std::pow(static_cast<double>(3.4e38F), 2), 1e62);
  const float infinite[] = {std::numeric_limits<float>::infinity()};
  extremes.add(infinite);
  EXPECT_TRUE(std::isnan(extremes.value()));
}

TEST(DataParallel, OneRankIsTheTrainerOfChapterFive) {
  TestRun r;
  r.trainer = tiny_run(1);
  r.parallel = layout(1, 1, 1);
  const auto tokens = tiny_tokens();
  GptStage model(r.config);
  model.initialize(3);
  Trainer trainer(model, tokens, 0, r.trainer);
  const Outcome outcome = run(r);
  for (std::size_t i = 0; i < outcome.losses.size(); ++i) {
    const StepReport report = trainer.step();
    EXPECT_EQ(report.loss, outcome.losses[i]) << i;
    EXPECT_NEAR(report.gradient_norm, outcome.norms[i], 1e-14 * report.gradient_norm) << i;
  }
  EXPECT_EQ(std::memcmp(model.parameters().values().raw(), outcome.values.raw(), outcome.values.bytes()), 0);
}

// 3 ranks do not divide the units evenly; 5 leave one without a piece of some.
TEST(DataParallel, EveryZeroStageHasTheSameBits) {
  for (const int n : {2, 3, 5, 8}) {
    TestRun r;
    r.config.layers = 2;
    r.config.channels = 24;  // 24 x 61 + 24 x 16 elements are no multiple of 5
    r.trainer = tiny_run(n);
    r.parallel = layout(1, 1, 1);
    const Outcome alone = run(r);
    r.parallel = layout(1, n, 1);
    const Outcome plain = run(r);
    expect_close(alone, plain, fmt::format("{} ranks against one", n));
    for (const int zero : {1, 2, 3}) {
      r.parallel = layout(1, n, 1, zero);
      expect_same_bits(plain, run(r), fmt::format("zero {} on {} ranks", zero, n));
    }
  }
}

TEST(DataParallel, AccumulatesMicroBatches) {
  TestRun r;
  r.trainer = tiny_run(6);
  r.parallel = layout(1, 1, 1);
  const Outcome alone = run(r);
  std::vector<Outcome> outcomes;
  for (const int zero : {0, 1, 2, 3}) {
    r.parallel = layout(1, 2, 1, zero);
    outcomes.push_back(run(r));
    expect_close(alone, outcomes.back(), fmt::format("zero {}", zero));
  }
  // 0 and 1 add up micro-batches first; 2 and 3 ranks first, unless they are told not to.
  expect_same_bits(outcomes[0], outcomes[1], "zero 1");
  expect_same_bits(outcomes[2], outcomes[3], "zero 3");
  for (const int zero : {0, 1, 2, 3}) {
    r.parallel = layout(1, 2, 1, zero);
    r.parallel.no_sync = true;
    expect_same_bits(outcomes[0], run(r), fmt::format("zero {} without sync", zero));
  }
}

TEST(DataParallel, UntiedHeadAndNoBias) {
  TestRun r;
  r.config.tied_head = false;
  r.config.bias = r.config.qkv_bias = false;
  r.trainer = tiny_run(2);
  r.steps = std::min<std::int64_t>(6, kSteps);
  r.parallel = layout(1, 2, 1);
  const Outcome plain = run(r);
  for (const int zero : {1, 2, 3}) {
    r.parallel = layout(1, 2, 1, zero);
    expect_same_bits(plain, run(r), fmt::format("zero {}", zero));
  }
}

/// Peak of tensor memory of each rank over two steps, without what stands before the trainer is made.
std::vector<std::int64_t> peaks(const GptConfig& config, const TrainerOptions& trainer_options,
                                const ParallelOptions& options) {
  const auto tokens = tiny_tokens();
  std::vector<std::int64_t> result(static_cast<std::size_t>(options.layout.ranks()));
  run_ranks(options.layout.ranks(), {}, [&](Communicator& world) {
    const auto meter = std::make_shared<MemoryMeter>();
    const MemoryScope scope(meter);
    ParallelTrainer trainer(world, config, {}, tokens, 0, trainer_options, options);
    trainer.initialize(3);
    for (int i = 0; i < 2; ++i) trainer.step();
    result[static_cast<std::size_t>(world.rank())] = meter->peak();
  });
  return result;
}

// Rajbhandari et al. 2020, figure 1, with f32 throughout: 4 bytes of values, 4 of gradients, 8 of moments per
// parameter. A deep and narrow model, so that one layer is a small part of it.
TEST(Zero, MemoryFollowsTheFormulas) {
  GptConfig config = tiny_config();
  config.layers = 64;
  config.channels = 48;
  config.dropout = 0;
  config.context = 4;
  TrainerOptions run = tiny_run(4, 3);
  run.batch = 1;
  const auto P = static_cast<double>(parameter_count(config));
  const auto layer = P / static_cast<double>(config.layers);
  constexpr int n = 4;
  const double formulas[] = {16 * P, 8 * P + 8 * P / n, 4 * P + 12 * P / n, 16 * P / n};
  // Beside them: activations, and of zero 2 and 3 the gradients of two layers, of zero 3 the values of two.
  const double activations = static_cast<double>(activation_bytes(config, run.batch, config.context));
  const double beside[] = {0, 0, 2 * 4 * layer, 4 * 4 * layer};
  for (int zero = 0; zero <= 3; ++zero) {
    for (const std::int64_t peak : peaks(config, run, layout(1, n, 1, zero))) {
      const double measured = static_cast<double>(peak) - activations;
      EXPECT_NEAR(measured, formulas[zero], 0.05 * formulas[zero] + beside[zero]) << "zero " << zero;
      EXPECT_GT(measured, 0.99 * formulas[zero]) << "zero " << zero;
    }
  }
}

TEST(DataParallel, SaysWhatDoesNotGoTogether) {
  TestRun r;
  r.trainer = tiny_run(3);
  r.parallel = layout(1, 2, 1);
  EXPECT_THROW(run(r), UsageError);  // 3 micro-batches over 2 ranks
  r.trainer = tiny_run(4);
  r.parallel = layout(2, 1, 1, 2);
  EXPECT_THROW(run(r), UsageError);  // ZeRO 2 in a pipeline
  r.parallel = layout(1, 1, 3);
  EXPECT_THROW(run(r), UsageError);  // 4 heads over 3 ranks
  r.parallel = layout(1, 2, 1, 4);
  EXPECT_THROW(run(r), UsageError);
}

TEST(DataParallel, StopsEverywhereWhereTheLossIsNoNumber) {
  TestRun r;
  r.trainer = tiny_run(2);
  r.trainer.schedule.peak = 1e38;
  r.trainer.schedule.warmup = 0;
  r.parallel = layout(1, 2, 1, 1);
  try {
    run(r);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("diverged"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace llm
