// The checks of attention, shared by the functions of ops.h and by the device's variants. Chapter 3.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "common/core/tensor.h"
#include "common/ops/ops.h"

namespace llm {

/// The sizes of qkv (B, T, 3C) cut into heads: C = H D.
struct AttentionSize {
  std::int64_t batch, time, heads, head_size;
  std::int64_t channels() const { return heads * head_size; }
};

/// With dropout, the number of head b H + h among all heads of the model, of which these may be a part.
inline std::int64_t numbered_head(std::int64_t head, const AttentionOptions& options) {
  return options.all_heads == 0 ? head : head / options.heads * options.all_heads + head % options.heads;
}

// Each returns the sizes of its call. On the device activations are f32 or bf16, all of qkv's dtype; the
// weights and lse are f32.
AttentionSize check_naive_forward(std::string_view function, const Tensor& y, const Tensor& weights,
                                  const Tensor& qkv, const AttentionOptions& options);
AttentionSize check_naive_backward(std::string_view function, const Tensor& dqkv, const Tensor& dy,
                                   const Tensor& weights, const Tensor& qkv, const AttentionOptions& options);
AttentionSize check_flash_forward(std::string_view function, const Tensor& y, const Tensor& lse,
                                  const Tensor& qkv, const AttentionOptions& options);
AttentionSize check_flash_backward(std::string_view function, const Tensor& dqkv, const Tensor& dy,
                                   const Tensor& y, const Tensor& lse, const Tensor& qkv,
                                   const AttentionOptions& options);
AttentionSize check_decode(std::string_view function, const Tensor& y, const Tensor& key_cache,
                           const Tensor& value_cache, const Tensor& qkv, std::int64_t length,
                           std::int64_t heads);
AttentionSize check_fill_cache(std::string_view function, const Tensor& key_cache, const Tensor& value_cache,
                               const Tensor& qkv, std::int64_t first, std::int64_t heads);

// What the device's kernels need beyond that.
/// On the device cuda and of one of these dtypes.
void check_on_cuda(std::string_view function, const Tensor& qkv, std::initializer_list<DType> dtypes);
/// A multiple of 8 up to 128: kernels move 16 bytes at a time and keep a row in registers.
void check_head_size(std::string_view function, std::int64_t head_size);
/// ... so tensors must begin at a multiple of 16 bytes (a slice need not).
void check_alignment(std::string_view function, std::initializer_list<const Tensor*> tensors);

}  // namespace llm
