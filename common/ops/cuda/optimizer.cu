// AdamW (Loshchilov and Hutter 2019, algorithm 2), and the norm that clipping needs. Chapter 5.
//
// The values, the gradients and both moments are f32. Where the model computes in bf16 the values are its
// "master weights" (Micikevicius et al. 2018, section 3.1): an update of less than 1/256 of a weight would be
// lost in bf16. The bf16 copy that the model reads is written in the same pass. Floor: 28 bytes per parameter
// (four arrays read, three written), 30 with the copy; 4 for the norm (2 in bf16).
#include <cmath>
#include <vector>

#include "common/ops/cuda/kernels.h"
#include "common/ops/cuda/pack.cuh"

namespace llm::cuda {

namespace {

constexpr int kThreads = 256;

/// The update's constants, computed in double as on the CPU.
struct Constants {
  float step_size, root2, decay, beta1, rest1, beta2, rest2, eps, scale;
};

__device__ __forceinline__ void update(float& value, float& m, float& v, float gradient, const Constants& o) {
  const float g = gradient * o.scale;
  m = o.beta1 * m + o.rest1 * g;
  v = o.beta2 * v + o.rest2 * g * g;
  value =
      value * o.decay - __fdividef(o.step_size * m, sqrtf(v) * o.root2 + o.eps);  // 2 units in the last place
}

/// Four blocks per SM, each thread with 64 bytes under way, keep the memory busy; more would cost it
/// registers.
template <int N>
__global__ void __launch_bounds__(kThreads, 4)
    adamw_kernel(float* values, float* first_moment, float* second_moment, const float* gradients,
                 __nv_bfloat16* copy, std::int64_t count, Constants o) {
  const std::int64_t first = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (first + N <= count) {
    float value[N], m[N], v[N], g[N];
    load(value, values + first);
    load(m, first_moment + first);
    load(v, second_moment + first);
    load(g, gradients + first);
#pragma unroll
    for (int i = 0; i < N; ++i) update(value[i], m[i], v[i], g[i], o);
    store(values + first, value);
    store(first_moment + first, m);
    store(second_moment + first, v);
    if (copy != nullptr) store(copy + first, value);
    return;
  }
  for (std::int64_t i = first; i < count; ++i) {
    update(values[i], first_moment[i], second_moment[i], gradients[i], o);
    if (copy != nullptr) copy[i] = __float2bfloat16(values[i]);
  }
}

constexpr std::int64_t kPiece = 16384;  // elements per block of the norm

struct Doubles {
  double values[kThreads];
};

/// The sum of the threads' values, halving their number each time.
__device__ __forceinline__ double block_sum_of_doubles(double value) {
  auto& shared = block_shared<Doubles>();
  shared.values[threadIdx.x] = value;
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) shared.values[threadIdx.x] += shared.values[threadIdx.x + half];
  }
  __syncthreads();
  return shared.values[0];
}

/// sums[p] = the sum of squares of piece p.
template <int N, typename T>
__global__ void __launch_bounds__(kThreads) squares_kernel(double* sums, const T* x, std::int64_t count) {
  const std::int64_t begin = blockIdx.x * kPiece, end = min(count, begin + kPiece);
  double total = 0;
  std::int64_t i = begin + static_cast<int>(threadIdx.x) * N;
#pragma unroll 4
  for (; i + N <= end; i += kThreads * N) {
    float v[N];
    load(v, x + i);
#pragma unroll
    for (int k = 0; k < N; ++k) total += static_cast<double>(v[k]) * static_cast<double>(v[k]);
  }
  for (; i < end; ++i) {  // only the thread that the end cuts short comes here with i < end
    const double v = to_float(x[i]);
    total += v * v;
  }
  total = block_sum_of_doubles(total);
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

/// One block: sums[0] = the sum of all, each thread adding every 256th.
__global__ void __launch_bounds__(kThreads) add_sums_kernel(double* sums, std::int64_t count) {
  double total = 0;
#pragma unroll 4
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) total += sums[i];
  total = block_sum_of_doubles(total);
  if (threadIdx.x == 0) sums[0] = total;
}

}  // namespace

void adamw_update(const Tensor& values, const Tensor& first_moment, const Tensor& second_moment,
                  const Tensor& gradients, const AdamWStep& o, const Tensor& copy) {
  const std::int64_t count = values.numel();
  if (count == 0) return;
  const double correction1 = 1.0 - std::pow(o.beta1, static_cast<double>(o.step));
  const double correction2 = 1.0 - std::pow(o.beta2, static_cast<double>(o.step));
  const Constants constants{static_cast<float>(o.learning_rate / correction1),
                            static_cast<float>(1.0 / std::sqrt(correction2)),
                            static_cast<float>(1.0 - o.learning_rate * o.weight_decay),
                            static_cast<float>(o.beta1),
                            static_cast<float>(1.0 - o.beta1),
                            static_cast<float>(o.beta2),
                            static_cast<float>(1.0 - o.beta2),
                            static_cast<float>(o.eps),
                            static_cast<float>(o.gradient_scale)};
  auto* const small = device_data<__nv_bfloat16>(copy);
  float *const value = values.data(), *const m = first_moment.data(), *const v = second_moment.data();
  const float* const g = gradients.data();
  const bool packed = aligned(value, m, v, g) && reinterpret_cast<std::uintptr_t>(small) % 8 == 0;
  launch(packed ? adamw_kernel<4> : adamw_kernel<1>,
         {blocks(divide_up(count, kThreads * (packed ? 4 : 1))), kThreads}, value, m, v, g, small, count,
         constants);
}

double squared_norm(const Tensor& x) {
  const std::int64_t pieces = divide_up(x.numel(), kPiece);
  if (pieces == 0) return 0;
  const Tensor buffer = Tensor::uninitialized({pieces, 2}, DType::i32, Device::cuda);
  auto* const sums = static_cast<double*>(buffer.raw());
  by_type(x, [&]<typename T>() {
    const T* const from = device_data<const T>(x);
    launch(aligned(from) ? squares_kernel<kPack<T>, T> : squares_kernel<1, T>, {blocks(pieces), kThreads},
           sums, from, x.numel());
  });
  launch(add_sums_kernel, {1, kThreads}, sums, pieces);
  double total = 0;
  copy_to_host(&total, sums, sizeof total);
  return total;
}

}  // namespace llm::cuda
