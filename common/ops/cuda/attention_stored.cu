// Attention as the formula says it (Vaswani et al. 2017, section 3.2.1), over products that others supply:
// all scores, their softmax, the weighted sums of values; and back. Chapter 3.
#include "common/ops/cuda/attention_stored.cuh"

namespace llm::cuda {

namespace {

constexpr int kWarps = 4;  // rows per block, one warp each

/// This warp's row within (B H, T).
__device__ std::int64_t warp_row() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
}

/// Scores -> weights in place: the softmax of the visible part of each row, zeros above the diagonal.
__global__ void softmax_rows(float* scores, std::int64_t rows, int time) {
  if (warp_row() >= rows) return;
  float* row = scores + warp_row() * time;
  const int visible = static_cast<int>(warp_row() % time) + 1;  // position i sees positions 0 ... i
  const int lane = static_cast<int>(threadIdx.x % 32);
  float highest = -kInfinity;
  for (int j = lane; j < visible; j += 32) highest = fmaxf(highest, row[j]);
  highest = warp_max(highest);
  float total = 0;
  for (int j = lane; j < visible; j += 32) {
    row[j] = expf(row[j] - highest);
    total += row[j];
  }
  total = warp_sum(total);
  for (int j = lane; j < time; j += 32) row[j] = j < visible ? row[j] / total : 0.0F;
}

/// used = M P: the weights as they are applied to the values.
__global__ void drop_weights(float* used, const float* weights, std::int64_t count, int time,
                             WeightDropout dropout) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, row = i / time;
  if (i >= count) return;
  const std::uint64_t first =
      dropout.row_index(static_cast<int>(row / time), static_cast<int>(row % time), time);
  used[i] = weights[i] * dropout.factor(first + static_cast<std::uint64_t>(i % time));
}

/// d(M P) -> dS in place: dP = M d(M P), dS = P (dP - rowsum(P dP)).
template <bool kDropout>
__global__ void softmax_rows_backward(float* gradients, const float* weights, std::int64_t rows, int time,
                                      WeightDropout dropout) {
  if (warp_row() >= rows) return;
  float* gradient = gradients + warp_row() * time;
  const float* weight = weights + warp_row() * time;
  const int visible = static_cast<int>(warp_row() % time) + 1;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::uint64_t index = kDropout ? dropout.row_index(static_cast<int>(warp_row() / time),
                                                           static_cast<int>(warp_row() % time), time)
                                       : 0;
  float dot = 0;
  for (int j = lane; j < visible; j += 32) {
    if (kDropout) gradient[j] *= dropout.factor(index + static_cast<std::uint64_t>(j));
    dot += weight[j] * gradient[j];
  }
  dot = warp_sum(dot);
  for (int j = lane; j < time; j += 32) gradient[j] = j < visible ? weight[j] * (gradient[j] - dot) : 0.0F;
}

/// The weights as applied: themselves, or with dropout a copy of which some are 0 and the others grow.
Tensor used_weights(const Tensor& weights, const AttentionOptions& options) {
  if (options.dropout == 0) return weights;
  const Tensor used = Tensor::uninitialized(weights.shape(), DType::f32, Device::cuda);
  const std::int64_t count = weights.numel();
  launch(drop_weights, {dim3(blocks_for(count, 256)), dim3(256)}, used.data(), weights.data(), count,
         static_cast<int>(weights.dim(-1)), WeightDropout(options));
  return used;
}

}  // namespace

void attention_stored_forward(const Tensor& y, const Tensor& weights, const Tensor& qkv,
                              const AttentionSize& s, const AttentionOptions& options,
                              const HeadProducts& products) {
  if (qkv.numel() == 0) return;
  const auto heads = static_cast<int>(s.batch * s.heads), time = static_cast<int>(s.time);
  const float* from = qkv.data();
  products.scores(weights.data(), part(from, 0, s), part(from, 1, s), score_scale(s), heads);
  launch(softmax_rows, {dim3(blocks_for(s.batch * s.heads * s.time, kWarps)), dim3(32 * kWarps)},
         weights.data(), s.batch * s.heads * s.time, time);
  const Tensor used = used_weights(weights, options);
  products.weighted_rows(output(y.data(), s), used.data(), part(from, 2, s), 1, heads);
}

// With P the weights and M the dropout's mask and scale (1 without):
//   dV = (M P)^T dY,  d(M P) = dY V^T,  dS as above,  dQ = dS K / sqrt(D),  dK = dS^T Q / sqrt(D).
void attention_stored_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& weights, const Tensor& qkv,
                               const AttentionSize& s, const AttentionOptions& options,
                               const HeadProducts& products) {
  if (qkv.numel() == 0) return;
  const auto heads = static_cast<int>(s.batch * s.heads), time = static_cast<int>(s.time);
  const float* from = qkv.data();
  float* to = dqkv.data();
  const Heads<const float> dout = output(static_cast<const float*>(dy.data()), s);
  {
    const Tensor used = used_weights(weights, options);
    products.weighted_columns(part(to, 2, s), used.data(), dout, 1, heads);
  }
  const Tensor gradients = Tensor::uninitialized(weights.shape(), DType::f32, Device::cuda);
  products.scores(gradients.data(), dout, part(from, 2, s), 1, heads);
  launch(options.dropout > 0 ? softmax_rows_backward<true> : softmax_rows_backward<false>,
         {dim3(blocks_for(s.batch * s.heads * s.time, kWarps)), dim3(32 * kWarps)}, gradients.data(),
         weights.data(), s.batch * s.heads * s.time, time, WeightDropout(options));
  products.weighted_rows(part(to, 0, s), gradients.data(), part(from, 1, s), score_scale(s), heads);
  products.weighted_columns(part(to, 1, s), gradients.data(), part(from, 0, s), score_scale(s), heads);
}

}  // namespace llm::cuda
