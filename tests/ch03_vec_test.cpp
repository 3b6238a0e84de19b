// What the CPU's kernels are made of: exponentials of sixteen numbers at once, against double precision, and
// rows that become columns, against loops.
#include "common/ops/cpu/vec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/ops/cpu/transpose.h"

namespace llm::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float first_lane(const Vec& v) {
  float lanes[kLanes];
  store(lanes, v);
  return lanes[0];
}

/// How far `got` is from `exact`, in units in the last place of float.
double ulps(float got, double exact) {
  const double unit = std::ldexp(1.0, std::ilogb(exact) - 23);
  return std::abs(got - exact) / unit;
}

/// The largest distance over `count` numbers of [low, high], both ends among them.
template <typename F, typename G>
double worst(double low, double high, int count, const F& f, const G& exact) {
  double result = 0;
  for (int i = 0; i < count; i += static_cast<int>(kLanes)) {
    float x[kLanes], y[kLanes];
    for (int j = 0; j < kLanes; ++j)
      x[j] = static_cast<float>(low + (high - low) * std::min(i + j, count - 1) / (count - 1));
    store(y, f(load(x)));
    for (int j = 0; j < kLanes; ++j) result = std::max(result, ulps(y[j], exact(static_cast<double>(x[j]))));
  }
  return result;
}

TEST(Vec, ExponentialsAreWithinTwoUnits) {
  const auto e = [](double x) { return std::exp(x); };
  const auto two = [](double x) { return std::exp2(x); };
  const auto bounded = [](const Vec& x) { return exp_bounded(x); };
  EXPECT_LE(worst(-87.3, 88.3, 1 << 18, bounded, e), 2);
  EXPECT_LE(worst(-1, 1, 1 << 18, bounded, e), 2);
  EXPECT_LE(worst(
                -87.3, 0, 1 << 18, [](const Vec& x) { return exp_nonpositive(x); }, e),
            2);
  EXPECT_LE(worst(
                -126, 127.4, 1 << 18, [](const Vec& x) { return exp2_bounded(x); }, two),
            2);
}

TEST(Vec, ExponentialsOfExtremes) {
  EXPECT_EQ(first_lane(exp2_bounded(splat(-127))), 0);
  EXPECT_EQ(first_lane(exp2_bounded(splat(128))), kInfinity);
  for (int n = -126; n <= 127; ++n)
    EXPECT_EQ(first_lane(exp2_bounded(splat(static_cast<float>(n)))), std::ldexp(1.0F, n)) << n;
  EXPECT_EQ(first_lane(exp_bounded(splat(0))), 1);
  EXPECT_EQ(first_lane(exp_nonpositive(splat(-88))), 0);
  EXPECT_EQ(first_lane(exp_nonpositive(splat(-kInfinity))), 0);
  for (const float y :
       {first_lane(exp_bounded(splat(std::nanf("")))), first_lane(exp2_bounded(splat(std::nanf("")))),
        first_lane(exp_nonpositive(splat(std::nanf(""))))})
    EXPECT_TRUE(std::isnan(y));
}

TEST(Vec, TransposesBlocksOfAllSizes) {
  constexpr Index kFromRow = 53, kToRow = 19;
  std::vector<float> from(kLanes * kFromRow);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i + 1);
  for (Index rows = 1; rows <= kLanes; ++rows)
    for (Index columns = 1; columns <= 50; ++columns) {
      std::vector<float> to(static_cast<std::size_t>(columns * kToRow), -1);
      // The last row of `from` ends with the memory: what lies behind it would be seen by a sanitizer.
      const float* first =
          from.data() + from.size() - static_cast<std::size_t>((rows - 1) * kFromRow + columns);
      transpose_block(to.data(), kToRow, first, kFromRow, rows, columns);
      for (Index c = 0; c < columns; ++c)
        for (Index r = 0; r < kToRow; ++r) {
          const float expected = r >= kLanes ? -1 : r < rows ? first[r * kFromRow + c] : 0;
          ASSERT_EQ(to[static_cast<std::size_t>(c * kToRow + r)], expected)
              << rows << " x " << columns << " at " << c << ", " << r;
        }
    }
}

TEST(Vec, AddsUpRowsLaneByLane) {
  Vec rows[kLanes];
  double expected[kLanes] = {};
  for (Index r = 0; r < kLanes; ++r) {
    float lanes[kLanes];
    for (Index i = 0; i < kLanes; ++i) expected[r] += lanes[i] = static_cast<float>((r * 7 + i * 3) % 11 - 5);
    rows[r] = load(lanes);
    EXPECT_EQ(sum(rows[r]), expected[r]) << "whole numbers have no roundings";
    EXPECT_EQ(largest(rows[r]), *std::max_element(lanes, lanes + kLanes));
  }
  float sums[kLanes];
  store(sums, reduce_rows(rows, [](const Vec& a, const Vec& b) { return a + b; }));
  for (Index r = 0; r < kLanes; ++r) EXPECT_EQ(sums[r], expected[r]) << r;
}

}  // namespace
}  // namespace llm::cpu
