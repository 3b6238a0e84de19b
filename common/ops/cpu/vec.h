// Vec: sixteen floats at once.
//
// The loops of ops/cpu that Eigen's expressions do not make fast enough are written with this type. It is the
// compilers' own vector type: with AVX-512 one register, with AVX2 two, elsewhere four or plain code, and
// always sixteen lanes, so that sums are added in the same order on every machine. Chapter 3 explains it.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>

namespace llm::cpu {

constexpr std::int64_t kLanes = 16;

typedef float Vec __attribute__((vector_size(64)));
typedef std::int32_t IntVec __attribute__((vector_size(64)));

/// All lanes equal.
inline Vec splat(float value) {
  return Vec{} + value;
}
inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vec v) {
  std::memcpy(p, &v, sizeof v);
}
/// The first `count` lanes from memory, `rest` in the others. For the tail of a row.
inline Vec load_part(const float* p, std::int64_t count, float rest = 0) {
  Vec v = splat(rest);
  std::memcpy(&v, p, static_cast<std::size_t>(count) * sizeof(float));
  return v;
}
inline void store_part(float* p, Vec v, std::int64_t count) {
  std::memcpy(p, &v, static_cast<std::size_t>(count) * sizeof(float));
}

/// Lane by lane; a NaN in `a` stays.
inline Vec max(Vec a, Vec b) {
  return a < b ? b : a;
}
inline Vec min(Vec a, Vec b) {
  return a > b ? b : a;
}

/// Sum of the lanes, in halves: (0 + 8) + (4 + 12) ...
inline float sum(Vec v) {
  float lane[kLanes];
  store(lane, v);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}
/// The largest lane; NaN if one is NaN.
inline float largest(Vec v) {
  float lane[kLanes];
  store(lane, v);
  float best = lane[0];
  for (const float value : lane)
    if (!(value <= best)) best = value;
  return best;
}

/// e^x, within 2 units in the last place. 0 below -87.3 (no denormals), infinity above 88.7, NaN stays NaN.
///
/// x = n ln 2 + r with |r| <= ln(2) / 2; e^x = 2^n e^r. ln 2 is split in two so that n ln 2 is exact to
/// 2^-40; e^r is a polynomial whose coefficients minimise the largest relative error on the interval (3e-9;
/// the first two are exactly 1, the others found by reweighted least squares); 2^n is made of exponent bits.
inline Vec exp(Vec x) {
  constexpr float kLowest = -87.33654F;
  constexpr float kHighest = 88.72283F;
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const Vec clamped = min(max(x, splat(kLowest)), splat(kHighest));
  const Vec shifted = clamped * 1.44269504F + kRound;
  const Vec n = shifted - kRound;
  const Vec r = (clamped - n * 0.693359375F) - n * -2.12194440e-4F;
  Vec p = r * 1.3814539e-3F + 8.368745e-3F;
  p = p * r + 4.166839e-2F;
  p = p * r + 1.6666521e-1F;
  p = p * r + 4.9999994e-1F;
  p = (p * r) * r + r + 1.0F;
  // 2^n in two steps, since 2^128 is no float though 2^128 e^r may be one.
  IntVec exponent;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  exponent -= std::bit_cast<std::int32_t>(kRound);
  const IntVec half = exponent >> 1;
  const IntVec bits_a = (half + 127) << 23;
  const IntVec bits_b = (exponent - half + 127) << 23;
  Vec a, b;
  std::memcpy(&a, &bits_a, sizeof a);
  std::memcpy(&b, &bits_b, sizeof b);
  const Vec y = (p * a) * b;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Vec low = x < kLowest ? Vec{} : y;
  return x > kHighest ? splat(kInfinity) : low;
}

}  // namespace llm::cpu
