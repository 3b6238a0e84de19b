// Attention on the device, one function per speed, so that each can be tested, timed and counted by its name.
//
// Arguments and results are those of the functions of ops.h with the same ending, which choose among these:
// f32 takes `flash`, bf16 takes `flash_mma`. Chapter 3 climbs them in this order.
#pragma once

#include "common/ops/ops.h"

namespace llm::cuda {

/// One thread per score, everything read from global memory; stores all scores. f32.
void attention_naive_forward(const Tensor& y, const Tensor& weights, const Tensor& qkv,
                             const AttentionOptions& options);
void attention_naive_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& weights, const Tensor& qkv,
                              const AttentionOptions& options);

/// The same steps, but the products go tile by tile through shared memory. f32.
void attention_tiled_forward(const Tensor& y, const Tensor& weights, const Tensor& qkv,
                             const AttentionOptions& options);
void attention_tiled_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& weights, const Tensor& qkv,
                              const AttentionOptions& options);

/// The scores never leave the chip. f32 arithmetic, f32 or bf16 storage. Heads of a multiple of 8 up to 128.
void attention_flash_forward(const Tensor& y, const Tensor& lse, const Tensor& qkv,
                             const AttentionOptions& options);
void attention_flash_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& y, const Tensor& lse,
                              const Tensor& qkv, const AttentionOptions& options);

/// The same on tensor cores. bf16 only. Heads of a multiple of 8 up to 128.
void attention_flash_mma_forward(const Tensor& y, const Tensor& lse, const Tensor& qkv,
                                 const AttentionOptions& options);
void attention_flash_mma_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& y, const Tensor& lse,
                                  const Tensor& qkv, const AttentionOptions& options);

/// One new query per sequence over a cache, the cache cut into pieces that blocks take side by side. f32,
/// bf16.
void attention_decode(const Tensor& y, const Tensor& key_cache, const Tensor& value_cache, const Tensor& qkv,
                      std::int64_t length, std::int64_t heads);
void attention_fill_cache(const Tensor& key_cache, const Tensor& value_cache, const Tensor& qkv,
                          std::int64_t first, std::int64_t heads);

}  // namespace llm::cuda
