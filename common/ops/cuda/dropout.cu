// Inverted dropout (Srivastava et al. 2014). The mask is not stored: element i draws number i of its stream,
// whoever computes it and as often as needed; the masks are those of the CPU to the bit. Chapter 3.
//
// One block of the generator makes four numbers in ten rounds of two products, some 80 operations. Per
// element the floor is 8 bytes of f32, 4 of bf16, in which time an H100 has 70 and 35 operations to spare:
// still the memory, but in bf16 not by much.
#include "common/ops/cuda/kernels.h"
#include "common/ops/cuda/pack.cuh"

namespace llm::cuda {

namespace {

constexpr int kThreads = 256;

/// A thread takes four elements that share a block of the generator: `skip` elements of the first block lie
/// before the tensor's first. Four neighbours are loaded at once where they are all there and aligned.
template <bool Packed, typename T>
__global__ void __launch_bounds__(kThreads) dropout_kernel(T* y, const T* x, std::int64_t count, float p,
                                                           Philox rng, std::uint64_t first_block, int skip) {
  const std::int64_t block = std::int64_t{blockIdx.x} * kThreads + threadIdx.x, first = 4 * block - skip;
  if (first >= count) return;
  const auto words = rng.block(first_block + static_cast<std::uint64_t>(block));
  const float keep = 1.0F / (1.0F - p);
  float scale[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) scale[i] = static_cast<float>(words[i] >> 8) * 0x1p-24F >= p ? keep : 0.0F;
  if (Packed && first + 4 <= count) {
    float v[4];
    load(v, x + first);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] *= scale[i];
    store(y + first, v);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (first + i >= 0 && first + i < count) y[first + i] = from_float<T>(to_float(x[first + i]) * scale[i]);
}

}  // namespace

void dropout(const Tensor& y, const Tensor& x, float p, const Philox& rng, std::uint64_t first_index) {
  if (x.numel() == 0) return;
  const auto skip = static_cast<int>(first_index % 4);
  by_type(x, [&]<typename T>() {
    T* const out = device_data<T>(y);
    const T* const in = device_data<const T>(x);
    const auto kernel = skip == 0 && aligned(out, in) ? dropout_kernel<true, T> : dropout_kernel<false, T>;
    launch(kernel, {blocks(divide_up(x.numel() + skip, 4 * kThreads)), kThreads}, out, in, x.numel(), p, rng,
           first_index / 4, skip);
  });
}

}  // namespace llm::cuda
