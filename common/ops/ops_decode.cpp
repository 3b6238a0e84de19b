// Primitives of generation: checks, and which function computes. See ops_decode.h.
#include "common/ops/ops_decode.h"

#include "common/ops/attention_checks.h"
#include "common/ops/checks.h"
#include "common/ops/cpu/decode.h"
#include "common/ops/ops.h"

namespace llm {

void linear_decode(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& b) {
  if (x.device() == Device::cuda) return linear_forward(y, x, w, b);
  const Checks check{"linear_decode", "x", x};
  check.rank("w", w, 2);
  const std::int64_t out = w.dim(0), in = w.dim(1);
  const std::int64_t rows = check.rows("x", x, in);
  check.same_rows("y", y, out, rows);
  if (b.defined()) check.shape("b", b, {out});
  cpu::linear_decode(y.data(), x.data(), w.data(), b.defined() ? b.data() : nullptr, rows, in, out);
}

void attention_decode(const Tensor& y, const Tensor& key_cache, const Tensor& value_cache, const Tensor& qkv,
                      std::span<const CachePlace> places, std::int64_t heads) {
  const Checks check{"attention_decode", "qkv", qkv};
  check.rank("key_cache", key_cache, 4);
  const std::int64_t rows = key_cache.dim(0), H = key_cache.dim(1), S = key_cache.dim(2),
                     D = key_cache.dim(3);
  const auto N = static_cast<std::int64_t>(places.size());
  llm::check(heads == H, "attention_decode: the caches are of {} heads, not of {}", H, heads);
  check.same_shape("value_cache", value_cache, "key_cache", key_cache);
  check.shape("qkv", qkv, {N, 1, 3 * H * D});
  check.shape("y", y, {N, 1, H * D});
  for (std::size_t i = 0; i < places.size(); ++i) {
    const auto [row, length] = places[i];
    llm::check(row >= 0 && row < rows && length >= 0 && length < S,
               "attention_decode: row {}, position {} is not within caches of {} rows and {} positions", row,
               length, rows, S);
    for (std::size_t j = 0; j < i; ++j)
      llm::check(places[j].row != row, "attention_decode: row {} is there twice", row);
  }
  if (qkv.device() == Device::cpu)
    return cpu::attention_decode(y.data(), key_cache.data(), value_cache.data(), qkv.data(), S, places,
                                 {N, 1, H, D});
  // One launch per sequence: how a head is cut into pieces depends on the number of heads in the launch, and
  // no result may depend on the batch.
  for (std::int64_t i = 0; i < N; ++i) {
    const auto [row, length] = places[static_cast<std::size_t>(i)];
    attention_decode(y.slice(i, i + 1), key_cache.slice(row, row + 1), value_cache.slice(row, row + 1),
                     qkv.slice(i, i + 1), length, heads);
  }
}

}  // namespace llm
