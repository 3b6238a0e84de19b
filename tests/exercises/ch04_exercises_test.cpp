// Checks the exercises of chapter 4.
#include <cmath>
#include <vector>

#include "ch04_gpt_model/exercises.h"
#include "common/core/philox.h"
#include "tests/exercises/exercise_test.h"

namespace llm::exercises {
namespace {

std::vector<float> random_numbers(std::size_t count, std::string_view name, float center = 0, float std = 1) {
  const Philox philox{7, stream_id(name)};
  std::vector<float> x(count);
  for (std::size_t i = 0; i < count; ++i) x[i] = center + std * philox.normal(i);
  return x;
}

TEST(Exercise_4_1, CanBeFollowedByHand) {
  // Mean 2, variance 1, eps small: (1, 3) becomes (-1, 1).
  expect_close(
      ch04::layer_norm(std::vector<float>{1, 3}, std::vector<float>{1, 1}, std::vector<float>{0, 0}, 1e-9F),
      std::vector<float>{-1, 1}, "the variance is ((1 - 2)^2 + (3 - 2)^2) / 2 = 1");
  expect_close(
      ch04::layer_norm(std::vector<float>{1, 3}, std::vector<float>{10, 10}, std::vector<float>{5, 6}, 1e-9F),
      std::vector<float>{-5, 16}, "then times gamma, plus beta");
}

TEST(Exercise_4_1, EpsilonStandsUnderTheRoot) {
  // Variance 1, eps 3: divided by sqrt(4).
  expect_close(
      ch04::layer_norm(std::vector<float>{1, 3}, std::vector<float>{1, 1}, std::vector<float>{0, 0}, 3),
      std::vector<float>{-0.5F, 0.5F}, "sqrt(variance + eps)");
  expect_close(ch04::layer_norm(std::vector<float>{7, 7, 7}, std::vector<float>{1, 1, 1},
                                std::vector<float>{1, 2, 3}, 1e-5F),
               std::vector<float>{1, 2, 3}, "a row without variance gives beta");
}

TEST(Exercise_4_1, AgreesWithDoublePrecisionOnEveryRow) {
  for (const float center : {0.0F, 1000.0F}) {
    constexpr std::int64_t N = 5, C = 17;
    const std::vector<float> x = random_numbers(N * C, "exercise 4.1", center);
    const std::vector<float> gamma = random_numbers(C, "gamma", 1, 0.3F), beta = random_numbers(C, "beta");
    std::vector<float> expected(x.size());  // in double
    for (std::size_t n = 0; n < N; ++n) {
      double mean = 0, variance = 0;
      for (std::size_t c = 0; c < C; ++c) mean += x[n * C + c] / static_cast<double>(C);
      for (std::size_t c = 0; c < C; ++c) variance += (x[n * C + c] - mean) * (x[n * C + c] - mean) / C;
      for (std::size_t c = 0; c < C; ++c)
        expected[n * C + c] =
            static_cast<float>((x[n * C + c] - mean) / std::sqrt(variance + 1e-5) * gamma[c] + beta[c]);
    }
    expect_close(ch04::layer_norm(x, gamma, beta, 1e-5F), expected, Shape{N, C},
                 center == 0 ? "each row has its own mean and variance"
                             : "the row lies around 1000; is the mean subtracted before squaring?",
                 {.relative = 1e-3, .absolute = 1e-3});
  }
}

TEST(Exercise_4_2, MatchesTheFormula) {
  // torch.nn.functional.gelu(x, approximate="tanh")
  expect_close(ch04::gelu(std::vector<float>{0, 1, -1, 2, -2, 0.5F}),
               std::vector<float>{0, 0.8411920F, -0.1588080F, 1.9545977F, -0.0454023F, 0.3457140F},
               "0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))");
}

TEST(Exercise_4_2, IsNearlyTheIdentityOrZeroFarOut) {
  expect_close(ch04::gelu(std::vector<float>{10, 100, -10, -100}), std::vector<float>{10, 100, 0, 0},
               "tanh of a large number is 1 or -1");
}

TEST(Exercise_4_3, CountsGpt2) {
  expect_equal(ch04::count_parameters(50257, 1024, 768, 12, true), 124'439'808,
               "GPT-2 124M; compare with the table that ch04_gpt_model prints");
  expect_equal(ch04::count_parameters(50257, 1024, 768, 12, false), 163'037'184,
               "a head of its own has V C more");
  expect_equal(ch04::count_parameters(50257, 1024, 1600, 48, true), 1'557'611'200, "GPT-2 1.5B");
}

TEST(Exercise_4_3, CountsTheSmallest) {
  // One of each: tables 1 + 1, norms 3 x 2, q k v 3 + 3, projection 1 + 1, up 4 + 4, down 4 + 1.
  expect_equal(ch04::count_parameters(1, 1, 1, 1, true), 29, "one channel, one layer");
  expect_equal(ch04::count_parameters(3, 5, 2, 0, true), 20, "no blocks: two tables and the last norm");
}

TEST(Exercise_4_4, CanBeFollowedByHand) {
  expect_close(ch04::cross_entropy(std::vector<float>{0, 0, 0, 0}, 4, std::vector<std::int32_t>{2}),
               std::log(4.0), "four equal logits: every token has probability 1/4");
  expect_close(ch04::cross_entropy(std::vector<float>{1, 2, 3}, 3, std::vector<std::int32_t>{2}), 0.40760596,
               "-log of softmax(1, 2, 3)[2] = -log 0.66524096");
  expect_close(ch04::cross_entropy(std::vector<float>{1, 2, 3, 1, 2, 3}, 3, std::vector<std::int32_t>{2, 0}),
               (0.40760596 + 2.40760596) / 2, "the mean over both rows");
}

TEST(Exercise_4_4, SkipsTargetsOfMinusOne) {
  const std::vector<float> logits = {1, 2, 3, 1, 2, 3, 1, 2, 3};
  expect_close(ch04::cross_entropy(logits, 3, std::vector<std::int32_t>{-1, 0, -1}), 2.40760596,
               "the mean is over the rows that count: here one");
  expect_close(ch04::cross_entropy(logits, 3, std::vector<std::int32_t>{-1, -1, -1}), 0, "no row counts");
}

TEST(Exercise_4_4, SurvivesLargeLogits) {
  expect_close(ch04::cross_entropy(std::vector<float>{1000, 1001}, 2, std::vector<std::int32_t>{0}),
               1.31326169, "exp(1000) is infinite; subtract the largest logit first");
  expect_close(ch04::cross_entropy(std::vector<float>{-1000, -1001}, 2, std::vector<std::int32_t>{0}),
               0.31326169, "exp(-1000) is 0, and its logarithm -infinity");
  expect_close(ch04::cross_entropy(std::vector<float>{0, 500}, 2, std::vector<std::int32_t>{0}), 500,
               "the probability is below the smallest float, its logarithm is not");
}

}  // namespace
}  // namespace llm::exercises
