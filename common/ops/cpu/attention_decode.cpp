// Attention while generating: one new query per sequence over the keys and values kept from before.
// Chapter 5; chapter 7 for sequences of different lengths.
#include <algorithm>
#include <cmath>
#include <vector>

#include "common/core/threads.h"
#include "common/ops/cpu/decode.h"
#include "common/ops/cpu/vec.h"

namespace llm::cpu {

namespace {

float dot(const float* a, const float* b, Index count) {
  Vec total = {};
  Index i = 0;
  for (; i + kLanes <= count; i += kLanes) total += load(a + i) * load(b + i);
  if (i < count) total += load_part(a + i, count - i) * load_part(b + i, count - i);
  return sum(total);
}

}  // namespace

void attention_fill_cache(float* key_cache, float* value_cache, const float* qkv, Index capacity, Index first,
                          const AttentionSize& s) {
  for (Index i = 0; i < s.batch * s.heads; ++i) {
    const float* from = qkv + i / s.heads * s.time * 3 * s.channels() + i % s.heads * s.head_size;
    const Index to = (i * capacity + first) * s.head_size;
    for (Index t = 0; t < s.time; ++t) {
      const float* row = from + t * 3 * s.channels();
      std::copy_n(row + s.channels(), s.head_size, key_cache + to + t * s.head_size);
      std::copy_n(row + 2 * s.channels(), s.head_size, value_cache + to + t * s.head_size);
    }
  }
}

void attention_decode(float* y, float* key_cache, float* value_cache, const float* qkv, Index capacity,
                      std::span<const CachePlace> places, const AttentionSize& s) {
  if (places.empty()) return;
  const float scale = 1.0F / std::sqrt(static_cast<float>(s.head_size));
  Index positions = 0;
  for (const CachePlace& place : places) positions += place.length + 1;
  // A thread is worth waking for some 16384 products.
  const Index grain = 1 + 16384 * s.batch / (positions * s.head_size);
  parallel_for(s.batch * s.heads, grain, [&](Index begin, Index end) {
    static thread_local std::vector<float> weights;
    for (Index i = begin; i < end; ++i) {
      const auto [row, length] = places[static_cast<std::size_t>(i / s.heads)];
      const float* q = qkv + i / s.heads * 3 * s.channels() + i % s.heads * s.head_size;
      float* keys = key_cache + (row * s.heads + i % s.heads) * capacity * s.head_size;
      float* values = value_cache + (row * s.heads + i % s.heads) * capacity * s.head_size;
      float* out = y + i * s.head_size;
      std::copy_n(q + s.channels(), s.head_size, keys + length * s.head_size);
      std::copy_n(q + 2 * s.channels(), s.head_size, values + length * s.head_size);
      weights.resize(std::max(weights.size(), static_cast<std::size_t>(length + 1)));
      for (Index t = 0; t <= length; ++t)
        weights[static_cast<std::size_t>(t)] = scale * dot(q, keys + t * s.head_size, s.head_size);
      float* p = weights.data();
      const float total = row_exp(p, p, length + 1, row_max(p, length + 1));
      std::fill_n(out, s.head_size, 0.0F);
      for (Index t = 0; t <= length; ++t) {
        const float weight = p[t] / total;
        const float* value = values + t * s.head_size;
#pragma GCC ivdep
        for (Index d = 0; d < s.head_size; ++d) out[d] += weight * value[d];
      }
    }
  });
}

void attention_decode(float* y, float* key_cache, float* value_cache, const float* qkv, Index capacity,
                      Index length, const AttentionSize& s) {
  std::vector<CachePlace> places;
  for (Index b = 0; b < s.batch; ++b) places.push_back({b, length});
  attention_decode(y, key_cache, value_cache, qkv, capacity, places, s);
}

}  // namespace llm::cpu
