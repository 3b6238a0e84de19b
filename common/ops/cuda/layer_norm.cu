// Layer norm forward (Ba, Kiros and Hinton 2016), alone and fused with the residual addition before it.
// Chapter 4.
//
// A row is read once and stays in registers while its mean, then its variance, then the result are computed:
// a warp holds rows of up to 2048 elements, a block of 256 threads up to 16384. The floor is the memory.
// Bytes per element in f32 (bf16 half): 8 (x read, y written); with the residual 16 (a, b read; sum, y
// written) instead of the 20 that addition and layer norm need one after the other.
#include "common/ops/cuda/kernels.h"
#include "common/ops/cuda/pack.cuh"
#include "common/simt/warp.cuh"

namespace llm::cuda {

namespace {

template <typename T>
struct Forward {
  T* y;
  float* mean;
  float* rstd;
  T* sum;  // null, or a + b is written here
  const T* a;
  const T* b;  // with sum
  const T* gamma;
  const T* beta;  // or null
  std::int64_t rows;
  int channels;
  float eps;
};

/// Threads share a row (32: several rows per block); each holds Packs times 16 bytes of it, as floats.
template <typename T, int Threads, int Packs>
__global__ void __launch_bounds__(Threads < 128 ? 128 : Threads) layer_norm_kernel(Forward<T> o) {
  constexpr int N = kPack<T>, kRows = Threads < 128 ? 128 / Threads : 1;
  const std::int64_t row = std::int64_t{blockIdx.x} * kRows + threadIdx.x / Threads;
  if (row >= o.rows) return;  // a whole warp
  const int thread = threadIdx.x % Threads, packs = o.channels / N;
  const std::int64_t start = row * o.channels;

  float x[Packs][N];
#pragma unroll
  for (int k = 0; k < Packs; ++k)
    if (const int pack = thread + k * Threads; pack < packs) load(x[k], o.a + start + pack * N);
  if (o.sum) {
    float b[Packs][N];
#pragma unroll
    for (int k = 0; k < Packs; ++k)
      if (const int pack = thread + k * Threads; pack < packs) load(b[k], o.b + start + pack * N);
#pragma unroll
    for (int k = 0; k < Packs; ++k) {
      const int pack = thread + k * Threads;
      if (pack >= packs) continue;
#pragma unroll
      for (int i = 0; i < N; ++i)
        x[k][i] = to_float(from_float<T>(x[k][i] + b[k][i]));  // as backward will read it
      store(o.sum + start + pack * N, x[k]);
    }
  }

  float total = 0;
#pragma unroll
  for (int k = 0; k < Packs; ++k)
    if (thread + k * Threads < packs)
#pragma unroll
      for (int i = 0; i < N; ++i) total += x[k][i];
  const auto count = static_cast<float>(o.channels);
  const float mean = block_sum<Threads>(total) / count;
  total = 0;
#pragma unroll
  for (int k = 0; k < Packs; ++k)
    if (thread + k * Threads < packs)
#pragma unroll
      for (int i = 0; i < N; ++i) total += (x[k][i] - mean) * (x[k][i] - mean);
  const float rstd = 1.0F / sqrtf(block_sum<Threads>(total) / count + o.eps);
  if (thread == 0) {
    o.mean[row] = mean;
    o.rstd[row] = rstd;
  }

#pragma unroll
  for (int k = 0; k < Packs; ++k) {
    const int pack = thread + k * Threads;
    if (pack >= packs) continue;
    float gamma[N], beta[N] = {};
    load(gamma, o.gamma + pack * N);
    if (o.beta) load(beta, o.beta + pack * N);
#pragma unroll
    for (int i = 0; i < N; ++i) x[k][i] = (x[k][i] - mean) * rstd * gamma[i] + beta[i];
    store(o.y + start + pack * N, x[k]);
  }
}

constexpr int kAnyThreads = 128;

/// Rows of any length and alignment, read again for each pass.
template <typename T>
__global__ void __launch_bounds__(kAnyThreads) layer_norm_any_kernel(Forward<T> o) {
  const std::int64_t row = blockIdx.x, start = row * o.channels;
  const T* const x = o.sum ? o.sum + start : o.a + start;
  const int thread = threadIdx.x;

  float total = 0;
  for (int c = thread; c < o.channels; c += kAnyThreads) {
    if (o.sum) o.sum[start + c] = from_float<T>(to_float(o.a[start + c]) + to_float(o.b[start + c]));
    total += to_float(x[c]);  // each thread reads what it wrote itself
  }
  const auto count = static_cast<float>(o.channels);
  const float mean = block_sum<kAnyThreads>(total) / count;
  total = 0;
  for (int c = thread; c < o.channels; c += kAnyThreads) {
    const float d = to_float(x[c]) - mean;
    total += d * d;
  }
  const float rstd = 1.0F / sqrtf(block_sum<kAnyThreads>(total) / count + o.eps);
  if (thread == 0) {
    o.mean[row] = mean;
    o.rstd[row] = rstd;
  }
  for (int c = thread; c < o.channels; c += kAnyThreads) {
    const float normal = (to_float(x[c]) - mean) * rstd;
    o.y[start + c] = from_float<T>(normal * to_float(o.gamma[c]) + (o.beta ? to_float(o.beta[c]) : 0.0F));
  }
}

template <typename T>
void forward(const Forward<T>& o) {
  if (o.rows == 0) return;
  constexpr int N = kPack<T>;
  const int packs = o.channels / N;
  if (o.channels % N != 0 || packs > 256 * 64 / N || !aligned(o.y, o.sum, o.a, o.b, o.gamma, o.beta))
    return launch(layer_norm_any_kernel<T>, {blocks(o.rows), kAnyThreads}, o);
  // The fewest elements per thread that hold the row: 8, 32 or 64 with a warp, 16 or 64 with 256 threads.
  const LaunchConfig warps{blocks(divide_up(o.rows, 4)), 128}, whole{blocks(o.rows), 256};
  if (packs <= 32 * 8 / N)
    launch(layer_norm_kernel<T, 32, 8 / N>, warps, o);
  else if (packs <= 32 * 32 / N)
    launch(layer_norm_kernel<T, 32, 32 / N>, warps, o);
  else if (packs <= 32 * 64 / N)
    launch(layer_norm_kernel<T, 32, 64 / N>, warps, o);
  else if (packs <= 256 * 16 / N)
    launch(layer_norm_kernel<T, 256, 16 / N>, whole, o);
  else
    launch(layer_norm_kernel<T, 256, 64 / N>, whole, o);
}

}  // namespace

void layer_norm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                        const Tensor& gamma, const Tensor& beta, float eps) {
  by_type(x, [&]<typename T>() {
    forward<T>({device_data<T>(y), mean.data(), rstd.data(), nullptr, device_data<T>(x), nullptr,
                device_data<T>(gamma), device_data<T>(beta), mean.numel(), static_cast<int>(gamma.numel()),
                eps});
  });
}

void add_layer_norm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean, const Tensor& rstd,
                            const Tensor& a, const Tensor& b, const Tensor& gamma, const Tensor& beta,
                            float eps) {
  by_type(a, [&]<typename T>() {
    forward<T>({device_data<T>(y), mean.data(), rstd.data(), device_data<T>(sum), device_data<T>(a),
                device_data<T>(b), device_data<T>(gamma), device_data<T>(beta), mean.numel(),
                static_cast<int>(gamma.numel()), eps});
  });
}

}  // namespace llm::cuda
