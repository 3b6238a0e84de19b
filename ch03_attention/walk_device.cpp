// The walk's second half: the same attention as kernels. First what memory costs, then the ladder.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ch03_attention/walk.h"
#include "ch03_attention/walk_kernels.h"
#include "ch03_attention/walk_rungs.h"
#include "common/cli/format.h"
#include "common/core/device_memory.h"
#include "common/core/error.h"
#include "common/core/philox.h"
#include "common/ops/cuda/attention.h"
#include "common/ops/ops.h"

namespace llm::ch03 {
namespace {

void headline(std::string_view text) {
  fmt::print("\n{}\n{}\n\n", text, std::string(text.size(), '-'));
}

Tensor normal(Shape shape, std::uint64_t seed, std::string_view stream) {
  Tensor t = Tensor::uninitialized(std::move(shape));
  const Philox random{seed, stream_id(stream)};
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data()[i] = random.normal(static_cast<std::uint64_t>(i));
  return t;
}

Tensor on_cuda(Shape shape, DType dtype = DType::f32) {
  return Tensor(std::move(shape), dtype, Device::cuda);
}

/// The largest difference of two tensors, wherever and in whatever numbers they are.
float difference(const Tensor& a, const Tensor& b) {
  const auto readable = [](const Tensor& x) {
    if (x.dtype() == DType::f32) return x.to(Device::cpu);
    const Tensor f32 = Tensor(x.shape(), DType::f32, x.device());
    cast(f32, x);
    return f32.to(Device::cpu);
  };
  const Tensor x = readable(a), y = readable(b);
  float most = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) most = std::max(most, std::abs(x.data()[i] - y.data()[i]));
  return most;
}

void show_memory(std::uint64_t seed, MetricsWriter& metrics) {
  headline("6. What memory costs");
  fmt::print("Device {}\n\n", describe_device());
  constexpr std::int64_t kFull = 8192;  // a side
  const std::int64_t N = measured() ? kFull : 128;
  const Tensor x = normal({N, N}, seed, "memory").to(Device::cuda), y = on_cuda({N, N});
  const auto cost = [](double n) { return Cost{0, 2 * 4 * n * n}; };
  const double times = static_cast<double>(kFull * kFull) / static_cast<double>(N * N);
  const auto rung = [&](const char* name, std::function<void()> run) {
    return Rung{name, false, std::move(run), cost(static_cast<double>(N)), cost(kFull), times};
  };
  fmt::print(
      "A copy and a transpose of ({0}, {0}) numbers{1}. A warp's 32 loads\n"
      "of 4 bytes can be 4 sectors of 32 bytes, or 32 of them:\n\n",
      N, measured() ? "" : fmt::format(", predicted for ({0}, {0})", kFull));
  show_rungs(
      {rung("copy: neighbours side by side", [&] { copy(y, x, 1); }),
       rung("copy: neighbours 32 apart", [&] { copy(y, x, 32); }),
       rung("transpose: directly", [&] { transpose(y, x, Transpose::directly); }),
       rung("transpose: through a tile", [&] { transpose(y, x, Transpose::through_a_tile); }),
       rung("transpose: tile of 33 columns", [&] { transpose(y, x, Transpose::through_a_padded_tile); })},
      metrics);
  fmt::print("\nThe last one without its __syncthreads():\n\n");
  show_report([&] { transpose(y, x, Transpose::without_the_barrier); });
}

void show_products(std::uint64_t seed, MetricsWriter& metrics) {
  headline("7. A matrix product: naive and tiled");
  constexpr std::int64_t kFull = 4096;
  const std::int64_t N = measured() ? kFull : 128;
  const Tensor a = normal({N, N}, seed, "a"), b = normal({N, N}, seed, "b");
  const Tensor da = a.to(Device::cuda), db = b.to(Device::cuda), naive = on_cuda({N, N}),
               tiled = on_cuda({N, N});
  const auto cost = [](double n) { return Cost{2 * n * n * n, 3 * 4 * n * n}; };
  const auto times = std::pow(static_cast<double>(kFull) / static_cast<double>(N), 3);
  const auto rung = [&](const char* name, std::function<void()> run) {
    return Rung{name, false, std::move(run), cost(static_cast<double>(N)), cost(kFull), times};
  };
  fmt::print("({0}, {0}) = ({0}, {0}) x ({0}, {0}){1}:\n\n", N,
             measured() ? "" : fmt::format(", predicted for {0} x {0}", kFull));
  show_rungs({rung("naive: from global memory", [&] { multiply_naive(naive, da, db); }),
              rung("tiled: 32 x 32 in shared memory", [&] { multiply_tiled(tiled, da, db); })},
             metrics);
  const float apart = difference(naive, tiled);
  check(apart < 1e-3F * std::sqrt(static_cast<float>(N)), "the two products differ by {}", apart);
}

void show_ladder(std::uint64_t seed, MetricsWriter& metrics) {
  headline("8. Attention on the device");
  struct Size {
    std::int64_t B, H, T, D;
    // q k^T and w v, below the diagonal and on it; qkv read and y written.
    Cost cost(double bytes_per_number) const {
      const auto b = static_cast<double>(B), h = static_cast<double>(H), t = static_cast<double>(T),
                 d = static_cast<double>(D);
      return {2 * b * h * d * t * (t + 1), bytes_per_number * 4 * b * t * h * d};
    }
  };
  constexpr Size kFull = {8, 12, 1024, 64};
  const Size s = measured() ? kFull : Size{1, 1, 256, 64};
  const std::int64_t C = s.H * s.D;
  const AttentionOptions options{.heads = s.H};
  const Tensor host = normal({s.B, s.T, 3 * C}, seed, "ladder"), qkv = host.to(Device::cuda);
  const Tensor qkv16 = on_cuda(qkv.shape(), DType::bf16);
  cast(qkv16, qkv);
  const Tensor weights = on_cuda({s.B, s.H, s.T, s.T}), lse = on_cuda({s.B, s.H, s.T});
  const Shape shape = {s.B, s.T, C};
  const Tensor naive = on_cuda(shape), tiled = on_cuda(shape), flash = on_cuda(shape),
               mma = on_cuda(shape, DType::bf16);

  fmt::print(
      "B = {}, H = {}, T = {}, D = {}{}.\nOperations are those of the two products, without softmax:\n\n",
      s.B, s.H, s.T, s.D,
      measured() ? ""
                 : fmt::format("; predicted for GPT-2's layer, B = {}, H = {}, T = {}, D = {}", kFull.B,
                               kFull.H, kFull.T, kFull.D));
  const double times = kFull.cost(4).operations / s.cost(4).operations;
  const auto rung = [&](const char* name, std::function<void()> run, int bytes = 4) {
    return Rung{name, bytes == 2, std::move(run), s.cost(bytes), kFull.cost(bytes), times};
  };
  show_rungs({rung("naive", [&] { cuda::attention_naive_forward(naive, weights, qkv, options); }),
              rung("tiled", [&] { cuda::attention_tiled_forward(tiled, weights, qkv, options); }),
              rung("flash", [&] { cuda::attention_flash_forward(flash, lse, qkv, options); }),
              rung(
                  "flash_mma", [&] { cuda::attention_flash_mma_forward(mma, lse, qkv16, options); }, 2)},
             metrics);

  Tensor expected = naive;
  if (!measured()) {  // the CPU's answer as well, where that does not take minutes
    expected = Tensor(shape);
    attention_naive_forward(expected, Tensor({s.B, s.H, s.T, s.T}), host, options);
  }
  fmt::print(
      "\nThe largest difference from {}: naive {:.0e}, tiled {:.0e}, flash {:.0e}, flash_mma (bf16) "
      "{:.0e}.\n",
      measured() ? "the naive one" : "Eigen's on the CPU", difference(naive, expected),
      difference(tiled, expected), difference(flash, expected), difference(mma, expected));
  check(difference(flash, expected) < 1e-4F && difference(mma, expected) < 0.1F,
        "attention on the device differs from what it should be");
}

}  // namespace

void walk_on_the_device(std::uint64_t seed, MetricsWriter& metrics) {
  try {
    (void)describe_device();
  } catch (const Error& error) {  // built with CUDA, on a machine without a GPU
    fmt::print("\nThe walk's second half runs on a GPU, but {}.\n", error.what());
    return;
  }
  show_memory(seed, metrics);
  show_products(seed, metrics);
  show_ladder(seed, metrics);
}

}  // namespace llm::ch03
