// Attention that stores its scores: three kinds of matrix product with a softmax over rows between them. The
// variants `naive` and `tiled` differ in how they multiply, and in nothing else. Chapter 3.
#pragma once

#include "common/ops/cuda/attention.cuh"

namespace llm::cuda {

/// The products of all heads at once. Weights w are (B H, T, T), of which j <= i is used.
struct HeadProducts {
  /// w[i][j] = scale * a_i . b_j for j <= i; what lies above the diagonal may be anything.
  void (*scores)(float* w, Heads<const float> a, Heads<const float> b, float scale, int heads);
  /// y_i = scale * sum over j <= i of w[i][j] x_j
  void (*weighted_rows)(Heads<float> y, const float* w, Heads<const float> x, float scale, int heads);
  /// y_j = scale * sum over i >= j of w[i][j] x_i
  void (*weighted_columns)(Heads<float> y, const float* w, Heads<const float> x, float scale, int heads);
};

void attention_stored_forward(const Tensor& y, const Tensor& weights, const Tensor& qkv,
                              const AttentionSize& s, const AttentionOptions& options,
                              const HeadProducts& products);
void attention_stored_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& weights, const Tensor& qkv,
                               const AttentionSize& s, const AttentionOptions& options,
                               const HeadProducts& products);

}  // namespace llm::cuda
