// Checks of the exercises of chapter 5. Expected numbers: by hand where said so, else from PyTorch
// 2.15 (tests/golden/training_exercises.py).
#include <cmath>
#include <limits>

#include "ch05_pretraining/exercises.h"
#include "tests/exercises/exercise_test.h"

namespace llm::exercises {
namespace {

// ---- 5.1 ------------------------------------------------------------------------------------------

TEST(Exercise_5_1, RisesInAStraightLine) {
  // By hand: warm-up of 3 steps to a peak of 0.4: 0.1, 0.2, 0.3, and the peak at step 3.
  std::vector<double> got, expected = {0.1, 0.2, 0.3, 0.4};
  for (int step = 0; step < 4; ++step) got.push_back(ch05::scheduled_rate(step, 0.4, 0.04, 3, 11));
  expect_close(got, expected,
               "the warm-up is peak (step + 1) / (warmup + 1), and step = warmup gives the peak");
}

TEST(Exercise_5_1, FallsAlongHalfACosine) {
  // By hand: 8 steps from the peak 1 to the floor 0 along (1 + cos(pi x)) / 2: at x = 1/4, 1/2, 3/4.
  const std::vector<double> got = {ch05::scheduled_rate(4, 1, 0, 2, 10), ch05::scheduled_rate(6, 1, 0, 2, 10),
                                   ch05::scheduled_rate(8, 1, 0, 2, 10)};
  expect_close(got, std::vector<double>{0.85355339059, 0.5, 0.14644660941},
               "x must be 0 at step = warmup and 1 at step = steps");
}

TEST(Exercise_5_1, EndsAtTheFloor) {
  expect_close(ch05::scheduled_rate(10, 1, 0.1, 2, 10), 0.1, "the last value is the floor");
  expect_close(ch05::scheduled_rate(500, 1, 0.1, 2, 10), 0.1, "after the end it stays at the floor");
  // Half way down from 1 to 0.1.
  expect_close(ch05::scheduled_rate(6, 1, 0.1, 2, 10), 0.55,
               "the cosine goes down to the floor, not to zero");
}

TEST(Exercise_5_1, WorksWithoutWarmup) {
  expect_close(ch05::scheduled_rate(0, 0.5, 0.05, 0, 4), 0.5, "without a warm-up step 0 has the peak");
  expect_close(ch05::scheduled_rate(2, 0.5, 0.05, 0, 4), 0.275);
  expect_close(ch05::scheduled_rate(5, 0.5, 0.05, 9, 5), 0.3,
               "a warm-up longer than the run is still a warm-up");
}

// ---- 5.2 ------------------------------------------------------------------------------------------

struct Adam {
  std::vector<float> w, m, v;
  void step(std::vector<float> g, std::int64_t t, double decay) {
    ch05::adamw_step(w, m, v, g, 0.1, 0.9, 0.99, 1e-8, decay, t);
  }
};

TEST(Exercise_5_2, FirstStepGoesByTheLearningRate) {
  // By hand: after one step m^ = g and v^ = g^2, so every weight moves by the rate, against its gradient's
  // sign.
  Adam a{{1, 1, 1}, {0, 0, 0}, {0, 0, 0}};
  a.step({0.5F, -2, 0.001F}, 1, 0);
  expect_close(a.w, std::vector<float>{0.9F, 1.1F, 0.9F},
               "with the bias corrections the first step has the size of the learning rate");
}

TEST(Exercise_5_2, KeepsUncorrectedMoments) {
  Adam a{{1, 1}, {0, 0}, {0, 0}};
  a.step({0.5F, -2}, 1, 0);
  expect_close(a.m, std::vector<float>{0.05F, -0.2F},
               "m = beta1 m + (1 - beta1) g; the correction is not stored");
  expect_close(a.v, std::vector<float>{0.0025F, 0.04F},
               "v = beta2 v + (1 - beta2) g^2; the correction is not stored");
}

TEST(Exercise_5_2, DecayShrinksTheWeightNotTheGradient) {
  // By hand: gradient 0, so only the decay acts: 2 - 0.1 * 0.5 * 2.
  Adam a{{2}, {0}, {0}};
  a.step({0}, 1, 0.5);
  expect_close(a.w, std::vector<float>{1.9F}, "the decay takes rate * decay * w off the weight");
  expect_close(a.m, std::vector<float>{0}, "the decay must not enter the moments");
}

TEST(Exercise_5_2, FollowsPyTorch) {
  Adam a{{0.3F, -1.2F}, {0, 0}, {0, 0}};
  a.step({0.4F, -0.1F}, 1, 0.1);
  a.step({-0.2F, 0.3F}, 2, 0.1);
  a.step({0.1F, 0.05F}, 3, 0.1);
  expect_close(a.w, std::vector<float>{0.13252303F, -1.1629156F}, "after three steps of torch.optim.AdamW");
  expect_close(a.m, std::vector<float>{0.024400001F, 0.0239F});
  expect_close(a.v, std::vector<float>{0.0020641603F, 0.00101401F});
}

TEST(Exercise_5_2, EpsStandsOutsideTheRoot) {
  // By hand: g = eps = 0.01, so the step is rate * 0.01 / (0.01 + 0.01).
  std::vector<float> w = {1}, m = {0}, v = {0}, g = {0.01F};
  ch05::adamw_step(w, m, v, g, 0.1, 0.9, 0.99, 0.01, 0, 1);
  expect_close(w, std::vector<float>{0.95F}, "eps is added to the square root, not under it");
}

// ---- 5.3 ------------------------------------------------------------------------------------------

TEST(Exercise_5_3, ScalesAllArraysByOneFactor) {
  // By hand: the norm of (3, 0, 4) is 5; clipped to 1 every element is divided by 5.
  std::vector<float> a = {3, 0}, b = {4};
  expect_close(ch05::clip_gradients({a, b}, 1), 5.0,
               "the norm is that of all arrays as one vector, before clipping");
  expect_close(a, std::vector<float>{0.6F, 0}, "all elements are multiplied by limit / norm");
  expect_close(b, std::vector<float>{0.8F}, "all arrays share one factor");
}

TEST(Exercise_5_3, LeavesSmallGradientsAlone) {
  std::vector<float> a = {0.3F, 0}, b = {0.4F};
  expect_close(ch05::clip_gradients({a, b}, 1), 0.5, "", {1e-6, 0});
  expect_close(a, std::vector<float>{0.3F, 0}, "a norm below the limit changes nothing");
  expect_close(b, std::vector<float>{0.4F});
}

TEST(Exercise_5_3, UsesTheLimit) {
  std::vector<float> a = {6, 8};
  expect_close(ch05::clip_gradients({a}, 2.5), 10.0);
  expect_close(a, std::vector<float>{1.5F, 2}, "the norm after clipping is the limit, whatever the limit is");
}

TEST(Exercise_5_3, SumsInDouble) {
  // One large element and many small ones: 4096^2 + 2^24 * 1. In float the small squares would all be lost.
  std::vector<float> a(1 << 24, 1.0F), b = {4096};
  expect_close(ch05::clip_gradients({b, a}, 1e9), 4096 * std::sqrt(2.0),
               "a float cannot add 1 to 16777216: sum the squares in a double");
}

TEST(Exercise_5_3, TakesNothingAndZeros) {
  expect_close(ch05::clip_gradients({}, 1), 0.0, "no gradients have the norm 0");
  std::vector<float> zeros = {0, 0};
  expect_close(ch05::clip_gradients({zeros}, 1), 0.0);
  expect_close(zeros, std::vector<float>{0, 0}, "zeros stay zeros: no division by the norm");
}

// ---- 5.4 ------------------------------------------------------------------------------------------

std::vector<int> tokens(const std::vector<ch05::Choice>& choices) {
  std::vector<int> ids;
  for (const auto& c : choices) ids.push_back(c.token);
  return ids;
}

std::vector<double> probabilities(const std::vector<ch05::Choice>& choices) {
  std::vector<double> p;
  for (const auto& c : choices) p.push_back(c.probability);
  return p;
}

// Probabilities 0.4, 0.1, 0.2, 0.3 at temperature 1.
std::vector<float> four() {
  return {std::log(0.4F), std::log(0.1F), std::log(0.2F), std::log(0.3F)};
}

TEST(Exercise_5_4, SortsAllTokens) {
  const auto all = ch05::sampling_choices(four(), 1, 0, 1);
  expect_equal(tokens(all), {0, 3, 2, 1}, "most probable first");
  expect_close(probabilities(all), std::vector<double>{0.4, 0.3, 0.2, 0.1},
               "with k = 0 and p = 1 all tokens stay");
}

TEST(Exercise_5_4, KeepsTheTopK) {
  const auto two = ch05::sampling_choices(four(), 1, 2, 1);
  expect_equal(tokens(two), {0, 3}, "k = 2 leaves two tokens");
  expect_close(probabilities(two), std::vector<double>{0.4 / 0.7, 0.3 / 0.7}, "they must sum to 1 again");
}

TEST(Exercise_5_4, KeepsTheFewestThatReachP) {
  expect_equal(tokens(ch05::sampling_choices(four(), 1, 0, 0.65)), {0, 3},
               "0.4 + 0.3 reaches 0.65, 0.4 does not");
  expect_equal(tokens(ch05::sampling_choices(four(), 1, 0, 0.75)), {0, 3, 2},
               "the token that makes the sum reach p is kept too");
  const auto one = ch05::sampling_choices(four(), 1, 0, 0.1);
  expect_equal(tokens(one), {0}, "at least one token is always left");
  expect_close(probabilities(one), std::vector<double>{1}, "what is left must sum to 1");
}

TEST(Exercise_5_4, AppliesTopPToWhatTopKLeft) {
  // After k = 2 the first token has 0.4 / 0.7 = 0.571, which reaches 0.55; of all tokens it would have 0.4
  // only.
  expect_equal(tokens(ch05::sampling_choices(four(), 1, 2, 0.55)), {0},
               "top-p counts the probabilities after top-k scaled them");
}

TEST(Exercise_5_4, DividesByTheTemperature) {
  // At temperature 0.5 probabilities are squared and scaled: 0.16, 0.09, 0.04, 0.01 over 0.3.
  expect_close(probabilities(ch05::sampling_choices(four(), 0.5, 0, 1)),
               std::vector<double>{0.16 / 0.3, 0.09 / 0.3, 0.04 / 0.3, 0.01 / 0.3},
               "a temperature below 1 makes the likely tokens likelier");
}

TEST(Exercise_5_4, BreaksTiesByTokenAndSurvivesLargeLogits) {
  const std::vector<float> logits = {1000, 2000, 2000, 2000, 1000};
  const auto all = ch05::sampling_choices(logits, 1, 3, 1);
  expect_equal(tokens(all), {1, 2, 3}, "of equal tokens the lower comes first");
  expect_close(probabilities(all), std::vector<double>{1.0 / 3, 1.0 / 3, 1.0 / 3},
               "exp(2000) is infinite: take the largest logit off first");
  expect_equal(tokens(ch05::sampling_choices(logits, 1, 50, 1)), {1, 2, 3, 0, 4},
               "a k above the vocabulary keeps all");
}

}  // namespace
}  // namespace llm::exercises
