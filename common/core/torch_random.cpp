#include "common/core/torch_random.h"

#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/core/error.h"

namespace llm {

namespace {

constexpr double kTwoPi = 6.283185307179586476925286766559;

// To give PyTorch's normal numbers to the last bit, the logarithm, sine and cosine must round as PyTorch's
// do. Its AVX2 kernel computes them by the single-precision polynomials of the Cephes library (Moshier
// 1984-1992, logf.c and sincosf.c: the coefficients below are theirs), each step of Horner's rule a fused
// multiply-add. Every product that is added to something stands in an explicit fma here, so that no compiler
// flag can change the rounding.

/// Natural logarithm of x in (0, 1].
inline float cephes_log(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  auto exponent = static_cast<float>(static_cast<std::int32_t>(bits >> 23) - 126);
  x = std::bit_cast<float>((bits & 0x007fffffu) | 0x3f000000u);  // mantissa in [0.5, 1)
  const bool low = x < 0.707106781186547524F;  // sqrt(1/2): now in [sqrt(1/2), sqrt(2)), less 1
  exponent -= low ? 1.0F : 0.0F;
  x = (x - 1.0F) + (low ? x : 0.0F);
  const float z = x * x;
  float y = 7.0376836292E-2F;
  y = std::fma(y, x, -1.1514610310E-1F);
  y = std::fma(y, x, 1.1676998740E-1F);
  y = std::fma(y, x, -1.2420140846E-1F);
  y = std::fma(y, x, 1.4249322787E-1F);
  y = std::fma(y, x, -1.6668057665E-1F);
  y = std::fma(y, x, 2.0000714765E-1F);
  y = std::fma(y, x, -2.4999993993E-1F);
  y = std::fma(y, x, 3.3333331174E-1F);
  y = y * x;
  y = std::fma(y, z, exponent * -2.12194440E-4F);  // ln 2 in two parts: 0.693359375 - 2.12194440e-4
  y = std::fma(z, -0.5F, y);
  return std::fma(exponent, 0.693359375F, x + y);
}

/// Sine and cosine of x in [0, 2 pi].
inline void cephes_sincos(float x, float& sine, float& cosine) {
  const std::int32_t octant =
      (static_cast<std::int32_t>(x * 1.27323954473516F) + 1) & ~1;  // of 4/pi x, made even
  const auto y = static_cast<float>(octant);
  x = std::fma(y, -0.78515625F, x);  // x - y pi/4, pi/4 in three parts
  x = std::fma(y, -2.4187564849853515625E-4F, x);
  x = std::fma(y, -3.77489497744594108E-8F, x);
  const float z = x * x;
  float c = 2.443315711809948E-5F;
  c = std::fma(c, z, -1.388731625493765E-3F);
  c = std::fma(c, z, 4.166664568298827E-2F);
  c = std::fma(c * z, z, z * -0.5F) + 1.0F;
  float s = -1.9515295891E-4F;
  s = std::fma(s, z, 8.3321608736E-3F);
  s = std::fma(s, z, -1.6666654611E-1F);
  s = std::fma(s * z, x, x);
  const bool swapped = (octant & 2) != 0;
  const float sine_of = swapped ? c : s;
  const float cosine_of = swapped ? s : c;
  sine = (octant & 4) != 0 ? -sine_of : sine_of;
  cosine = ((octant + 2) & 4) != 0 ? -cosine_of : cosine_of;
}

/// Box-Muller on sixteen uniforms in place: element j and element j + 8 make one pair of normals.
void normal_16(float* x, float mean, float std) {
  for (int j = 0; j < 8; ++j) {
    const float u1 = 1.0F - x[j];  // in (0, 1], so that the logarithm is finite
    const float radius = std::sqrt(-2.0F * cephes_log(u1));
    float sine = 0;
    float cosine = 0;
    cephes_sincos(static_cast<float>(kTwoPi) * x[j + 8], sine, cosine);
    x[j] = std::fma(radius * cosine, std, mean);
    x[j + 8] = std::fma(radius * sine, std, mean);
  }
}

}  // namespace

TorchRandom::TorchRandom(std::uint64_t seed) : engine_(static_cast<std::uint32_t>(seed)) {}

std::uint64_t TorchRandom::word64() {
  const std::uint64_t high = word();
  return (high << 32) | word();
}

float TorchRandom::uniform24() {
  return static_cast<float>(word() & 0xffffffu) * 0x1p-24F;
}

void TorchRandom::rand(std::span<float> out) {
  for (float& x : out) x = uniform24();
}

void TorchRandom::uniform(std::span<float> out, double low, double high) {
  const auto a = static_cast<float>(low);
  const auto b = static_cast<float>(high);
  for (float& x : out) x = std::fma(uniform24(), b - a, a);
}

double TorchRandom::normal_double() {
  if (spare_normal_) {
    const double value = *spare_normal_;
    spare_normal_.reset();
    return value;
  }
  constexpr std::uint64_t k53Bits = (std::uint64_t{1} << 53) - 1;
  const double u1 = static_cast<double>(word64() & k53Bits) * 0x1p-53;
  const double u2 = static_cast<double>(word64() & k53Bits) * 0x1p-53;
  const double radius = std::sqrt(-2.0 * std::log1p(-u2));
  const double theta = kTwoPi * u1;
  spare_normal_ = radius * std::sin(theta);
  return radius * std::cos(theta);
}

void TorchRandom::randn(std::span<float> out, double mean, double std) {
  const std::size_t n = out.size();
  if (n < 16) {
    for (float& x : out) x = static_cast<float>(normal_double() * std + mean);
    return;
  }
  rand(out);
  for (std::size_t i = 0; i + 16 <= n; i += 16)
    normal_16(out.data() + i, static_cast<float>(mean), static_cast<float>(std));
  if (n % 16 != 0) {  // PyTorch draws the last sixteen anew
    const auto tail = out.last(16);
    rand(tail);
    normal_16(tail.data(), static_cast<float>(mean), static_cast<float>(std));
  }
}

std::vector<std::int64_t> TorchRandom::randint(std::int64_t low, std::int64_t high, std::int64_t n) {
  check(low < high, "randint needs low < high, got {} and {}", low, high);
  const auto range = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
  check(n >= 0, "randint cannot draw {} numbers", n);
  std::vector<std::int64_t> out(static_cast<std::size_t>(n));
  // PyTorch 2 takes 64 bits from here on, lest the remainder favour small numbers (older versions: from
  // 2^32).
  constexpr std::uint64_t kWideRange = std::uint64_t{1} << 28;
  for (auto& x : out) {
    const std::uint64_t bits = range >= kWideRange ? word64() : word();
    x = static_cast<std::int64_t>(bits % range + static_cast<std::uint64_t>(low));
  }
  return out;
}

std::vector<std::int64_t> TorchRandom::randperm(std::int64_t n) {
  check(n >= 0, "a permutation cannot have {} elements", n);
  std::vector<std::int64_t> out(static_cast<std::size_t>(n));
  // From here on, 32 random bits would favour some positions by more than 5%; PyTorch draws 64 and goes the
  // other way round (Fisher-Yates, "inside-out").
  constexpr std::int64_t kManyElements = std::numeric_limits<std::uint32_t>::max() / 20;
  if (n < kManyElements) {
    std::iota(out.begin(), out.end(), 0);
    for (std::int64_t i = 0; i < n - 1; ++i) {
      const auto j = i + static_cast<std::int64_t>(word() % static_cast<std::uint64_t>(n - i));
      std::swap(out[static_cast<std::size_t>(i)], out[static_cast<std::size_t>(j)]);
    }
    return out;
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t j = word64() % (i + 1);
    out[i] = static_cast<std::int64_t>(i);
    std::swap(out[i], out[j]);
  }
  return out;
}

void TorchRandom::init_linear(std::span<float> weight, std::span<float> bias, std::int64_t in) {
  check(in > 0 && weight.size() % static_cast<std::size_t>(in) == 0,
        "a weight of {} elements has no rows of {}", weight.size(), in);
  // In the order of PyTorch's operations: gain, standard deviation, bound. The last is 1/sqrt(in) but for the
  // last bit, which the bias takes directly.
  const double gain = std::sqrt(2.0 / (1.0 + 5.0));
  const double bound = std::sqrt(3.0) * (gain / std::sqrt(static_cast<double>(in)));
  uniform(weight, -bound, bound);
  const double bias_bound = 1.0 / std::sqrt(static_cast<double>(in));
  if (!bias.empty()) uniform(bias, -bias_bound, bias_bound);
}

}  // namespace llm
