#include "tests/exercises/exercise_test.h"
#include "tests/exercises/selftest/exercises.h"

namespace llm::exercises {
namespace {

TEST(Exercise_0_1, AddsUp) {
  expect_equal(ch00::sum({1, 2, 3}), 6, "every element counts, also the last");
  expect_equal(ch00::sum({}), 0);
}

TEST(Exercise_0_2, LargestIsOne) {
  std::vector<float> values = {1, 4, 2};
  ch00::scale(values);
  expect_close(values, std::vector<float>{0.25F, 1, 0.5F});
}

TEST(Exercise_0_3, SmallNumbers) {
  expect_equal(ch00::factorial(5), 120);
  expect_equal(ch00::factorial(0), 1, "the product of no numbers");
}

// A stub must not pass for one that throws.
TEST(Exercise_0_3, RefusesNegativeNumbers) {
  EXPECT_ANY_THROW(ch00::factorial(-1));
}

}  // namespace
}  // namespace llm::exercises
