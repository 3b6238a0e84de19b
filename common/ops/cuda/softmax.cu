// Softmax of rows: y = exp(x - max) / sum, and backward dx_i = y_i (dy_i - sum_j y_j dy_j). Chapter 3.
//
// Rows of up to 2048 elements stay in the registers of a warp between the two passes; longer ones are read
// again, from the caches as far as they reach. The floor is the memory, in bytes per element of f32 (bf16
// half): forward 8, backward 12.
#include "common/ops/cuda/kernels.h"
#include "common/ops/cuda/long_row.cuh"
#include "common/ops/cuda/pack.cuh"
#include "common/simt/warp.cuh"

namespace llm::cuda {

namespace {

constexpr int kThreads = 128, kRows = kThreads / 32;  // a warp per row
constexpr int kLongThreads = 512;                     // a block per row

template <typename T, int Packs>
__global__ void __launch_bounds__(kThreads)
    softmax_forward_kernel(T* y, const T* x, std::int64_t rows, int columns) {
  constexpr int N = kPack<T>;
  const std::int64_t row = std::int64_t{blockIdx.x} * kRows + threadIdx.x / 32;
  if (row >= rows) return;
  const int lane = threadIdx.x % 32, packs = columns / N;
  float v[Packs][N], most = kLeast;
#pragma unroll
  for (int k = 0; k < Packs; ++k)
    if (const int pack = lane + k * 32; pack < packs) {
      load(v[k], x + row * columns + pack * N);
#pragma unroll
      for (int i = 0; i < N; ++i) most = fmaxf(most, v[k][i]);
    }
  most = warp_max(most);
  float total = 0;
#pragma unroll
  for (int k = 0; k < Packs; ++k)
    if (lane + k * 32 < packs)
#pragma unroll
      for (int i = 0; i < N; ++i) total += v[k][i] = __expf(v[k][i] - most);
  total = 1.0F / warp_sum(total);
#pragma unroll
  for (int k = 0; k < Packs; ++k)
    if (const int pack = lane + k * 32; pack < packs) {
#pragma unroll
      for (int i = 0; i < N; ++i) v[k][i] *= total;
      store(y + row * columns + pack * N, v[k]);
    }
}

template <int N, typename T>
__global__ void __launch_bounds__(kLongThreads)
    softmax_forward_long_kernel(T* y, const T* x, std::int64_t columns) {
  x += blockIdx.x * columns;
  y += blockIdx.x * columns;
  const RunningSum all = long_row_sum<N, kLongThreads>(x, columns);
  const float factor = 1.0F / all.total;
  visit_row<N, kLongThreads>(x, columns, [&](std::int64_t at, auto& v) {
    for (float& value : v) value = __expf(value - all.most) * factor;
    store(y + at, v);
  });
}

template <typename T, int Packs>
__global__ void __launch_bounds__(kThreads)
    softmax_backward_kernel(T* dx, const T* dy, const T* y, std::int64_t rows, int columns) {
  constexpr int N = kPack<T>;
  const std::int64_t row = std::int64_t{blockIdx.x} * kRows + threadIdx.x / 32;
  if (row >= rows) return;
  const int lane = threadIdx.x % 32, packs = columns / N;
  float p[Packs][N], dp[Packs][N], dot = 0;
#pragma unroll
  for (int k = 0; k < Packs; ++k)
    if (const int pack = lane + k * 32; pack < packs) {
      load(p[k], y + row * columns + pack * N);
      load(dp[k], dy + row * columns + pack * N);
    }
#pragma unroll
  for (int k = 0; k < Packs; ++k)
    if (lane + k * 32 < packs)
#pragma unroll
      for (int i = 0; i < N; ++i) dot += p[k][i] * dp[k][i];
  dot = warp_sum(dot);
#pragma unroll
  for (int k = 0; k < Packs; ++k)
    if (const int pack = lane + k * 32; pack < packs) {
#pragma unroll
      for (int i = 0; i < N; ++i) p[k][i] *= dp[k][i] - dot;
      store(dx + row * columns + pack * N, p[k]);
    }
}

template <int N, typename T>
__global__ void __launch_bounds__(kLongThreads)
    softmax_backward_long_kernel(T* dx, const T* dy, const T* y, std::int64_t columns) {
  const std::int64_t start = blockIdx.x * columns;
  float dot = 0;
  visit_row<N, kLongThreads>(y + start, columns, [&](std::int64_t at, const auto& p) {
    float dp[std::extent_v<std::remove_reference_t<decltype(p)>>];
    load(dp, dy + start + at);
#pragma unroll
    for (int i = 0; i < static_cast<int>(std::size(p)); ++i) dot += p[i] * dp[i];
  });
  dot = block_sum<kLongThreads>(dot);
  visit_row<N, kLongThreads>(y + start, columns, [&](std::int64_t at, auto& p) {
    float dp[std::extent_v<std::remove_reference_t<decltype(p)>>];
    load(dp, dy + start + at);
#pragma unroll
    for (int i = 0; i < static_cast<int>(std::size(p)); ++i) p[i] *= dp[i] - dot;
    store(dx + start + at, p);
  });
}

/// Whether a row of packs fits the registers of a warp, `each` elements per lane.
template <typename T>
bool short_row(std::int64_t columns, int each, bool all_aligned) {
  return all_aligned && columns % kPack<T> == 0 && columns <= 32 * each;
}

}  // namespace

void softmax_forward(const Tensor& y, const Tensor& x) {
  if (x.numel() == 0) return;
  by_type(x, [&]<typename T>() {
    T* const out = device_data<T>(y);
    const T* const in = device_data<const T>(x);
    const std::int64_t columns = x.rank() == 0 ? 1 : x.dim(-1), rows = x.numel() / columns;
    const LaunchConfig warps{blocks(divide_up(rows, kRows)), kThreads}, whole{blocks(rows), kLongThreads};
    const int width = static_cast<int>(columns);
    if (short_row<T>(columns, 8, aligned(out, in)))
      launch(softmax_forward_kernel<T, 8 / kPack<T>>, warps, out, in, rows, width);
    else if (short_row<T>(columns, 32, aligned(out, in)))
      launch(softmax_forward_kernel<T, 32 / kPack<T>>, warps, out, in, rows, width);
    else if (short_row<T>(columns, 64, aligned(out, in)))
      launch(softmax_forward_kernel<T, 64 / kPack<T>>, warps, out, in, rows, width);
    else if (aligned_alike(out, in))
      launch(softmax_forward_long_kernel<kPack<T>, T>, whole, out, in, columns);
    else
      launch(softmax_forward_long_kernel<1, T>, whole, out, in, columns);
  });
}

void softmax_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) {
  if (y.numel() == 0) return;
  by_type(y, [&]<typename T>() {
    T* const out = device_data<T>(dx);
    const T* const grad = device_data<const T>(dy);
    const T* const p = device_data<const T>(y);
    const std::int64_t columns = y.rank() == 0 ? 1 : y.dim(-1), rows = y.numel() / columns;
    const LaunchConfig warps{blocks(divide_up(rows, kRows)), kThreads}, whole{blocks(rows), kLongThreads};
    const int width = static_cast<int>(columns);
    if (short_row<T>(columns, 8, aligned(out, grad, p)))
      launch(softmax_backward_kernel<T, 8 / kPack<T>>, warps, out, grad, p, rows, width);
    else if (short_row<T>(columns, 32, aligned(out, grad, p)))
      launch(softmax_backward_kernel<T, 32 / kPack<T>>, warps, out, grad, p, rows, width);
    else if (aligned_alike(out, grad, p))
      launch(softmax_backward_long_kernel<kPack<T>, T>, whole, out, grad, p, columns);
    else
      launch(softmax_backward_long_kernel<1, T>, whole, out, grad, p, columns);
  });
}

}  // namespace llm::cuda
