// Checks of the exercises of chapter 6 on schedules. Expected numbers: by hand, from the papers where said
// so.
#include <algorithm>
#include <string>
#include <vector>

#include "ch06_multi_gpu/exercises.h"
#include "tests/exercises/exercise_test.h"

namespace llm::exercises {
namespace {

// ---- 6.5 and 6.6 ----------------------------------------------------------------------------------

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

}  // namespace
}  // namespace llm::exercises
