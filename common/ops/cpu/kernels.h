// The arithmetic of the CPU: what ops.cpp calls once the arguments are checked.
//
// Plain pointers and sizes. Every loop over rows or columns is cut by parallel_for so that each output
// element is computed whole by one thread, or in fixed pieces that are added in order: no result depends on
// the number of threads.
#pragma once

#include <cstdint>

#include "common/core/philox.h"
#include "common/ops/attention_checks.h"
#include "common/ops/ops.h"

namespace llm::cpu {

using Index = std::int64_t;

// linear.cpp: x (N, I), w (O, I), b (O) or null, y (N, O)
void linear_forward(float* y, const float* x, const float* w, const float* b, Index rows, Index in,
                    Index out);
void linear_backward(float* dx, float* dw, float* db, const float* dy, const float* x, const float* w,
                     Index rows, Index in, Index out);

// embedding.cpp: of rows [first, first + vocabulary) of the token table
void embedding_forward(float* y, const std::int32_t* tokens, const float* token_table,
                       const float* position_table, Index batch, Index time, Index channels, Index first,
                       Index vocabulary);
void embedding_backward(float* dtoken_table, float* dposition_table, const float* dy,
                        const std::int32_t* tokens, Index batch, Index time, Index channels, Index first,
                        Index vocabulary);

// layer_norm.cpp: x (N, C)
void layer_norm_forward(float* y, float* mean, float* rstd, const float* x, const float* gamma,
                        const float* beta, Index rows, Index channels, float eps);
void add_layer_norm_forward(float* sum, float* y, float* mean, float* rstd, const float* a, const float* b,
                            const float* gamma, const float* beta, Index rows, Index channels, float eps);
void layer_norm_backward(float* dx, float* dgamma, float* dbeta, const float* dy, const float* x,
                         const float* gamma, const float* mean, const float* rstd, const float* dresidual,
                         Index rows, Index channels);

// elementwise.cpp
void gelu_forward(float* y, const float* x, Index count);
void gelu_backward(float* dx, const float* dy, const float* x, const float* y, Index count);
void add(float* y, const float* a, const float* b, Index count);
void cast(BFloat16* y, const float* x, Index count);
void cast(float* y, const BFloat16* x, Index count);

// dropout.cpp
void dropout(float* y, const float* x, Index count, float p, const Philox& rng, std::uint64_t first_index);
/// scale[i] = 0 or 1 / (1 - p), for elements first_index + i. On the calling thread.
void dropout_scale(float* scale, Index count, float p, const Philox& rng, std::uint64_t first_index);

// softmax.cpp: x (N, C)
void softmax_forward(float* y, const float* x, Index rows, Index columns);
void softmax_backward(float* dx, const float* dy, const float* y, Index rows, Index columns);
/// The largest element of a row; NaN is passed over; -inf if empty.
float row_max(const float* x, Index count);
/// y[i] = exp(x[i] - shift), where shift is at least the row's maximum; returns their sum. y may be x, or
/// null to only add up.
float row_exp(float* y, const float* x, Index count, float shift);

// attention_naive.cpp, attention_flash.cpp: qkv (B, T, 3C)
void attention_naive_forward(float* y, float* weights, const float* qkv, const AttentionSize& size,
                             const AttentionOptions& options);
void attention_naive_backward(float* dqkv, const float* dy, const float* weights, const float* qkv,
                              const AttentionSize& size, const AttentionOptions& options);
void attention_flash_forward(float* y, float* lse, const float* qkv, const AttentionSize& size,
                             const AttentionOptions& options);
void attention_flash_backward(float* dqkv, const float* dy, const float* y, const float* lse,
                              const float* qkv, const AttentionSize& size, const AttentionOptions& options);

// attention_decode.cpp: caches (B, H, S, D)
void attention_decode(float* y, float* key_cache, float* value_cache, const float* qkv, Index capacity,
                      Index length, const AttentionSize& size);
void attention_fill_cache(float* key_cache, float* value_cache, const float* qkv, Index capacity, Index first,
                          const AttentionSize& size);

// cross_entropy.cpp: logits (N, V)
void cross_entropy_forward(float* losses, const float* logits, const std::int32_t* targets, Index rows,
                           Index vocabulary);
void cross_entropy_backward(float* dlogits, const float* logits, const std::int32_t* targets, float scale,
                            Index rows, Index vocabulary);
/// dx null: losses only. dw and weights may be null.
void linear_cross_entropy(float* losses, float* dx, float* dw, const float* x, const float* w,
                          const std::int32_t* targets, float scale, const float* weights, Index rows,
                          Index channels, Index vocabulary);

// cross_entropy_shard.cpp: logits (N, V) of the vocabulary's rows from `first` on
void shard_cross_entropy_statistics(float* highest, float* total, float* right, const float* logits,
                                    const std::int32_t* targets, Index rows, Index vocabulary, Index first);
void shard_cross_entropy_rescale(float* total, const float* highest, const float* new_highest, Index rows);
void shard_cross_entropy_losses(float* losses, const float* highest, const float* total, const float* right,
                                const std::int32_t* targets, Index rows);
void shard_cross_entropy_backward(float* dlogits, const float* logits, const std::int32_t* targets,
                                  const float* highest, const float* total, float scale, const float* weights,
                                  Index rows, Index vocabulary, Index first);

// adamw.cpp
void adamw_update(float* values, float* first_moment, float* second_moment, const float* gradients,
                  Index count, const AdamWStep& options);
double squared_norm(const float* x, Index count);

}  // namespace llm::cpu
