// The exercises of chapter 7. The smallest case comes first in each: a learner sees the first failure only.
#include "ch07_finetuning/exercises.h"

#include <cmath>

#include "common/core/philox.h"
#include "tests/exercises/exercise_test.h"

namespace llm::exercises {
namespace {

/// Numbers between -1 and 1, multiples of 1/8: products of them are exact.
std::vector<float> eighths(std::int64_t count, std::uint64_t stream) {
  std::vector<float> numbers;
  const Philox random{7, stream};
  for (std::int64_t i = 0; i < count; ++i)
    numbers.push_back(static_cast<float>(random.word(static_cast<std::uint64_t>(i)) % 17) / 8 - 1);
  return numbers;
}

// ---- 7.1 ------------------------------------------------------------------------------------------

TEST(Exercise_7_1, ReadsTheLastTokenOfEachText) {
  // By hand: B = 2, T = 3, C = 2, K = 2; text 0 has 2 tokens, text 1 has 3.
  const std::vector<float> hidden = {1, 2, 3, 4, 90, 91, 5, 6, 7, 8, 9, 10};
  const std::vector<std::int64_t> lengths = {2, 3};
  const std::vector<float> weight = {1, 0, 10, 100}, bias = {0.5F, 0};
  expect_close(ch07::class_logits(hidden, lengths, 3, 2, weight, bias),
               std::vector<float>{3.5F, 430, 9.5F, 1090},
               "text b's last token is at position lengths[b] - 1; what stands behind it is filling");
}

TEST(Exercise_7_1, TakesTextsOfOneToken) {
  const std::vector<float> hidden = {2, 50, 60, 3, 70, 80}, weight = {1, -1, 2}, bias = {0, 0, 1};
  const std::vector<std::int64_t> lengths = {1, 1};
  expect_close(ch07::class_logits(hidden, lengths, 3, 1, weight, bias),
               std::vector<float>{2, -2, 5, 3, -3, 7});
}

// ---- 7.2 ------------------------------------------------------------------------------------------

TEST(Exercise_7_2, MasksPromptAndFilling) {
  // The answers are 7 9 and 5 6 9.
  const std::vector<ch07::Conversation> examples = {{{9, 1, 2, 7, 9}, 3}, {{9, 5, 6, 9}, 1}};
  const ch07::Rows rows = ch07::collate(examples, 0, true);
  expect_equal(rows.inputs, {9, 1, 2, 7, 9, 5, 6, 0}, "inputs are all tokens but the last, then padding",
               "input");
  expect_equal(rows.targets, {-1, -1, 7, 9, 5, 6, 9, -1},
               "the target of position t is token t + 1; what is no answer, and what is padding, is -1",
               "target");
}

TEST(Exercise_7_2, LearnsThePromptIfAsked) {
  const std::vector<ch07::Conversation> examples = {{{9, 1, 2, 7, 9}, 3}, {{9, 5, 9}, 1}};
  const ch07::Rows rows = ch07::collate(examples, 8, false);
  expect_equal(rows.inputs, {9, 1, 2, 7, 9, 5, 8, 8}, "", "input");
  expect_equal(rows.targets, {1, 2, 7, 9, 5, 9, -1, -1}, "without the mask only padding is -1", "target");
}

// ---- 7.3 ------------------------------------------------------------------------------------------

TEST(Exercise_7_3, AddsTheThinProduct) {
  // By hand: I = O = 2, r = 1, alpha = 3. x = (1, 2): w x = (1, 2), a x = 3, b (a x) = (3, -3), times 3.
  const std::vector<float> x = {1, 2}, w = {1, 0, 0, 1}, a = {1, 1}, b = {1, -1};
  expect_close(ch07::lora_forward(x, w, a, b, 2, 2, 1, 3), std::vector<float>{10, -7},
               "y = x w^T + (alpha / r) (x a^T) b^T");
}

TEST(Exercise_7_3, DividesAlphaByTheRank) {
  // r = 2, alpha = 2: the factor is 1. a x = (1, 2), b (a x) = 1 * 5 + 2 * 7.
  const std::vector<float> x = {1, 2}, w = {100, 0}, a = {1, 0, 0, 1}, b = {5, 7};
  expect_close(ch07::lora_forward(x, w, a, b, 2, 1, 2, 2), std::vector<float>{119},
               "the factor is alpha / r, and it scales the adapter only");
}

TEST(Exercise_7_3, ManyRows) {
  // Against the definition, element by element.
  const std::int64_t N = 5, I = 4, O = 3, R = 2;
  const auto x = eighths(N * I, 1), w = eighths(O * I, 2), a = eighths(R * I, 3), b = eighths(O * R, 4);
  std::vector<float> expected;
  for (std::int64_t n = 0; n < N; ++n)
    for (std::int64_t o = 0; o < O; ++o) {
      double sum = 0;
      for (std::int64_t i = 0; i < I; ++i) {
        double weight = w[static_cast<std::size_t>(o * I + i)];
        for (std::int64_t r = 0; r < R; ++r)
          weight += 2.5 * static_cast<double>(b[static_cast<std::size_t>(o * R + r)]) *
                    a[static_cast<std::size_t>(r * I + i)];
        sum += weight * x[static_cast<std::size_t>(n * I + i)];
      }
      expected.push_back(static_cast<float>(sum));
    }
  expect_close(ch07::lora_forward(x, w, a, b, I, O, R, 5), expected, Shape{N, O}, "");
}

// ---- 7.4 ------------------------------------------------------------------------------------------

TEST(Exercise_7_4, OneRowByHand) {
  // I = 2, O = 1, r = 1, alpha = 2: h = a x = 3, y = w x + 2 b h. With dy = 10:
  // db = 2 dy h, dh = 2 dy b = 100, da = dh x, dx = dy w + dh a.
  const std::vector<float> x = {1, 2}, w = {7, 8}, a = {1, 1}, b = {5}, dy = {10};
  const ch07::LoraGradients g = ch07::lora_backward(dy, x, w, a, b, 2, 1, 1, 2);
  expect_close(g.db, std::vector<float>{60}, "db = (alpha / r) dy^T (x a^T)");
  expect_close(g.da, std::vector<float>{100, 200}, "da = (alpha / r) (dy b)^T x");
  expect_close(g.dx, std::vector<float>{170, 180}, "dx goes through the frozen w and through the adapter");
}

TEST(Exercise_7_4, GradientsAreThoseOfTheLayer) {
  // The layer is linear in x, in a and in b: differences are exact up to rounding.
  const std::int64_t N = 3, I = 4, O = 3, R = 2;
  const float alpha = 3;
  std::vector<float> x = eighths(N * I, 1), w = eighths(O * I, 2), a = eighths(R * I, 3),
                     b = eighths(O * R, 4);
  const std::vector<float> dy = eighths(N * O, 5);
  const auto loss = [&] {  // sum of dy y, by the definition
    double sum = 0;
    for (std::int64_t n = 0; n < N; ++n)
      for (std::int64_t o = 0; o < O; ++o) {
        double y = 0;
        for (std::int64_t i = 0; i < I; ++i) {
          double weight = w[static_cast<std::size_t>(o * I + i)];
          for (std::int64_t r = 0; r < R; ++r)
            weight += 1.5 * static_cast<double>(b[static_cast<std::size_t>(o * R + r)]) *
                      a[static_cast<std::size_t>(r * I + i)];
          y += weight * x[static_cast<std::size_t>(n * I + i)];
        }
        sum += y * dy[static_cast<std::size_t>(n * O + o)];
      }
    return sum;
  };
  const auto slopes = [&](std::vector<float>& values) {
    std::vector<float> result;
    for (float& v : values) {
      const float before = v;
      v = before + 1;
      const double high = loss();
      v = before - 1;
      result.push_back(static_cast<float>((high - loss()) / 2));
      v = before;
    }
    return result;
  };
  const ch07::LoraGradients g = ch07::lora_backward(dy, x, w, a, b, I, O, R, alpha);
  expect_close(g.db, slopes(b), Shape{O, R}, "db: d loss / d b");
  expect_close(g.da, slopes(a), Shape{R, I}, "da: d loss / d a");
  expect_close(g.dx, slopes(x), Shape{N, I}, "dx: d loss / d x");
}

// ---- 7.5 ------------------------------------------------------------------------------------------

TEST(Exercise_7_5, IsOneMatrix) {
  // By hand: r = 1, alpha = 2: w + 2 b a.
  const std::vector<float> w = {1, 1, 1, 1, 1, 1}, a = {1, 2, 3}, b = {10, -10};
  expect_close(ch07::lora_merge(w, a, b, 3, 2, 1, 2), std::vector<float>{21, 41, 61, -19, -39, -59},
               Shape{2, 3}, "w + (alpha / r) b a");
}

TEST(Exercise_7_5, OfHigherRank) {
  // r = 2, alpha = 4: the factor is 2. b a = {{1*1 + 2*3, 1*2 + 2*4}, {0*1 + 1*3, 0*2 + 1*4}}.
  const std::vector<float> w = {0, 0, 0, 100}, a = {1, 2, 3, 4}, b = {1, 2, 0, 1};
  expect_close(ch07::lora_merge(w, a, b, 2, 2, 2, 4), std::vector<float>{14, 20, 6, 108}, Shape{2, 2},
               "b is (O, r), a is (r, I)");
}

// ---- 7.6 ------------------------------------------------------------------------------------------

TEST(Exercise_7_6, StartsAtLogTwo) {
  // The policy is the reference: z = 0.
  const ch07::PairLoss p = ch07::dpo(-3, -7, -3, -7, 0.5);
  expect_close(p.loss, std::log(2.0), "where policy and reference agree, z = 0 whatever the answers are");
  expect_close(p.dchosen, -0.25, "d loss / d chosen = -beta sigmoid(-z)");
  expect_close(p.drejected, 0.25);
}

TEST(Exercise_7_6, ByHand) {
  // z = 0.1 ((-5 + 7) - (-9 + 4)) = 0.7.
  const ch07::PairLoss p = ch07::dpo(-5, -9, -7, -4, 0.1);
  expect_close(p.loss, 0.40318604888545791, "z = beta times the difference of the two log-ratios");
  expect_close(p.dchosen, -0.033181222783183393);
  expect_close(p.drejected, 0.033181222783183393);
}

TEST(Exercise_7_6, SurvivesAnswersThatAreFarApart) {
  const ch07::PairLoss wrong = ch07::dpo(-9000, -1000, -1000, -9000, 1);
  expect_close(wrong.loss, 16000, "exp(16000) is infinite: take z itself out of the logarithm");
  expect_close(wrong.dchosen, -1);
  const ch07::PairLoss right = ch07::dpo(-1000, -9000, -9000, -1000, 1);
  expect_close(right.loss, 0);
  expect_close(right.dchosen, 0);
}

// ---- 7.7 ------------------------------------------------------------------------------------------

TEST(Exercise_7_7, OfTwoAnswers) {
  // By hand: mean 0.5, deviation sqrt(0.5).
  const std::vector<double> rewards = {1, 0};
  const double expected = 0.5 / (std::sqrt(0.5) + 1e-4);
  expect_close(ch07::advantages(rewards), std::vector<double>{expected, -expected},
               "(reward - mean) / (deviation + 1e-4), and the deviation divides by n - 1");
}

TEST(Exercise_7_7, OfFour) {
  const std::vector<double> rewards = {3, 1, 1, 1};  // mean 1.5, squares 2.25 + 3 * 0.25 = 3, deviation 1
  expect_close(ch07::advantages(rewards),
               std::vector<double>{1.5 / 1.0001, -0.5 / 1.0001, -0.5 / 1.0001, -0.5 / 1.0001});
}

TEST(Exercise_7_7, OfEqualAnswers) {
  const std::vector<double> rewards = {0.5, 0.5, 0.5};
  expect_close(ch07::advantages(rewards), std::vector<double>{0, 0, 0},
               "where all answers are as good, none has an advantage (and nothing is divided by zero)");
}

// ---- 7.8 ------------------------------------------------------------------------------------------

void expect_gain(double ratio, double advantage, double gain, double dlog, std::string_view hint) {
  const ch07::TokenGain got = ch07::clipped_gain(std::log(ratio) - 2, -2, advantage, 0.2);
  expect_close(got.gain, gain, hint, {}, "the gain");
  expect_close(got.dlog, dlog, hint, {}, "its derivative");
}

TEST(Exercise_7_8, IsTheRatioNearTheStart) {
  expect_gain(1, 2, 2, 2, "at ratio 1 the gain is the advantage, and so is its derivative");
  expect_gain(1.1, -2, -2.2, -2.2, "d ratio / d now = ratio");
}

TEST(Exercise_7_8, StopsWhereItWentFarEnough) {
  expect_gain(1.5, 2, 2.4, 0, "a good token that is already much likelier: a constant");
  expect_gain(0.5, -2, -1.6, 0, "a bad token that is already much less likely: a constant");
}

TEST(Exercise_7_8, PullsBackWhatWentTheWrongWay) {
  expect_gain(0.5, 2, 1, 1, "a good token that became unlikely: the smaller candidate is the unclamped one");
  expect_gain(1.5, -2, -3, -3,
              "a bad token that became likelier: the smaller candidate is the unclamped one");
}

// ---- 7.9 ------------------------------------------------------------------------------------------

TEST(Exercise_7_9, ByTheWhole) {
  const std::vector<double> scores = {-6, -4, -9};
  const std::vector<std::string> choices = {"no", "a", "certainly"};
  expect_equal(ch07::choose(scores, choices, false), 1u, "plain: the largest log-probability");
  expect_equal(ch07::choose(scores, choices, true), 2u,
               "normalised: -6 / 2, -4 / 1 and -9 / 9; the largest is -1");
}

TEST(Exercise_7_9, OfEqualsTheFirst) {
  const std::vector<double> scores = {-5, -2, -2, -4};
  const std::vector<std::string> choices = {"abc", "a", "b", "ab"};
  expect_equal(ch07::choose(scores, choices, false), 1u, "of equal scores the first counts");
  const std::vector<double> flat = {-6, -2, -2, -4};
  expect_equal(ch07::choose(flat, choices, true), 0u, "all are -2 per character");
}

}  // namespace
}  // namespace llm::exercises
