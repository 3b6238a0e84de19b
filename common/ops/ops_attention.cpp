// The checks of attention. Chapter 3.
#include "common/ops/checks.h"
#include "common/ops/cpu/kernels.h"
#include "common/ops/ops.h"

namespace llm {

namespace {

/// The sizes of qkv (B, T, 3C) cut into heads.
cpu::AttentionSize attention_size(const Checks& check, const Tensor& qkv, std::int64_t heads) {
  check.rank("qkv", qkv, 3);
  llm::check(!check.on_cuda(), "{}: there is no kernel for device cuda yet, where qkv is", check.function);
  llm::check(heads >= 1, "{}: the number of heads must be at least 1, got {}", check.function, heads);
  const std::int64_t width = qkv.dim(2);
  llm::check(width > 0 && width % (3 * heads) == 0,
             "{}: the last dimension of qkv must be a multiple of 3 x {} heads, but its shape is {}",
             check.function, heads, to_string(qkv.shape()));
  return {qkv.dim(0), qkv.dim(1), heads, width / (3 * heads)};
}

cpu::AttentionSize attention_size(const Checks& check, const Tensor& qkv, const AttentionOptions& options) {
  llm::check(options.dropout >= 0 && options.dropout < 1,
             "{}: the dropout must be at least 0 and less than 1, got {}", check.function, options.dropout);
  return attention_size(check, qkv, options.heads);
}

/// Checks both caches (B, H, S, D); returns S.
std::int64_t cache_capacity(const Checks& check, const Tensor& key_cache, const Tensor& value_cache,
                            const cpu::AttentionSize& s) {
  check.rank("key_cache", key_cache, 4);
  const std::int64_t capacity = key_cache.dim(2);
  check.shape("key_cache", key_cache, {s.batch, s.heads, capacity, s.head_size});
  check.same_shape("value_cache", value_cache, "key_cache", key_cache);
  return capacity;
}

}  // namespace

void attention_naive_forward(const Tensor& y, const Tensor& weights, const Tensor& qkv,
                             const AttentionOptions& options) {
  const Checks check{"attention_naive_forward", "qkv", qkv};
  const auto s = attention_size(check, qkv, options);
  check.shape("y", y, {s.batch, s.time, s.channels()});
  check.shape("weights", weights, {s.batch, s.heads, s.time, s.time});
  cpu::attention_naive_forward(y.data(), weights.data(), qkv.data(), s, options);
}

void attention_naive_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& weights, const Tensor& qkv,
                              const AttentionOptions& options) {
  const Checks check{"attention_naive_backward", "qkv", qkv};
  const auto s = attention_size(check, qkv, options);
  check.same_shape("dqkv", dqkv, "qkv", qkv);
  check.shape("dy", dy, {s.batch, s.time, s.channels()});
  check.shape("weights", weights, {s.batch, s.heads, s.time, s.time});
  cpu::attention_naive_backward(dqkv.data(), dy.data(), weights.data(), qkv.data(), s, options);
}

void attention_flash_forward(const Tensor& y, const Tensor& lse, const Tensor& qkv,
                             const AttentionOptions& options) {
  const Checks check{"attention_flash_forward", "qkv", qkv};
  const auto s = attention_size(check, qkv, options);
  check.shape("y", y, {s.batch, s.time, s.channels()});
  check.shape("lse", lse, {s.batch, s.heads, s.time}, DType::f32);
  cpu::attention_flash_forward(y.data(), lse.data(), qkv.data(), s, options);
}

void attention_flash_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& y, const Tensor& lse,
                              const Tensor& qkv, const AttentionOptions& options) {
  const Checks check{"attention_flash_backward", "qkv", qkv};
  const auto s = attention_size(check, qkv, options);
  check.same_shape("dqkv", dqkv, "qkv", qkv);
  check.shape("dy", dy, {s.batch, s.time, s.channels()});
  check.shape("y", y, {s.batch, s.time, s.channels()});
  check.shape("lse", lse, {s.batch, s.heads, s.time}, DType::f32);
  cpu::attention_flash_backward(dqkv.data(), dy.data(), y.data(), lse.data(), qkv.data(), s, options);
}

void attention_decode(const Tensor& y, const Tensor& key_cache, const Tensor& value_cache, const Tensor& qkv,
                      std::int64_t length, std::int64_t heads) {
  const Checks check{"attention_decode", "qkv", qkv};
  const auto s = attention_size(check, qkv, heads);
  check.shape("qkv", qkv, {s.batch, 1, 3 * s.channels()});
  check.shape("y", y, {s.batch, 1, s.channels()});
  const std::int64_t capacity = cache_capacity(check, key_cache, value_cache, s);
  llm::check(length >= 0 && length < capacity,
             "attention_decode: position {} is not within caches of {} positions", length, capacity);
  cpu::attention_decode(y.data(), key_cache.data(), value_cache.data(), qkv.data(), capacity, length, s);
}

void attention_fill_cache(const Tensor& key_cache, const Tensor& value_cache, const Tensor& qkv,
                          std::int64_t first, std::int64_t heads) {
  const Checks check{"attention_fill_cache", "qkv", qkv};
  const auto s = attention_size(check, qkv, heads);
  const std::int64_t capacity = cache_capacity(check, key_cache, value_cache, s);
  llm::check(first >= 0 && first + s.time <= capacity,
             "attention_fill_cache: positions {} to {} are not within caches of {} positions", first,
             first + s.time, capacity);
  cpu::attention_fill_cache(key_cache.data(), value_cache.data(), qkv.data(), capacity, first, s);
}

}  // namespace llm
