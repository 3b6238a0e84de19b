// Attention: which function computes. Chapter 3.
#include "common/ops/attention_checks.h"
#include "common/ops/cpu/kernels.h"
#include "common/ops/cuda/attention.h"
#include "common/ops/ops.h"

namespace llm {

namespace {

bool on_cuda(const Tensor& qkv) {
  return qkv.device() == Device::cuda;
}
/// bf16 goes to the tensor cores.
bool on_tensor_cores(const Tensor& qkv) {
  return on_cuda(qkv) && qkv.dtype() == DType::bf16;
}

}  // namespace

void attention_naive_forward(const Tensor& y, const Tensor& weights, const Tensor& qkv,
                             const AttentionOptions& options) {
  if (on_cuda(qkv)) return cuda::attention_naive_forward(y, weights, qkv, options);
  const AttentionSize s = check_naive_forward("attention_naive_forward", y, weights, qkv, options);
  cpu::attention_naive_forward(y.data(), weights.data(), qkv.data(), s, options);
}

void attention_naive_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& weights, const Tensor& qkv,
                              const AttentionOptions& options) {
  if (on_cuda(qkv)) return cuda::attention_naive_backward(dqkv, dy, weights, qkv, options);
  const AttentionSize s = check_naive_backward("attention_naive_backward", dqkv, dy, weights, qkv, options);
  cpu::attention_naive_backward(dqkv.data(), dy.data(), weights.data(), qkv.data(), s, options);
}

void attention_flash_forward(const Tensor& y, const Tensor& lse, const Tensor& qkv,
                             const AttentionOptions& options) {
  if (on_tensor_cores(qkv)) return cuda::attention_flash_mma_forward(y, lse, qkv, options);
  if (on_cuda(qkv)) return cuda::attention_flash_forward(y, lse, qkv, options);
  const AttentionSize s = check_flash_forward("attention_flash_forward", y, lse, qkv, options);
  cpu::attention_flash_forward(y.data(), lse.data(), qkv.data(), s, options);
}

void attention_flash_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& y, const Tensor& lse,
                              const Tensor& qkv, const AttentionOptions& options) {
  if (on_tensor_cores(qkv)) return cuda::attention_flash_mma_backward(dqkv, dy, y, lse, qkv, options);
  if (on_cuda(qkv)) return cuda::attention_flash_backward(dqkv, dy, y, lse, qkv, options);
  const AttentionSize s = check_flash_backward("attention_flash_backward", dqkv, dy, y, lse, qkv, options);
  cpu::attention_flash_backward(dqkv.data(), dy.data(), y.data(), lse.data(), qkv.data(), s, options);
}

void attention_decode(const Tensor& y, const Tensor& key_cache, const Tensor& value_cache, const Tensor& qkv,
                      std::int64_t length, std::int64_t heads) {
  if (on_cuda(qkv)) return cuda::attention_decode(y, key_cache, value_cache, qkv, length, heads);
  const AttentionSize s = check_decode("attention_decode", y, key_cache, value_cache, qkv, length, heads);
  cpu::attention_decode(y.data(), key_cache.data(), value_cache.data(), qkv.data(), key_cache.dim(2), length,
                        s);
}

void attention_fill_cache(const Tensor& key_cache, const Tensor& value_cache, const Tensor& qkv,
                          std::int64_t first, std::int64_t heads) {
  if (on_cuda(qkv)) return cuda::attention_fill_cache(key_cache, value_cache, qkv, first, heads);
  const AttentionSize s = check_fill_cache("attention_fill_cache", key_cache, value_cache, qkv, first, heads);
  cpu::attention_fill_cache(key_cache.data(), value_cache.data(), qkv.data(), key_cache.dim(2), first, s);
}

}  // namespace llm
