// Generation's forward pass: new tokens only, over the keys and values of all earlier ones. Chapter 4 (and
// chapter 5, which generates).
#include "common/core/error.h"
#include "common/model/gpt.h"
#include "common/ops/ops.h"

namespace llm {

KvCache GptStage::make_cache(std::int64_t batch, std::int64_t capacity) const {
  check(batch >= 1, "a cache needs at least one sequence, got {}", batch);
  check(capacity >= 1 && capacity <= config_.context,
        "a cache of {} positions does not fit the model's context of {}", capacity, config_.context);
  KvCache cache;
  cache.capacity = capacity;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const Shape shape{batch, config_.heads, capacity, config_.head_size()};
    cache.keys.emplace_back(shape, placement_.dtype, placement_.device);
    cache.values.emplace_back(shape, placement_.dtype, placement_.device);
  }
  return cache;
}

void GptStage::decode(const Tensor& logits, KvCache& cache, const Tensor& tokens) const {
  check(has_embedding() && has_head() && !split(), "only a whole model generates");
  check(tokens.rank() == 2 && tokens.dtype() == DType::i32 && tokens.numel() > 0,
        "decode reads tokens (B, T) i32, got {} {}", name(tokens.dtype()), to_string(tokens.shape()));
  const std::int64_t B = tokens.dim(0);
  const std::int64_t T = tokens.dim(1);
  check(cache.keys.size() == blocks_.size() && cache.keys.front().dim(0) == B,
        "the cache is not of this model and {} sequences", B);
  check(cache.length + T <= cache.capacity, "{} tokens do not fit into a cache that holds {} of {} positions",
        T, cache.length, cache.capacity);
  if (cache.length > 0 && T > 1) {  // one by one: each attends to all before it
    Tensor column = Tensor::uninitialized({B, 1}, DType::i32);
    for (std::int64_t t = 0; t < T; ++t) {
      for (std::int64_t b = 0; b < B; ++b)
        column.data<std::int32_t>()[b] = tokens.data<std::int32_t>()[b * T + t];
      decode(logits, cache, column);
    }
    return;
  }

  // The first position of each sequence is the same, and the next ones too.
  const auto attention = [&](std::size_t layer, const Tensor& y, const Tensor& lse, const Tensor& qkv) {
    if (T == 1) {
      attention_decode(y, cache.keys[layer], cache.values[layer], qkv, cache.length, config_.heads);
    } else {
      attention_flash_forward(y, lse, qkv, {.heads = config_.heads});
      attention_fill_cache(cache.keys[layer], cache.values[layer], qkv, 0, config_.heads);
    }
  };
  const auto embedding = [&](const Tensor& stream) {
    embedding_forward(stream, tokens.to(placement_.device), value(token_embedding_),
                      value(position_embedding_), cache.length);
  };
  decode_layers(logits, cache.scratch, B, T, embedding, attention);
  cache.length += T;
}

void GptStage::decode(const Tensor& logits, KvCache& cache, const Tensor& tokens,
                      std::span<const CachePlace> places) const {
  check(has_embedding() && has_head(), "only a whole model generates");
  const auto N = static_cast<std::int64_t>(places.size());
  check(tokens.dtype() == DType::i32 && tokens.shape() == Shape({N, 1}),
        "decode reads a token for each of {} places, got {} {}", N, name(tokens.dtype()),
        to_string(tokens.shape()));
  check(cache.keys.size() == blocks_.size(), "the cache is not of this model");
  if (N == 0) return;
  const auto attention = [&](std::size_t layer, const Tensor& y, const Tensor&, const Tensor& qkv) {
    attention_decode(y, cache.keys[layer], cache.values[layer], qkv, places, config_.heads);
  };
  const auto embedding = [&](const Tensor& stream) {
    const Tensor there = tokens.to(placement_.device);
    for (std::int64_t i = 0; i < N; ++i)
      embedding_forward(stream.slice(i, i + 1), there.slice(i, i + 1), value(token_embedding_),
                        value(position_embedding_), places[static_cast<std::size_t>(i)].length);
  };
  decode_layers(logits, cache.scratch, N, 1, embedding, attention);
}

KvCache KvCache::rows(std::int64_t begin, std::int64_t end) const {
  KvCache part;
  for (const Tensor& k : keys) part.keys.push_back(k.slice(begin, end));
  for (const Tensor& v : values) part.values.push_back(v.slice(begin, end));
  part.capacity = capacity;
  return part;
}

template <typename Embedding, typename Attention>
void GptStage::decode_layers(const Tensor& logits, ActivationMemory& scratch, std::int64_t B, std::int64_t T,
                             const Embedding& embedding, const Attention& attention) const {
  // Scratch side by side, kept from call to call.
  const std::int64_t C = config_.channels, M = config_.mlp_width(), N = B * T;
  const std::int64_t needed = N * (7 * C + M) + B * C, statistics = N * (config_.heads + 2);
  if (scratch.values.numel() < needed || scratch.statistics.numel() < statistics) {
    scratch.values = Tensor({needed}, placement_.dtype, placement_.device);
    scratch.statistics = Tensor({statistics}, DType::f32, placement_.device);
  }
  std::int64_t used = 0, used_statistics = 0;
  const auto take = [&](const Shape& shape) {
    Tensor t = scratch.values.range(used, shape);
    used += t.numel();
    return t;
  };
  const auto take_statistics = [&](const Shape& shape) {
    Tensor t = scratch.statistics.range(used_statistics, shape);
    used_statistics += t.numel();
    return t;
  };
  const Tensor stream = take({B, T, C});
  const Tensor branch = take({B, T, C});
  const Tensor norm = take({B, T, C});
  const Tensor qkv = take({B, T, 3 * C});
  const Tensor context = take({B, T, C});
  const Tensor hidden = take({B, T, M});
  const Tensor last = take({B, C});
  const Tensor lse = take_statistics({B, config_.heads, T});
  const Tensor mean = take_statistics({N});
  const Tensor rstd = take_statistics({N});

  // Where each sequence has one token, no row's bits depend on the number of rows.
  const auto layer = [&](const Tensor& y, const Tensor& x, std::size_t weight, std::size_t bias) {
    T == 1 ? linear_decode(y, x, value(weight), value(bias))
           : linear_forward(y, x, value(weight), value(bias));
    if (adapter_) adapter_->forward(y, x, weight, {});
  };
  embedding(stream);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const BlockParameters& p = blocks_[i];
    layer_norm_forward(norm, mean, rstd, stream, value(p.norm1_weight), value(p.norm1_bias),
                       config_.layer_norm_eps);
    layer(qkv, norm, p.qkv_weight, p.qkv_bias);
    attention(i, context, lse, qkv);
    layer(branch, context, p.out_weight, p.out_bias);
    add(stream, stream, branch);
    layer_norm_forward(norm, mean, rstd, stream, value(p.norm2_weight), value(p.norm2_bias),
                       config_.layer_norm_eps);
    layer(hidden, norm, p.up_weight, p.up_bias);
    gelu_forward(hidden, hidden);
    layer(branch, hidden, p.down_weight, p.down_bias);
    add(stream, stream, branch);
  }

  for (std::int64_t b = 0; b < B; ++b) last.slice(b, b + 1).copy_from(stream.range((b * T + T - 1) * C, {C}));
  const Tensor last_norm = branch.range(0, {B, C});
  layer_norm_forward(last_norm, mean.slice(0, B), rstd.slice(0, B), last, value(final_norm_weight_),
                     value(final_norm_bias_), config_.layer_norm_eps);
  head_logits(logits, last_norm, true);
}

}  // namespace llm
