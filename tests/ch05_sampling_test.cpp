// Sampling: exact candidate sets, frequencies, determinism, errors.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "common/core/error.h"
#include "common/generation/sampling.h"

namespace llm {
namespace {

std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

std::vector<int> tokens(const std::vector<Candidate>& candidates) {
  std::vector<int> ids;
  for (const Candidate& c : candidates) ids.push_back(c.token);
  return ids;
}

SamplingOptions options(float temperature, std::int64_t k = 0, float p = 1, std::uint64_t seed = 1) {
  return {.temperature = temperature, .top_k = k, .top_p = p, .seed = seed};
}

TEST(Sampling, GreedyTakesTheFirstOfTheLargest) {
  const std::vector<float> logits = {1, 3, 2, 3};
  EXPECT_EQ(tokens(candidates(logits, options(0))), std::vector<int>({1}));
  for (int position = 0; position < 20; ++position)
    EXPECT_EQ(sample_token(logits, options(0), 0, position), 1);
}

TEST(Sampling, TopKAndTopPLeaveExactlyTheirSets) {
  const auto logits = logits_of({0.1, 0.4, 0.05, 0.25, 0.2});
  struct Case {
    std::int64_t k;
    float p;
    std::vector<int> expected;
  };
  const Case cases[] = {
      {0, 1, {1, 3, 4, 0, 2}},  {1, 1, {1}},       {3, 1, {1, 3, 4}},    {9, 1, {1, 3, 4, 0, 2}},
      {0, 0.39F, {1}},          {0, 0.5F, {1, 3}}, {0, 0.7F, {1, 3, 4}}, {0, 1e-6F, {1}},
      {0, 0.94F, {1, 3, 4, 0}}, {2, 0.6F, {1}},    {2, 0.65F, {1, 3}},   {3, 0.9F, {1, 3, 4}},
  };
  for (const Case& c : cases) {
    const auto left = candidates(logits, options(1, c.k, c.p));
    EXPECT_EQ(tokens(left), c.expected) << "k = " << c.k << ", p = " << c.p;
    double sum = 0;
    for (const Candidate& x : left) sum += x.probability;
    EXPECT_NEAR(sum, 1, 1e-12);
  }
}

TEST(Sampling, TiesGoToTheLowerToken) {
  const std::vector<float> logits(50, 0.5F);
  EXPECT_EQ(tokens(candidates(logits, options(1, 3))), std::vector<int>({0, 1, 2}));
  EXPECT_EQ(tokens(candidates(logits, options(1, 0, 0.05F))), std::vector<int>({0, 1, 2}));
}

TEST(Sampling, FrequenciesFollowTheProbabilities) {
  const std::vector<double> p = {0.1, 0.4, 0.05, 0.25, 0.2};
  const auto logits = logits_of(p);
  constexpr int kDraws = 40000;
  for (const float temperature : {0.5F, 1.0F, 2.0F}) {
    for (const std::int64_t k : {std::int64_t{0}, std::int64_t{3}}) {
      std::map<int, double> expected;
      double sum = 0;
      for (const int token : k == 0 ? std::vector<int>{0, 1, 2, 3, 4} : std::vector<int>{1, 3, 4})
        sum += expected[token] = std::pow(p[static_cast<std::size_t>(token)], 1 / temperature);
      std::map<int, int> drawn;
      for (int i = 0; i < kDraws; ++i)
        ++drawn[sample_token(logits, options(temperature, k), static_cast<std::uint64_t>(i % 7),
                             static_cast<std::uint64_t>(i))];
      EXPECT_EQ(drawn.size(), expected.size());
      for (const auto& [token, weight] : expected) {
        const double q = weight / sum;
        // A count of n draws has the standard deviation sqrt(n q (1 - q)). Five of them: wrong once in two
        // million.
        const double limit = 5 * std::sqrt(kDraws * q * (1 - q));
        EXPECT_NEAR(drawn[token], kDraws * q, limit)
            << "token " << token << " at temperature " << temperature;
      }
    }
  }
}

TEST(Sampling, DependsOnSeedSequenceAndPositionOnly) {
  const std::vector<float> logits(1000, 0);
  const auto draw = [&](std::uint64_t seed, std::uint64_t sequence, std::uint64_t position) {
    return sample_token(logits, options(1, 0, 1, seed), sequence, position);
  };
  EXPECT_EQ(draw(1, 2, 3), draw(1, 2, 3));
  int same = 0;
  for (std::uint64_t i = 0; i < 100; ++i) {
    same += draw(1, i, 3) == draw(2, i, 3);
    same += draw(1, i, 3) == draw(1, i + 1, 3);
    same += draw(1, 2, i) == draw(1, 2, i + 1);
  }
  EXPECT_LT(same, 10) << "of 300 pairs of 1000 equally likely tokens 0.3 should agree";
}

TEST(Sampling, RefusesWhatHasNoDistribution) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  EXPECT_THROW(candidates(std::vector<float>{1, nan}, options(1)), Error);
  EXPECT_THROW(candidates(std::vector<float>{1, nan}, options(0)), Error);
  EXPECT_THROW(sample_token(std::vector<float>{-inf, -inf}, options(1), 0, 0), Error);
  EXPECT_THROW(sample_token(std::vector<float>{}, options(1), 0, 0), Error);
  EXPECT_THROW(candidates(std::vector<float>{1}, options(-1)), UsageError);
  EXPECT_THROW(candidates(std::vector<float>{1}, options(nan)), UsageError);
  EXPECT_THROW(candidates(std::vector<float>{1}, options(1, -1)), UsageError);
  EXPECT_THROW(candidates(std::vector<float>{1}, options(1, 0, 0)), UsageError);
  EXPECT_THROW(candidates(std::vector<float>{1}, options(1, 0, 1.5F)), UsageError);
  // A token that is ruled out (-inf) is never drawn.
  for (int i = 0; i < 50; ++i)
    EXPECT_EQ(sample_token(std::vector<float>{-inf, 0, -inf}, options(1), 0, i), 1);
}

}  // namespace
}  // namespace llm
