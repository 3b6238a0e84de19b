// DPO, GRPO and weighted cross-entropy against their formulas in PyTorch (float64).
#include <gtest/gtest.h>

#include <cmath>

#include "common/finetuning/grpo.h"
#include "common/finetuning/preferences.h"
#include "tests/ch07_golden.h"

namespace llm {
namespace {

using namespace testing;

Tensor as_tensor(const std::vector<float>& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
}

TEST(WeightedCrossEntropy, AgreesWithPyTorch) {
  const FinetuningGolden golden;
  const Tensor x = golden.tensor("weighted", 0, "x"), w = golden.tensor("weighted", 0, "w");
  const Tensor losses = poisoned({9}), dx = poisoned({9, 13}), dw({31, 13});
  linear_cross_entropy(losses, dx, dw, x, w, golden.ids("weighted", 0, "targets"), 0.5F,
                       golden.tensor("weighted", 0, "weights"));
  expect_close(losses, golden.tensor("weighted", 0, "losses"), "losses");
  expect_close(dx, golden.tensor("weighted", 0, "dx"), "dx");
  expect_close(dw, golden.tensor("weighted", 0, "dw"), "dw");
  // A frozen head: the same dx, no dw.
  const Tensor again = poisoned({9, 13});
  linear_cross_entropy(losses, again, Tensor(), x, w, golden.ids("weighted", 0, "targets"), 0.5F,
                       golden.tensor("weighted", 0, "weights"));
  expect_close(again, dx, "dx of a frozen head", 0);
}

TEST(Dpo, AgreesWithTheFormula) {
  const FinetuningGolden golden;
  for (int i = 0; i < 3; ++i) {
    const auto d = [&](const char* part) { return golden.doubles("dpo", i, part); };
    const DpoLoss loss = dpo_loss(d("chosen"), d("rejected"), d("reference_chosen"), d("reference_rejected"),
                                  golden.number("dpo", i, "beta"));
    EXPECT_NEAR(loss.loss, golden.number("dpo", i, "loss"), 1e-5 * golden.number("dpo", i, "loss"));
    const double margin = golden.number("dpo", i, "margin");
    EXPECT_NEAR(loss.margin, margin, 1e-5 * std::abs(margin));
    EXPECT_NEAR(loss.accuracy, golden.number("dpo", i, "accuracy"), 1e-6);
    expect_close(as_tensor(loss.dchosen), golden.tensor("dpo", i, "dchosen"), "dchosen");
    expect_close(as_tensor(loss.drejected), golden.tensor("dpo", i, "drejected"), "drejected");
  }
}

TEST(Dpo, StartsAtLogTwo) {
  const std::vector<double> a = {-3, -5}, b = {-4, -1};
  const DpoLoss loss = dpo_loss(a, b, a, b, 0.1);
  EXPECT_DOUBLE_EQ(loss.loss, std::log(2.0));
  EXPECT_EQ(loss.accuracy, 0);
}

TEST(Dpo, RefusesWhatMakesNoSense) {
  const std::vector<double> one = {-1}, two = {-1, -2}, none;
  EXPECT_THROW(dpo_loss(one, two, one, one, 0.1), Error);
  EXPECT_THROW(dpo_loss(none, none, none, none, 0.1), Error);
  EXPECT_THROW(dpo_loss(one, one, one, one, 0), UsageError);
}

TEST(Grpo, AgreesWithTheFormula) {
  const FinetuningGolden golden;
  for (int i = 0; i < 3; ++i) {
    const auto d = [&](const char* part) { return golden.doubles("grpo", i, part); };
    std::vector<std::int64_t> lengths;
    for (const double n : d("lengths")) lengths.push_back(static_cast<std::int64_t>(n));
    const GrpoLoss loss =
        grpo_loss(d("log_probabilities"), d("old"), d("reference"), lengths, d("advantages"),
                  {golden.number("grpo", i, "clip"), golden.number("grpo", i, "kl")});
    EXPECT_NEAR(loss.loss, golden.number("grpo", i, "loss"),
                1e-5 * std::abs(golden.number("grpo", i, "loss")));
    EXPECT_NEAR(loss.kl, golden.number("grpo", i, "mean_kl"), 1e-5 * golden.number("grpo", i, "mean_kl"));
    expect_close(as_tensor(loss.gradient), golden.tensor("grpo", i, "dlog"), "gradient");
  }
}

TEST(Grpo, AdvantagesAreNormalisedWithinTheGroup) {
  const FinetuningGolden golden;
  const Tensor rewards = golden.tensor("advantages", 0, "rewards");
  const Tensor expected = golden.tensor("advantages", 0, "advantages");
  for (std::int64_t row = 0; row < 3; ++row) {
    std::vector<double> group(4);
    for (std::int64_t i = 0; i < 4; ++i) group[static_cast<std::size_t>(i)] = rewards.data()[row * 4 + i];
    const std::vector<double> got = group_advantages(group);
    for (std::int64_t i = 0; i < 4; ++i)
      EXPECT_NEAR(got[static_cast<std::size_t>(i)], expected.data()[row * 4 + i], 1e-5);
  }
  EXPECT_THROW(group_advantages(std::vector<double>{1}), Error);
}

TEST(Grpo, ClipStopsTheGradientOnlyWhereTheRatioWentTooFar) {
  const std::vector<std::int64_t> lengths = {1};
  const auto gradient = [&](double log_ratio, double advantage) {
    const std::vector<double> now = {log_ratio}, old = {0}, advantages = {advantage};
    return grpo_loss(now, old, now, lengths, advantages, {.clip = 0.2, .kl = 0}).gradient[0];
  };
  EXPECT_EQ(gradient(0.5, 1), 0) << "a good answer that is already 65% likelier is left alone";
  EXPECT_LT(gradient(-0.5, 1), 0) << "a good answer that became unlikely is pulled back";
  EXPECT_EQ(gradient(-0.5, -1), 0) << "a bad answer that is already unlikely is left alone";
  EXPECT_GT(gradient(0.5, -1), 0) << "a bad answer that became likely is pushed down";
}

TEST(Grpo, RefusesWhatDoesNotBelongTogether) {
  const std::vector<double> two = {-1, -2}, one = {1};
  const std::vector<std::int64_t> whole = {2}, short_by_one = {1}, with_empty = {2, 0};
  EXPECT_THROW(grpo_loss(two, two, two, short_by_one, one, {}), Error);
  EXPECT_THROW(grpo_loss(two, one, two, whole, one, {}), Error);
  EXPECT_THROW(grpo_loss(two, two, two, with_empty, two, {}), Error);
  EXPECT_THROW(grpo_loss(two, two, two, whole, one, {.clip = 0}), UsageError);
  EXPECT_THROW(grpo_loss(two, two, two, whole, one, {.kl = -1}), UsageError);
}

}  // namespace
}  // namespace llm
