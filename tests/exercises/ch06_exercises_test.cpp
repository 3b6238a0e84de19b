// Checks of the exercises of chapter 6. Expected numbers: by hand, from the papers where said so.
#include <algorithm>
#include <string>

#include "ch06_multi_gpu/exercises.h"
#include "tests/exercises/exercise_test.h"

namespace llm::exercises {
namespace {

/// "F0 F1 B0 B1".
std::string text(const std::vector<ch06::Pass>& passes) {
  std::string result;
  for (const ch06::Pass& pass : passes) {
    if (!result.empty()) result += ' ';
    result += pass.kind + std::to_string(pass.micro_batch);
  }
  return result;
}

// ---- 6.5 ------------------------------------------------------------------------------------------

TEST(Exercise_6_5, AllForwardThenAllBackward) {
  expect_equal(text(ch06::gpipe(0, 2, 3)), "F0 F1 F2 B0 B1 B2",
               "all forward passes first, both in ascending order");
}

TEST(Exercise_6_5, IsTheSameOnEveryRank) {
  for (int rank = 0; rank < 4; ++rank)
    expect_equal(text(ch06::gpipe(rank, 4, 5)), "F0 F1 F2 F3 F4 B0 B1 B2 B3 B4");
  expect_equal(text(ch06::gpipe(0, 1, 1)), "F0 B0");
}

// ---- 6.6 ------------------------------------------------------------------------------------------

TEST(Exercise_6_6, TheLastRankAlternates) {
  expect_equal(text(ch06::one_f_one_b(1, 2, 3)), "F0 B0 F1 B1 F2 B2",
               "the last rank has nobody behind it: no warm-up");
}

TEST(Exercise_6_6, TheFirstRankWarmsUp) {
  expect_equal(text(ch06::one_f_one_b(0, 2, 3)), "F0 F1 B0 F2 B1 B2",
               "one rank is behind it: one forward pass, then forward and backward in turn");
  // Narayanan et al. 2021, figure 4 (top), counted from 0.
  expect_equal(text(ch06::one_f_one_b(0, 4, 8)), "F0 F1 F2 F3 B0 F4 B1 F5 B2 F6 B3 F7 B4 B5 B6 B7");
  expect_equal(text(ch06::one_f_one_b(2, 4, 8)), "F0 F1 B0 F2 B1 F3 B2 F4 B3 F5 B4 F6 B5 F7 B6 B7");
}

TEST(Exercise_6_6, ManagesWithFewMicroBatches) {
  expect_equal(text(ch06::one_f_one_b(0, 8, 2)), "F0 F1 B0 B1",
               "there may be fewer micro-batches than ranks behind");
  expect_equal(text(ch06::one_f_one_b(6, 8, 2)), "F0 F1 B0 B1");
  expect_equal(text(ch06::one_f_one_b(0, 1, 2)), "F0 B0 F1 B1");
}

TEST(Exercise_6_6, HoldsNoMoreThanItMust) {
  for (int ranks = 1; ranks <= 8; ++ranks)
    for (int rank = 0; rank < ranks; ++rank) {
      int alive = 0, most = 0;
      const std::vector<ch06::Pass> passes = ch06::one_f_one_b(rank, ranks, 16);
      ASSERT_EQ(passes.size(), 32U);
      for (const ch06::Pass& pass : passes) most = std::max(most, alive += pass.kind == 'F' ? 1 : -1);
      expect_equal(most, ranks - rank, "", "micro-batches in flight");
    }
}

// ---- 6.7 ------------------------------------------------------------------------------------------

std::string text(const ch06::Range& range) {
  return fmt::format("[{}, {})", range.begin, range.end);
}

TEST(Exercise_6_7, CutsEvenly) {
  expect_equal(text(ch06::zero1_part(12, 0, 3, 1)), "[0, 4)");
  expect_equal(text(ch06::zero1_part(12, 2, 3, 1)), "[8, 12)");
}

TEST(Exercise_6_7, RoundsUp) {
  expect_equal(text(ch06::zero1_part(10, 0, 3, 1)), "[0, 4)",
               "10 / 3, rounded up, is 4: nothing may be left over");
  expect_equal(text(ch06::zero1_part(10, 2, 3, 1)), "[8, 10)", "the last part ends where the buffer ends");
}

TEST(Exercise_6_7, KeepsTheAlignment) {
  // 10 over 3 is 4, and the next multiple of 8 is 8.
  expect_equal(text(ch06::zero1_part(10, 0, 3, 8)), "[0, 8)",
               "the size of a part is a multiple of the alignment");
  expect_equal(text(ch06::zero1_part(10, 1, 3, 8)), "[8, 10)");
  expect_equal(text(ch06::zero1_part(10, 2, 3, 8)), "[10, 10)",
               "an empty part begins and ends at the end of the buffer");
}

TEST(Exercise_6_7, CoversEverythingOnce) {
  for (const std::int64_t elements : {0, 1, 7, 64, 1000, 944896})
    for (const int ranks : {1, 2, 3, 8})
      for (const std::int64_t alignment : {1, 4, 16}) {
        std::int64_t next = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const ch06::Range part = ch06::zero1_part(elements, rank, ranks, alignment);
          expect_equal(part.begin, next, "parts follow each other without a gap", "the begin");
          next = part.end;
        }
        expect_equal(next, elements, "together the parts are the whole buffer", "the last end");
      }
}

// ---- 6.9 ------------------------------------------------------------------------------------------

/// parameters, gradients, optimizer, activations
std::vector<double> list(const ch06::Memory& m) {
  return {m.parameters, m.gradients, m.optimizer, m.activations};
}

TEST(Exercise_6_9, OneDevice) {
  // By hand: 2 layers of 12 x 100 parameters; activations 34 x 7 x 3 x 10 bytes for each layer.
  expect_close(list(ch06::rank_memory(2, 10, 7, 3, 1, 1, 1, 0, 4, 0)),
               std::vector<double>{4800, 4800, 28800, 14280},
               "2, 2 and 12 bytes for each of 2 x 12 x 10^2 parameters; 34 s b h bytes per layer");
}

TEST(Exercise_6_9, ZeroStages) {
  // Rajbhandari et al. 2020, figure 1, with the 24 million parameters of 2 layers of h = 1000 and d = 4.
  const double P = 24e6;
  const std::vector<std::vector<double>> expected = {{2 * P, 2 * P, 12 * P, 0},
                                                     {2 * P, 2 * P, 3 * P, 0},
                                                     {2 * P, P / 2, 3 * P, 0},
                                                     {P / 2, P / 2, 3 * P, 0}};
  for (int zero = 0; zero <= 3; ++zero) {
    std::vector<double> got = list(ch06::rank_memory(2, 1000, 7, 1, 1, 1, 4, zero, 2, 0));
    got[3] = 0;
    expect_close(got, expected[static_cast<std::size_t>(zero)],
                 "ZeRO-1 divides the optimizer by d, ZeRO-2 the gradients too, ZeRO-3 also the parameters");
  }
}

TEST(Exercise_6_9, DataParallelismLeavesActivationsAlone) {
  const ch06::Memory one = ch06::rank_memory(2, 10, 7, 3, 1, 1, 1, 3, 4, 0);
  const ch06::Memory many = ch06::rank_memory(2, 10, 7, 3, 1, 1, 8, 3, 4, 0);
  expect_close(many.activations, one.activations, "every replica has a micro-batch of its own");
}

TEST(Exercise_6_9, PipelineAndTensor) {
  // 8 layers over 4 stages and 2 tensor-parallel ranks: each rank has half of 2 layers.
  const double layer = 34.0 * 7 * 3 * 10 / 2;
  for (int stage = 0; stage < 4; ++stage)
    expect_close(list(ch06::rank_memory(8, 10, 7, 3, 4, 2, 1, 0, 16, stage)),
                 std::vector<double>{2400, 2400, 14400, (4 - stage) * 2 * layer},
                 "stage i of p holds p - i micro-batches of L / p layers");
  expect_close(ch06::rank_memory(8, 10, 7, 3, 4, 2, 1, 0, 2, 0).activations, 2 * 2 * layer,
               "with two micro-batches no stage holds more than two");
}

TEST(Exercise_6_9, Gpt175B) {
  // 96 layers of 12,288 over 8 stages and 8 ranks: 2.717 billion parameters each (more than 32 bits count),
  // 16 bytes each.
  const ch06::Memory m = ch06::rank_memory(96, 12288, 2048, 1, 8, 8, 1, 0, 64, 0);
  expect_close(m.parameters + m.gradients + m.optimizer, 16 * 2717908992.0);
  expect_close(m.activations, 96 * 34.0 * 2048 * 12288 / 8,
               "the first stage holds L layers' worth, as if there were no pipeline");
}

}  // namespace
}  // namespace llm::exercises
