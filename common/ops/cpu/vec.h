// Vec: sixteen floats at once.
//
// The loops of ops/cpu that Eigen's expressions do not make fast enough are written with this type. It
// consists of the compiler's own vectors, as wide as the processor's registers: one part with AVX-512, two
// with AVX2, four elsewhere. (One vector of 64 bytes would do everywhere, but where registers are narrower
// g++ 12 keeps it in memory, and matrix products ran at a thirtieth of their speed.) It always has sixteen
// lanes, so that sums are added in the same order on every machine. Chapter 3 explains it.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace llm::cpu {

constexpr std::int64_t kLanes = 16;

#if defined(__AVX512F__)
constexpr int kPartLanes = 16;
#elif defined(__AVX__)
constexpr int kPartLanes = 8;
#else
constexpr int kPartLanes = 4;
#endif
constexpr int kParts = static_cast<int>(kLanes) / kPartLanes;

typedef float Part __attribute__((vector_size(kPartLanes * sizeof(float))));
typedef std::int32_t IntPart __attribute__((vector_size(kPartLanes * sizeof(std::int32_t))));

struct Vec {
  Part part[kParts];
};

/// The Vec whose parts are f(0), f(1), ...
template <typename F>
[[gnu::always_inline]] inline Vec from_parts(const F& f) {
  Vec y;
#pragma GCC unroll 4
  for (int i = 0; i < kParts; ++i) y.part[i] = f(i);
  return y;
}

/// All lanes equal. (Subtracting zero changes no number, so the compiler leaves it out; adding it would turn
/// -0 to 0.)
[[gnu::always_inline]] inline Part splat_part(float value) {
  return value - Part{};
}
[[gnu::always_inline]] inline Vec splat(float value) {
  return from_parts([=](int) { return splat_part(value); });
}

// The four operations, lane by lane; a float stands for sixteen of its kind.
[[gnu::always_inline]] inline Vec operator+(const Vec& a, const Vec& b) {
  return from_parts([&](int i) { return a.part[i] + b.part[i]; });
}
[[gnu::always_inline]] inline Vec operator-(const Vec& a, const Vec& b) {
  return from_parts([&](int i) { return a.part[i] - b.part[i]; });
}
[[gnu::always_inline]] inline Vec operator*(const Vec& a, const Vec& b) {
  return from_parts([&](int i) { return a.part[i] * b.part[i]; });
}
[[gnu::always_inline]] inline Vec operator/(const Vec& a, const Vec& b) {
  return from_parts([&](int i) { return a.part[i] / b.part[i]; });
}
[[gnu::always_inline]] inline Vec operator+(const Vec& a, float b) {
  return a + splat(b);
}
[[gnu::always_inline]] inline Vec operator+(float a, const Vec& b) {
  return splat(a) + b;
}
[[gnu::always_inline]] inline Vec operator-(const Vec& a, float b) {
  return a - splat(b);
}
[[gnu::always_inline]] inline Vec operator-(float a, const Vec& b) {
  return splat(a) - b;
}
[[gnu::always_inline]] inline Vec operator*(const Vec& a, float b) {
  return a * splat(b);
}
[[gnu::always_inline]] inline Vec operator*(float a, const Vec& b) {
  return splat(a) * b;
}
[[gnu::always_inline]] inline Vec operator/(float a, const Vec& b) {
  return splat(a) / b;
}
[[gnu::always_inline]] inline Vec& operator+=(Vec& a, const Vec& b) {
  return a = a + b;
}

[[gnu::always_inline]] inline Vec load(const float* p) {
  return from_parts([=](int i) {
    Part part;
    std::memcpy(&part, p + i * kPartLanes, sizeof part);
    return part;
  });
}
[[gnu::always_inline]] inline void store(float* p, const Vec& v) {
#pragma GCC unroll 4
  for (int i = 0; i < kParts; ++i) std::memcpy(p + i * kPartLanes, &v.part[i], sizeof v.part[i]);
}
/// The first `count` lanes from memory, `rest` in the others. For the tail of a row; never inlined, since a
/// Vec whose bytes are copied lies in memory, also where whole ones are meant to stay in registers.
[[gnu::noinline]] inline Vec load_part(const float* p, std::int64_t count, float rest = 0) {
  Vec v = splat(rest);
  std::memcpy(&v, p, static_cast<std::size_t>(count) * sizeof(float));
  return v;
}
[[gnu::noinline]] inline void store_part(float* p, Vec v, std::int64_t count) {
  std::memcpy(p, &v, static_cast<std::size_t>(count) * sizeof(float));
}

/// All sixteen lanes, or the first `count` where a row ends before: zeros in the others.
[[gnu::always_inline]] inline Vec load_up_to(const float* p, std::int64_t count) {
  return count >= kLanes ? load(p) : load_part(p, count);
}
[[gnu::always_inline]] inline void store_up_to(float* p, const Vec& v, std::int64_t count) {
  count >= kLanes ? store(p, v) : store_part(p, v, count);
}

/// Lane by lane; a NaN in `a` stays.
[[gnu::always_inline]] inline Vec max(const Vec& a, const Vec& b) {
  return from_parts([&](int i) { return a.part[i] < b.part[i] ? b.part[i] : a.part[i]; });
}
[[gnu::always_inline]] inline Vec min(const Vec& a, const Vec& b) {
  return from_parts([&](int i) { return a.part[i] > b.part[i] ? b.part[i] : a.part[i]; });
}

/// The first `count` lanes of v, and `rest` in the others.
[[gnu::always_inline]] inline Vec first_lanes(const Vec& v, std::int32_t count, float rest) {
  return from_parts([&](int i) {
    IntPart lane;
#pragma GCC unroll 16
    for (int j = 0; j < kPartLanes; ++j) lane[j] = i * kPartLanes + j;
    return lane < count ? v.part[i] : splat_part(rest);
  });
}

/// All lanes combined into one number, in halves: (0, 8), (1, 9) ..., then (0, 4) ...
template <typename Combine>
[[gnu::always_inline]] inline float reduce_lanes(const Vec& v, const Combine& combine) {
  float lane[kLanes];
  store(lane, v);
#pragma GCC unroll 4
  for (int half = 8; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) lane[i] = combine(lane[i], lane[i + half]);
  return lane[0];
}
inline float sum(const Vec& v) {
  return reduce_lanes(v, [](float a, float b) { return a + b; });
}
/// The largest lane. What it says of a NaN is not defined.
inline float largest(const Vec& v) {
  return reduce_lanes(v, [](float a, float b) { return a < b ? b : a; });
}

// Adding it to a number of at most 2^22 rounds to an integer, which then stands in the low bits.
constexpr float kRound = 12582912.0F;  // 1.5 * 2^23

/// 2^n 2^f for |f| <= 1/2 and n + kRound in `shifted`, -127 <= n <= 128 (the first gives 0, the last
/// infinity).
///
/// 2^f is a polynomial whose coefficients minimise the largest relative error on the interval (2e-9; the
/// first is exactly 1, the others found by reweighted least squares). Its terms are added in pairs (Estrin
/// 1960): a chain of four fused multiply-adds where Horner's rule has six. 2^n is made of exponent bits.
[[gnu::always_inline]] inline Vec exp2_of_parts(const Vec& shifted, const Vec& f) {
  const Vec f2 = f * f;
  const Vec low = f * 0.6931472F + 1.0F;
  const Vec middle = f * 0.055503324F + 0.24022648F;
  const Vec high = (f * 0.0013398874F + 0.009618437F) + f2 * 0.00015353362F;
  const Vec power = low + f2 * (middle + f2 * high);
  return power * from_parts([&](int i) {  // kRound's own bits shift out
           return std::bit_cast<Part>((std::bit_cast<IntPart>(shifted.part[i]) << 23) + (127 << 23));
         });
}

/// 2^x for -127 <= x <= 128 (or NaN), within 2 units in the last place; 0 and infinity at the two ends.
[[gnu::always_inline]] inline Vec exp2_bounded(const Vec& x) {
  const Vec shifted = x + kRound;
  return exp2_of_parts(shifted, x - (shifted - kRound));
}

/// e^x for -87.3 <= x <= 88.3 (or NaN), within 2 units in the last place: x = n ln 2 + r, and e^r = 2^f. ln 2
/// is split in two so that n ln 2 is exact to 2^-40.
[[gnu::always_inline]] inline Vec exp_bounded(const Vec& x) {
  constexpr float kLog2e = 1.44269504F;
  const Vec shifted = x * kLog2e + kRound;
  const Vec n = shifted - kRound;
  const Vec r = (x - n * 0.693359375F) - n * -2.12194440e-4F;
  return exp2_of_parts(shifted, r * kLog2e);
}

/// e^x for x <= 0, as softmax needs it: 0 below -87.3 (no denormals), NaN stays NaN.
[[gnu::always_inline]] inline Vec exp_nonpositive(const Vec& x) {
  constexpr float kLowest = -87.33654F;
  const Vec y = exp_bounded(max(x, splat(kLowest)));
  return from_parts([&](int i) { return x.part[i] < kLowest ? Part{} : y.part[i]; });
}

}  // namespace llm::cpu
