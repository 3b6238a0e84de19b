#include "common/ops/attention_checks.h"

#include "common/ops/checks.h"

namespace llm {

namespace {

AttentionSize attention_size(const Checks& check, const Tensor& qkv, std::int64_t heads) {
  check.rank("qkv", qkv, 3);
  llm::check(heads >= 1, "{}: the number of heads must be at least 1, got {}", check.function, heads);
  const std::int64_t width = qkv.dim(2);
  llm::check(width > 0 && width % (3 * heads) == 0,
             "{}: the last dimension of qkv must be a multiple of 3 x {} heads, but its shape is {}",
             check.function, heads, to_string(qkv.shape()));
  return {qkv.dim(0), qkv.dim(1), heads, width / (3 * heads)};
}

AttentionSize attention_size(const Checks& check, const Tensor& qkv, const AttentionOptions& options) {
  llm::check(options.dropout >= 0 && options.dropout < 1,
             "{}: the dropout must be at least 0 and less than 1, got {}", check.function, options.dropout);
  llm::check(options.all_heads == 0 || options.all_heads >= options.heads,
             "{}: {} heads cannot be a part of {}", check.function, options.heads, options.all_heads);
  return attention_size(check, qkv, options.heads);
}

/// Checks both caches (B, H, S, D); returns S.
std::int64_t cache_capacity(const Checks& check, const Tensor& key_cache, const Tensor& value_cache,
                            const AttentionSize& s) {
  check.rank("key_cache", key_cache, 4);
  const std::int64_t capacity = key_cache.dim(2);
  check.shape("key_cache", key_cache, {s.batch, s.heads, capacity, s.head_size});
  check.same_shape("value_cache", value_cache, "key_cache", key_cache);
  return capacity;
}

}  // namespace

AttentionSize check_naive_forward(std::string_view function, const Tensor& y, const Tensor& weights,
                                  const Tensor& qkv, const AttentionOptions& options) {
  const Checks check{function, "qkv", qkv};
  const AttentionSize s = attention_size(check, qkv, options);
  check.shape("y", y, {s.batch, s.time, s.channels()});
  check.shape("weights", weights, {s.batch, s.heads, s.time, s.time}, DType::f32);
  return s;
}

AttentionSize check_naive_backward(std::string_view function, const Tensor& dqkv, const Tensor& dy,
                                   const Tensor& weights, const Tensor& qkv,
                                   const AttentionOptions& options) {
  const Checks check{function, "qkv", qkv};
  const AttentionSize s = attention_size(check, qkv, options);
  check.same_shape("dqkv", dqkv, "qkv", qkv);
  check.shape("dy", dy, {s.batch, s.time, s.channels()});
  check.shape("weights", weights, {s.batch, s.heads, s.time, s.time}, DType::f32);
  return s;
}

AttentionSize check_flash_forward(std::string_view function, const Tensor& y, const Tensor& lse,
                                  const Tensor& qkv, const AttentionOptions& options) {
  const Checks check{function, "qkv", qkv};
  const AttentionSize s = attention_size(check, qkv, options);
  check.shape("y", y, {s.batch, s.time, s.channels()});
  check.shape("lse", lse, {s.batch, s.heads, s.time}, DType::f32);
  return s;
}

AttentionSize check_flash_backward(std::string_view function, const Tensor& dqkv, const Tensor& dy,
                                   const Tensor& y, const Tensor& lse, const Tensor& qkv,
                                   const AttentionOptions& options) {
  const Checks check{function, "qkv", qkv};
  const AttentionSize s = attention_size(check, qkv, options);
  check.same_shape("dqkv", dqkv, "qkv", qkv);
  check.shape("dy", dy, {s.batch, s.time, s.channels()});
  check.shape("y", y, {s.batch, s.time, s.channels()});
  check.shape("lse", lse, {s.batch, s.heads, s.time}, DType::f32);
  return s;
}

AttentionSize check_decode(std::string_view function, const Tensor& y, const Tensor& key_cache,
                           const Tensor& value_cache, const Tensor& qkv, std::int64_t length,
                           std::int64_t heads) {
  const Checks check{function, "qkv", qkv};
  const AttentionSize s = attention_size(check, qkv, heads);
  check.shape("qkv", qkv, {s.batch, 1, 3 * s.channels()});
  check.shape("y", y, {s.batch, 1, s.channels()});
  const std::int64_t capacity = cache_capacity(check, key_cache, value_cache, s);
  llm::check(length >= 0 && length < capacity, "{}: position {} is not within caches of {} positions",
             function, length, capacity);
  return s;
}

AttentionSize check_fill_cache(std::string_view function, const Tensor& key_cache, const Tensor& value_cache,
                               const Tensor& qkv, std::int64_t first, std::int64_t heads) {
  const Checks check{function, "qkv", qkv};
  const AttentionSize s = attention_size(check, qkv, heads);
  const std::int64_t capacity = cache_capacity(check, key_cache, value_cache, s);
  llm::check(first >= 0 && first + s.time <= capacity,
             "{}: positions {} to {} are not within caches of {} positions", function, first, first + s.time,
             capacity);
  return s;
}

void check_on_cuda(std::string_view function, const Tensor& qkv, std::initializer_list<DType> dtypes) {
  check(qkv.device() == Device::cuda, "{}: qkv must be on cuda, but it is on {}", function,
        name(qkv.device()));
  for (const DType dtype : dtypes)
    if (qkv.dtype() == dtype) return;
  fail("{}: qkv must be {}, but it is {}", function, name(*dtypes.begin()), name(qkv.dtype()));
}

void check_head_size(std::string_view function, std::int64_t head_size) {
  check(head_size % 8 == 0 && head_size <= 128,
        "{}: a head must have a multiple of 8 channels and at most 128 on the device, but it has {}",
        function, head_size);
}

void check_alignment(std::string_view function, std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* t : tensors)
    check(reinterpret_cast<std::uintptr_t>(t->raw()) % 16 == 0,
          "{}: a tensor of shape {} does not begin at a multiple of 16 bytes, as the device's kernels need",
          function, to_string(t->shape()));
}

}  // namespace llm
