// Checks the exercises of chapter 3.
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "ch03_attention/exercises.h"
#include "common/core/philox.h"
#include "common/ops/ops.h"
#include "tests/exercises/exercise_test.h"

namespace llm::exercises {
namespace {

std::vector<float> random_numbers(std::size_t count, std::string_view name) {
  const Philox philox{7, stream_id(name)};
  std::vector<float> x(count);
  for (std::size_t i = 0; i < count; ++i) x[i] = philox.normal(i);
  return x;
}

TEST(Exercise_3_1, MatchesTheFormula) {
  std::vector<float> x = {1, 2, 3};
  ch03::softmax_row(x);
  expect_close(x, std::vector<float>{0.09003057F, 0.24472848F, 0.66524094F},
               "exp(x[i]) over the sum of all exp(x[j])");
  std::vector<float> one = {-4};
  ch03::softmax_row(one);
  expect_close(one, std::vector<float>{1}, "a single entry has all the weight");
}

TEST(Exercise_3_1, SurvivesLargeScores) {
  std::vector<float> x = {1000, 1000, 999};
  ch03::softmax_row(x);
  expect_close(x, std::vector<float>{0.4223188F, 0.4223188F, 0.15536241F},
               "exp(1000) is infinite in a float; what can be subtracted first?");
  std::vector<float> huge = {-1e30F, 1e30F};
  ch03::softmax_row(huge);
  expect_close(huge, std::vector<float>{0, 1}, "subtract the largest entry before exp");
}

TEST(Exercise_3_1, SurvivesVerySmallScores) {
  std::vector<float> x = {-1000, -1001};
  ch03::softmax_row(x);
  expect_close(x, std::vector<float>{0.7310586F, 0.26894143F},
               "all exp(x) are 0 here, unless the largest entry becomes 0 first");
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> masked = {-kInfinity, 0, -kInfinity, 0};
  ch03::softmax_row(masked);
  expect_close(masked, std::vector<float>{0, 0.5F, 0, 0.5F}, "exp(-infinity) is 0");
}

TEST(Exercise_3_2, TheFirstTokenSeesItselfOnly) {
  const std::vector<float> q = {1, 2}, k = {3, 4}, v = {5, 6};
  expect_close(ch03::causal_head(q, k, v, 2), v, "one key has the weight 1, so y = v");
}

TEST(Exercise_3_2, CanBeFollowedByHand) {
  // D = 4, so scores are halved. Token 1: q.k is 0 and 2, scores 0 and 1, weights 0.268941 and 0.731059.
  const std::vector<float> q = {0, 0, 0, 0, 1, 1, 0, 0};
  const std::vector<float> k = {0, 0, 1, 1, 1, 1, 0, 0};
  const std::vector<float> v = {1, 2, 3, 4, 5, 6, 7, 8};
  expect_close(ch03::causal_head(q, k, v, 4),
               std::vector<float>{1, 2, 3, 4, 3.9242343F, 4.9242343F, 5.9242343F, 6.9242343F}, Shape{2, 4},
               "token 1 weighs token 0 with exp(0) and itself with exp(2 / sqrt(4))");
}

TEST(Exercise_3_2, AgreesWithTheLibrary) {
  constexpr std::int64_t T = 9, D = 5;
  const std::vector<float> qkv = random_numbers(T * 3 * D, "exercise 3.2");
  std::vector<float> q, k, v;
  for (std::int64_t t = 0; t < T; ++t)
    for (std::int64_t d = 0; d < D; ++d) {
      q.push_back(qkv[static_cast<std::size_t>(t * 3 * D + d)]);
      k.push_back(qkv[static_cast<std::size_t>(t * 3 * D + D + d)]);
      v.push_back(qkv[static_cast<std::size_t>(t * 3 * D + 2 * D + d)]);
    }
  Tensor y({1, T, D}), weights({1, 1, T, T});
  attention_naive_forward(y, weights, Tensor::from(std::span<const float>(qkv), {1, T, 3 * D}), {.heads = 1});
  expect_close(ch03::causal_head(q, k, v, D), y.span(), Shape{T, D},
               "does token t look at tokens 0 to t, itself included, and at no others?");
}

TEST(Exercise_3_2, SurvivesLargeScores) {
  const std::vector<float> q = {100, 100}, k = {100, 90}, v = {1, 2};
  expect_close(ch03::causal_head(q, k, v, 1), std::vector<float>{1, 1}, Shape{2, 1},
               "the scores are 10000 and 9000: exercise 3.1");
}

TEST(Exercise_3_3, SplitsAsTheContractSays) {
  // One sequence of 2 tokens, 4 channels, 2 heads.
  const std::vector<float> x = {0, 1, 2, 3, 10, 11, 12, 13};
  expect_close(ch03::split_heads(x, 1, 2, 4, 2), std::vector<float>{0, 1, 10, 11, 2, 3, 12, 13},
               Shape{1, 2, 2, 2}, "head 0 gets channels 0 and 1 of all tokens, head 1 the others");
}

TEST(Exercise_3_3, SplitsAndMergesAnyShape) {
  for (const auto& [B, T, H, D] : {std::tuple{2, 3, 2, 5}, {1, 4, 3, 1}, {3, 1, 1, 4}, {2, 5, 4, 3}}) {
    const std::int64_t C = H * D;
    std::vector<float> x(static_cast<std::size_t>(B * T * C));
    std::iota(x.begin(), x.end(), 0.0F);
    std::vector<float> expected;
    for (std::int64_t b = 0; b < B; ++b)
      for (std::int64_t h = 0; h < H; ++h)
        for (std::int64_t t = 0; t < T; ++t)
          for (std::int64_t d = 0; d < D; ++d)
            expected.push_back(static_cast<float>((b * T + t) * C + h * D + d));
    expect_close(ch03::split_heads(x, B, T, C, H), expected, Shape{B, H, T, D}, "split_heads, of x[i] = i");
    expect_close(ch03::merge_heads(expected, B, T, C, H), x, Shape{B, T, C},
                 "merge_heads must undo split_heads");
  }
}

TEST(Exercise_3_4, CanBeFollowedByHand) {
  const std::vector<float> y = {0.25F, 0.75F}, dy = {1, 0};
  expect_close(ch03::softmax_backward_row(dy, y), std::vector<float>{0.1875F, -0.1875F},
               "sum y dy = 0.25, so dx[0] = 0.25 (1 - 0.25)");
}

TEST(Exercise_3_4, IsZeroWhereNothingCanChange) {
  expect_close(ch03::softmax_backward_row(std::vector<float>{3, 3, 3}, std::vector<float>{0.2F, 0.3F, 0.5F}),
               std::vector<float>{0, 0, 0},
               "the weights always sum to 1, so an equal push on all does nothing");
}

TEST(Exercise_3_4, AgreesWithFiniteDifferences) {
  constexpr std::size_t kSize = 7;
  const std::vector<float> x = random_numbers(kSize, "exercise 3.4 x"),
                           dy = random_numbers(kSize, "exercise 3.4 dy");
  const auto softmax = [&](std::size_t moved, double by) {
    std::vector<double> y(kSize);
    double sum = 0;
    for (std::size_t i = 0; i < kSize; ++i) sum += y[i] = std::exp(x[i] + (i == moved ? by : 0.0));
    for (double& entry : y) entry /= sum;
    return y;
  };
  const std::vector<double> exact = softmax(kSize, 0);
  const std::vector<float> y(exact.begin(), exact.end());
  std::vector<float> expected(kSize);
  for (std::size_t i = 0; i < kSize; ++i) {
    const std::vector<double> plus = softmax(i, 1e-5), minus = softmax(i, -1e-5);
    double slope = 0;
    for (std::size_t j = 0; j < kSize; ++j) slope += dy[j] * (plus[j] - minus[j]) / 2e-5;
    expected[i] = static_cast<float>(slope);
  }
  expect_close(ch03::softmax_backward_row(dy, y), expected, "compared with (loss(x + h) - loss(x - h)) / 2h",
               {.relative = 1e-4, .absolute = 1e-6});
}

}  // namespace
}  // namespace llm::exercises
