// The arithmetic of the device: what ops.cpp calls for tensors on Device::cuda once the arguments are
// checked.
//
// The functions are those of ops.h and take the same arguments; each launches its kernels on device_stream()
// and returns at once (but squared_norm, whose result the host needs). Activations and parameters are f32 or
// bf16, all arithmetic is f32, gradients of parameters and statistics are f32.
//
// No float is ever added by an atomic: what many threads contribute to is summed in pieces whose bounds
// depend on the sizes alone, and the pieces are added in order. So every result has the same bits in every
// run.
//
// An id outside its range cannot be seen by the host, which would have to wait for the device to look: see
// ids.cuh.
#pragma once

#include "common/ops/ops.h"

namespace llm::cuda {

using Index = std::int64_t;

// linear.cu
void linear_forward(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& b);
void linear_gelu_forward(const Tensor& y, const Tensor& pre, const Tensor& x, const Tensor& w,
                         const Tensor& b);
void linear_backward(const Tensor& dx, const Tensor& dw, const Tensor& db, const Tensor& dy, const Tensor& x,
                     const Tensor& w);

// embedding.cu
void embedding_forward(const Tensor& y, const Tensor& tokens, const Tensor& token_table,
                       const Tensor& position_table, Index first_position, const VocabularyShard& shard = {});
void embedding_backward(const Tensor& dtoken_table, const Tensor& dposition_table, const Tensor& dy,
                        const Tensor& tokens, Index first_position, const VocabularyShard& shard = {});

// layer_norm.cu, layer_norm_backward.cu
void layer_norm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                        const Tensor& gamma, const Tensor& beta, float eps);
void add_layer_norm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean, const Tensor& rstd,
                            const Tensor& a, const Tensor& b, const Tensor& gamma, const Tensor& beta,
                            float eps);
void layer_norm_backward(const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta, const Tensor& dy,
                         const Tensor& x, const Tensor& gamma, const Tensor& mean, const Tensor& rstd,
                         const Tensor& dresidual);

// elementwise.cu
void gelu_forward(const Tensor& y, const Tensor& x);
void gelu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x);
void add(const Tensor& y, const Tensor& a, const Tensor& b);
void cast(const Tensor& y, const Tensor& x);
/// pre += bias for each row, then y = gelu(pre): what is left of linear_gelu_forward after a plain product.
void bias_gelu(const Tensor& y, const Tensor& pre, const Tensor& bias);

// dropout.cu
void dropout(const Tensor& y, const Tensor& x, float p, const Philox& rng, std::uint64_t first_index);

// softmax.cu
void softmax_forward(const Tensor& y, const Tensor& x);
void softmax_backward(const Tensor& dx, const Tensor& dy, const Tensor& y);

// cross_entropy.cu
void cross_entropy_forward(const Tensor& losses, const Tensor& logits, const Tensor& targets);
void cross_entropy_backward(const Tensor& dlogits, const Tensor& logits, const Tensor& targets, float scale);
/// Both at once; dlogits may be logits (in place).
void cross_entropy(const Tensor& losses, const Tensor& dlogits, const Tensor& logits, const Tensor& targets,
                   float scale);
/// The elements of logits that linear_cross_entropy makes at a time: 512 MB of bf16.
constexpr Index kLogitsAtATime = Index{1} << 28;
/// dx undefined: losses only. dw and weights may be undefined.
void linear_cross_entropy(const Tensor& losses, const Tensor& dx, const Tensor& dw, const Tensor& x,
                          const Tensor& w, const Tensor& targets, float scale, const Tensor& weights,
                          Index logits_at_a_time = kLogitsAtATime);

// cross_entropy_shard.cu
void shard_cross_entropy_statistics(const Tensor& highest, const Tensor& total, const Tensor& right,
                                    const Tensor& logits, const Tensor& targets,
                                    const VocabularyShard& shard);
void shard_cross_entropy_rescale(const Tensor& total, const Tensor& highest, const Tensor& new_highest);
void shard_cross_entropy_losses(const Tensor& losses, const Tensor& highest, const Tensor& total,
                                const Tensor& right, const Tensor& targets);
void shard_cross_entropy_backward(const Tensor& dlogits, const Tensor& logits, const Tensor& targets,
                                  const Tensor& highest, const Tensor& total, float scale,
                                  const VocabularyShard& shard, const Tensor& weights);

// optimizer.cu
/// `copy` (bf16) receives the new values; undefined: none.
void adamw_update(const Tensor& values, const Tensor& first_moment, const Tensor& second_moment,
                  const Tensor& gradients, const AdamWStep& options, const Tensor& copy);
double squared_norm(const Tensor& x);

}  // namespace llm::cuda
