// Attention on the device, first rung: one thread per element of every product, each reading its whole row
// and column from global memory. Chapter 3.
//
// A product of two T x D parts reads every number T times: 2 D T^2 loads for 2 D T^2 operations. Neighbouring
// threads of `scores` read different rows of b, so a warp's load touches 32 sectors to use 4 bytes of each.
// The caches soften it; attention_tiled.cu removes it.
#include "common/ops/cuda/attention_stored.cuh"

namespace llm::cuda {

namespace {

constexpr int kThreads = 128;

/// Grid (T / 128, T, B H): thread j of row i.
__global__ void scores(float* w, Heads<const float> a, Heads<const float> b, float scale) {
  const int j = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), i = static_cast<int>(blockIdx.y);
  const auto head = static_cast<int>(blockIdx.z);
  if (j > i) return;
  const float* left = a[head].row(i);
  const float* right = b[head].row(j);
  float sum = 0;
  for (int d = 0; d < a.size; ++d) sum += left[d] * right[d];
  w[(static_cast<std::int64_t>(head) * a.time + i) * a.time + j] = scale * sum;
}

/// Grid (D / 128, T, B H): thread d of row i. Columns: w transposed.
template <bool kColumns>
__global__ void weighted_sums(Heads<float> y, const float* w, Heads<const float> x, float scale) {
  const int d = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), i = static_cast<int>(blockIdx.y);
  const auto head = static_cast<int>(blockIdx.z);
  if (d >= y.size) return;
  const float* weights = w + static_cast<std::int64_t>(head) * x.time * x.time;
  const Rows<const float> rows = x[head];
  float sum = 0;
  for (int j = kColumns ? i : 0; j < (kColumns ? x.time : i + 1); ++j) {
    const std::int64_t at =
        kColumns ? static_cast<std::int64_t>(j) * x.time + i : static_cast<std::int64_t>(i) * x.time + j;
    sum += weights[at] * rows.row(j)[d];
  }
  y[head].row(i)[d] = scale * sum;
}

dim3 grid(int columns, int rows, int heads) {
  return {blocks_for(columns, kThreads), static_cast<unsigned>(rows), static_cast<unsigned>(heads)};
}

constexpr HeadProducts kProducts = {
    [](float* w, Heads<const float> a, Heads<const float> b, float scale, int heads) {
      launch(scores, {grid(a.time, a.time, heads), dim3(kThreads)}, w, a, b, scale);
    },
    [](Heads<float> y, const float* w, Heads<const float> x, float scale, int heads) {
      launch(weighted_sums<false>, {grid(x.size, x.time, heads), dim3(kThreads)}, y, w, x, scale);
    },
    [](Heads<float> y, const float* w, Heads<const float> x, float scale, int heads) {
      launch(weighted_sums<true>, {grid(x.size, x.time, heads), dim3(kThreads)}, y, w, x, scale);
    }};

}  // namespace

void attention_naive_forward(const Tensor& y, const Tensor& weights, const Tensor& qkv,
                             const AttentionOptions& options) {
  const AttentionSize s = check_naive_forward("attention_naive_forward", y, weights, qkv, options);
  check_on_cuda("attention_naive_forward", qkv, {DType::f32});
  attention_stored_forward(y, weights, qkv, s, options, kProducts);
}

void attention_naive_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& weights, const Tensor& qkv,
                              const AttentionOptions& options) {
  const AttentionSize s = check_naive_backward("attention_naive_backward", dqkv, dy, weights, qkv, options);
  check_on_cuda("attention_naive_backward", qkv, {DType::f32});
  attention_stored_backward(dqkv, dy, weights, qkv, s, options, kProducts);
}

}  // namespace llm::cuda
