#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/core/philox.h"

namespace llm {
namespace {

using Words = std::array<std::uint32_t, 4>;

// The known-answer vectors published with the Random123 library (Salmon et al. 2011).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint32_t f = 0xffffffff;
  EXPECT_EQ(philox4x32({f, f, f, f}, {f, f}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, NumbersDependOnSeedStreamAndIndexOnly) {
  const Philox a{7, stream_id("dropout")};
  EXPECT_EQ(a.word(123456789), (Philox{7, stream_id("dropout")}.word(123456789)));
  EXPECT_NE(a.word(5), (Philox{8, stream_id("dropout")}.word(5)));
  EXPECT_NE(a.word(5), (Philox{7, stream_id("shuffle")}.word(5)));
  EXPECT_NE(a.word(5), a.word(5 + (std::uint64_t{1} << 40)));
  PhiloxSequence sequence(7, stream_id("dropout"));
  for (std::uint64_t i = 0; i < 11; ++i) EXPECT_EQ(sequence.next_word(), a.word(i));
}

// n draws of a variable with variance s^2 average within 5 s / sqrt(n) of the mean but once in 1.7 million.
TEST(Philox, UniformsAndNormalsHaveTheirMoments) {
  const Philox rng{1, 2};
  constexpr int n = 200000;
  double mean = 0, normal_mean = 0, normal_square = 0;
  for (int i = 0; i < n; ++i) {
    const float u = rng.uniform(i);
    ASSERT_GE(u, 0.0F);
    ASSERT_LT(u, 1.0F);
    mean += u;
    const double z = rng.normal(i);
    normal_mean += z;
    normal_square += z * z;
  }
  EXPECT_NEAR(mean / n, 0.5, 5 / std::sqrt(12.0 * n));
  EXPECT_NEAR(normal_mean / n, 0.0, 5 / std::sqrt(1.0 * n));
  EXPECT_NEAR(normal_square / n, 1.0, 5 * std::sqrt(2.0 / n));
}

TEST(Philox, BelowIsUniform) {
  PhiloxSequence rng(3, 4);
  constexpr int n = 70000;
  std::vector<int> count(7);
  for (int i = 0; i < n; ++i) ++count.at(rng.below(7));
  const double expected = n / 7.0;
  for (const int c : count) EXPECT_NEAR(c, expected, 5 * std::sqrt(expected));
  EXPECT_EQ(rng.below(1), 0u);
}

}  // namespace
}  // namespace llm
