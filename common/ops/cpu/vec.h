// Vec: sixteen floats at once.
//
// The loops of ops/cpu that Eigen's expressions do not make fast enough are written with this type. It is the
// compilers' own vector type: with AVX-512 one register, with AVX2 two, elsewhere four or plain code, and
// always sixteen lanes, so that sums are added in the same order on every machine. Chapter 3 explains it.
#pragma once

#include <cstdint>
#include <cstring>

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

/// The lanes `step` further on, around the end.
template <int Step>
[[gnu::always_inline]] inline Vec rotated(Vec v) {
  constexpr auto at = [](int i) { return (i + Step) % 16; };
  return __builtin_shufflevector(v, v, at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9),
                                 at(10), at(11), at(12), at(13), at(14), at(15));
}
/// Sum of the lanes, in halves: (0 + 8), (1 + 9) ... then (0 + 4) ...
inline float sum(Vec v) {
  v += rotated<8>(v);
  v += rotated<4>(v);
  v += rotated<2>(v);
  v += rotated<1>(v);
  return v[0];
}
/// The largest lane. What it says of a NaN is not defined.
inline float largest(Vec v) {
  v = max(v, rotated<8>(v));
  v = max(v, rotated<4>(v));
  v = max(v, rotated<2>(v));
  v = max(v, rotated<1>(v));
  return v[0];
}

/// e^x for -87.3 <= x <= 88.3 (or NaN), within 2 units in the last place.
///
/// x = n ln 2 + r with |r| <= ln(2) / 2; e^x = 2^n e^r. ln 2 is split in two so that n ln 2 is exact to
/// 2^-40; e^r is a polynomial whose coefficients minimise the largest relative error on the interval (3e-9;
/// the first two are exactly 1, the others found by reweighted least squares); 2^n is made of exponent bits.
inline Vec exp_bounded(Vec x) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const Vec shifted = x * 1.44269504F + kRound;
  const Vec n = shifted - kRound;
  const Vec r = (x - n * 0.693359375F) - n * -2.12194440e-4F;
  Vec p = r * 1.3814539e-3F + 8.368745e-3F;
  p = p * r + 4.166839e-2F;
  p = p * r + 1.6666521e-1F;
  p = p * r + 4.9999994e-1F;
  p = (p * r) * r + r + 1.0F;
  IntVec bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + (127 << 23);  // the low bits of `shifted` hold n; kRound's own shift out
  Vec power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

/// e^x for x <= 0, as softmax needs it: 0 below -87.3 (no denormals), NaN stays NaN.
inline Vec exp_nonpositive(Vec x) {
  constexpr float kLowest = -87.33654F;
  const Vec y = exp_bounded(max(x, splat(kLowest)));
  return x < kLowest ? Vec{} : y;
}

}  // namespace llm::cpu
