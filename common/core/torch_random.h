// TorchRandom reproduces PyTorch's CPU generator, number for number.
//
// Texts built on PyTorch print what `torch.manual_seed(123)` gives; with this the same numbers come
// out here. It is the Mersenne Twister mt19937 (Matsumoto and Nishimura 1998) with PyTorch's way of
// making floats and normals of it (ATen/core/DistributionsHelper.h, native/cpu/DistributionTemplates.h).
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <vector>

namespace llm {

class TorchRandom {
 public:
  /// torch.manual_seed(seed)
  explicit TorchRandom(std::uint64_t seed);

  /// torch.rand(n): uniform in [0, 1).
  void rand(std::span<float> out);
  /// tensor.uniform_(low, high).
  void uniform(std::span<float> out, double low, double high);
  /// torch.randn(n), and tensor.normal_(mean, std).
  void randn(std::span<float> out, double mean = 0.0, double std = 1.0);
  /// torch.randint(low, high, (n,)): uniform in {low, ..., high - 1}.
  std::vector<std::int64_t> randint(std::int64_t low, std::int64_t high, std::int64_t n);
  /// torch.empty((), dtype=torch.int64).random_(): 63 random bits.
  std::int64_t random() { return static_cast<std::int64_t>(word64() & 0x7fffffffffffffffu); }
  /// torch.randperm(n).
  std::vector<std::int64_t> randperm(std::int64_t n);

  /// The default initialisation of nn.Linear(in, out): weight (out, in), then bias (out) if not empty, both
  /// uniform in [-1/sqrt(in), 1/sqrt(in)) (Kaiming uniform with a = sqrt(5)).
  void init_linear(std::span<float> weight, std::span<float> bias, std::int64_t in);
  /// The default initialisation of nn.Embedding: standard normal.
  void init_embedding(std::span<float> weight) { randn(weight); }

 private:
  std::uint32_t word() { return static_cast<std::uint32_t>(engine_()); }
  std::uint64_t word64();
  float uniform24();
  double normal_double();

  std::mt19937 engine_;
  std::optional<double> spare_normal_;
};

}  // namespace llm
