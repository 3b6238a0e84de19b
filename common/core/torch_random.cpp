#include "common/core/torch_random.h"

#include <cmath>
#include <numeric>

#include "common/core/error.h"

namespace llm {

namespace {

constexpr double kTwoPi = 6.283185307179586476925286766559;

/// Box-Muller on sixteen uniforms in place: element j and element j + 8 make one pair of normals.
void normal_16(float* x, float mean, float std) {
  for (int j = 0; j < 8; ++j) {
    const float u1 = 1.0F - x[j];  // in (0, 1], so that the logarithm is finite
    const float u2 = x[j + 8];
    const float radius = std::sqrt(-2.0F * std::log(u1));
    const float theta = static_cast<float>(kTwoPi) * u2;
    x[j] = radius * std::cos(theta) * std + mean;
    x[j + 8] = radius * std::sin(theta) * std + mean;
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
  for (float& x : out) x = uniform24() * (b - a) + a;
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

void TorchRandom::randn(std::span<float> out, float mean, float std) {
  const std::size_t n = out.size();
  if (n < 16) {
    for (float& x : out) x = static_cast<float>(normal_double() * std + mean);
    return;
  }
  rand(out);
  for (std::size_t i = 0; i + 16 <= n; i += 16) normal_16(out.data() + i, mean, std);
  if (n % 16 != 0) {  // PyTorch draws the last sixteen anew
    const auto tail = out.last(16);
    rand(tail);
    normal_16(tail.data(), mean, std);
  }
}

std::vector<std::int64_t> TorchRandom::randint(std::int64_t low, std::int64_t high, std::int64_t n) {
  check(low < high, "randint needs low < high, got {} and {}", low, high);
  const auto range = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
  std::vector<std::int64_t> out(static_cast<std::size_t>(n));
  for (auto& x : out) {
    const std::uint64_t bits = range >= (std::uint64_t{1} << 32) ? word64() : word();
    x = static_cast<std::int64_t>(bits % range + static_cast<std::uint64_t>(low));
  }
  return out;
}

std::vector<std::int64_t> TorchRandom::randperm(std::int64_t n) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  for (std::int64_t i = 0; i < n - 1; ++i) {
    const auto j = i + static_cast<std::int64_t>(word() % static_cast<std::uint64_t>(n - i));
    std::swap(out[static_cast<std::size_t>(i)], out[static_cast<std::size_t>(j)]);
  }
  return out;
}

void TorchRandom::init_linear(std::span<float> weight, std::span<float> bias, std::int64_t in) {
  check(in > 0 && weight.size() % static_cast<std::size_t>(in) == 0,
        "a weight of {} elements has no rows of {}", weight.size(), in);
  const double bound = 1.0 / std::sqrt(static_cast<double>(in));
  uniform(weight, -bound, bound);
  if (!bias.empty()) uniform(bias, -bound, bound);
}

}  // namespace llm
