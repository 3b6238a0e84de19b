// GELU, addition, casts: one number in, one number out. Chapter 4.
//
// Their floor is the memory: bytes per element over the bandwidth. f32 (bf16 half as many): gelu_forward 8,
// gelu_backward 12, add 12; a cast moves 6. An H100 offers some 35 operations per element in that time, and
// GELU with its exponential and division needs about 25.
#include <algorithm>

#include "common/ops/cuda/kernels.h"
#include "common/ops/cuda/pack.cuh"

namespace llm::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 2;  // packs, both loaded before the first is used: twice the bytes under way

/// y[i] = f(x[i]...) for all i, N elements at a time; whoever holds the last incomplete N takes them one by
/// one. y may be one of the inputs: each element is read before it is written, by the same thread.
template <int N, typename F, typename Y, typename... X>
__global__ void __launch_bounds__(kThreads) map_kernel(Y* y, std::int64_t count, F f, const X*... x) {
  const std::int64_t first = (std::int64_t{blockIdx.x} * (kThreads * kPerThread) + threadIdx.x) * N;
  constexpr std::int64_t kStep = std::int64_t{kThreads} * N;
  if (first + (kPerThread - 1) * kStep + N <= count) {
    float in[kPerThread][sizeof...(X)][N];
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) {
      int input = 0;
      (load(in[k][input++], x + (first + k * kStep)), ...);
    }
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) {
      float out[N];
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if constexpr (sizeof...(X) == 1)
          out[i] = f(in[k][0][i]);
        else
          out[i] = f(in[k][0][i], in[k][1][i]);
      }
      store(y + (first + k * kStep), out);
    }
    return;
  }
  for (int k = 0; k < kPerThread; ++k)
    for (std::int64_t i = first + k * kStep; i < first + k * kStep + N && i < count; ++i)
      y[i] = from_float<Y>(f(to_float(x[i])...));
}

template <typename F, typename Y, typename... X>
void map(Y* y, std::int64_t count, F f, const X*... x) {
  if (count == 0) return;
  // Equal numbers of elements on both sides: 16 bytes of the wider type, or less of the narrower.
  constexpr int kWide = std::min({kPack<Y>, kPack<X>...});
  if (aligned(y, x...))
    launch(map_kernel<kWide, F, Y, X...>, {blocks(divide_up(count, kThreads * kPerThread * kWide)), kThreads},
           y, count, f, x...);
  else
    launch(map_kernel<1, F, Y, X...>, {blocks(divide_up(count, kThreads * kPerThread)), kThreads}, y, count,
           f, x...);
}

/// GELU is x times the logistic function of 2 sqrt(2/pi) (x + 0.044715 x^3), for (1 + tanh u) / 2 =
/// 1 / (1 + e^-2u). |x| > 10 is taken as 10: there the gate is 1, or less than 1e-37, and nothing overflows.
__device__ __forceinline__ float gelu_gate(float x) {
  constexpr float kScale = -2 * 0.7978845608028654F;
  return 1.0F / (1.0F + __expf(x * kScale * (1.0F + 0.044715F * x * x)));
}
/// Within [-10, 10], but NaN stays NaN (fminf and fmaxf would drop it).
__device__ __forceinline__ float bounded(float x) {
  return x > 10.0F ? 10.0F : x < -10.0F ? -10.0F : x;
}
struct Gelu {
  __device__ float operator()(float x) const { return x * gelu_gate(bounded(x)); }
};
/// With s the gate: (x s)' = s + x s (1 - s) 2 sqrt(2/pi) (1 + 3 0.044715 x^2).
struct GeluBackward {
  __device__ float operator()(float dy, float x) const {
    const float near = bounded(x), gate = gelu_gate(near);
    return dy * (gate + near * gate * (1.0F - gate) * (2 * 0.7978845608028654F) *
                            (1.0F + 3 * 0.044715F * near * near));
  }
};
struct Add {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Same {
  __device__ float operator()(float x) const { return x; }
};

/// pre (N, C) += bias; y = gelu(pre): 12 bytes per element in f32, 6 in bf16. GELU sees pre as it is stored.
template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    bias_gelu_kernel(T* y, T* pre, const T* bias, std::int64_t count, unsigned columns) {
  const unsigned pack = blockIdx.x * kThreads + threadIdx.x;  // in 32 bits, for the remainder's sake
  const std::int64_t first = std::int64_t{pack} * N;
  if (first >= count) return;
  float x[N], b[N];
  load(x, pre + first);
  load(b, bias + pack % (columns / N) * N);
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = to_float(from_float<T>(x[i] + b[i]));
  store(pre + first, x);
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = Gelu{}(x[i]);
  store(y + first, x);
}

}  // namespace

void gelu_forward(const Tensor& y, const Tensor& x) {
  by_type(x, [&]<typename T>() { map(device_data<T>(y), x.numel(), Gelu{}, device_data<const T>(x)); });
}

void gelu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x) {
  by_type(x, [&]<typename T>() {
    map(device_data<T>(dx), x.numel(), GeluBackward{}, device_data<const T>(dy), device_data<const T>(x));
  });
}

void add(const Tensor& y, const Tensor& a, const Tensor& b) {
  by_type(a, [&]<typename T>() {
    map(device_data<T>(y), a.numel(), Add{}, device_data<const T>(a), device_data<const T>(b));
  });
}

void cast(const Tensor& y, const Tensor& x) {
  by_type(y, [&]<typename Y>() {
    by_type(x, [&]<typename X>() { map(device_data<Y>(y), x.numel(), Same{}, device_data<const X>(x)); });
  });
}

void bias_gelu(const Tensor& y, const Tensor& pre, const Tensor& bias) {
  if (pre.numel() == 0) return;
  const auto columns = static_cast<unsigned>(bias.numel());
  by_type(y, [&]<typename T>() {
    T* const out = device_data<T>(y);
    T* const in = device_data<T>(pre);
    const T* const b = device_data<const T>(bias);
    const std::int64_t count = pre.numel();
    if (columns % kPack<T> == 0 && aligned(out, in, b))
      launch(bias_gelu_kernel<kPack<T>, T>, {blocks(divide_up(count, kThreads * kPack<T>)), kThreads}, out,
             in, b, count, columns);
    else
      launch(bias_gelu_kernel<1, T>, {blocks(divide_up(count, kThreads)), kThreads}, out, in, b, count,
             columns);
  });
}

}  // namespace llm::cuda
