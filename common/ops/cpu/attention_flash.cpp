// Causal multi-head attention that never stores the T x T scores (Milakov and Gimelshein 2018 for the running
// softmax; Dao et al. 2022 for attention in blocks, forward and backward). Chapter 3.
//
// 64 queries meet 64 keys at a time. The scores of such a block are 16 KB and stay in the first-level cache;
// a running maximum m and sum l per query repair what was added before the maximum was known. Of each row
// only lse = m + log l is saved; backward recomputes the weights as exp(score - lse).
//
// A head's parts are first copied out of (B, T, 3C) into rows of their own, padded with zeros to whole
// vectors and strips, so that the inner loops have no odd ends.
#include <algorithm>
#include <cmath>
#include <limits>

#include "common/core/threads.h"
#include "common/ops/cpu/block_product.h"
#include "common/ops/cpu/kernels.h"
#include "common/ops/cpu/scratch.h"
#include "common/ops/cpu/vec.h"

namespace llm::cpu {

namespace {

constexpr Index kBlock = 64;  // queries, and keys

Index round_up(Index n, Index multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

thread_local Scratch scratch;

/// (T, D) with `stride` between rows -> (padded T, padded D) times `scale`, zeros around.
void pack_rows(float* to, const float* from, Index stride, Index time, Index size, Index padded_time,
               Index padded_size, float scale) {
  for (Index t = 0; t < time; ++t) {
    float* row = to + t * padded_size;
    const float* source = from + t * stride;
#pragma GCC ivdep
    for (Index d = 0; d < size; ++d) row[d] = source[d] * scale;
    for (Index d = size; d < padded_size; ++d) row[d] = 0;
  }
  std::fill(to + time * padded_size, to + padded_time * padded_size, 0.0F);
}

/// (T, D) with `stride` between rows -> (D, padded T).
void pack_columns(float* to, const float* from, Index stride, Index time, Index size, Index padded_time) {
  constexpr Index kTile = 16;
  for (Index t0 = 0; t0 < padded_time; t0 += kTile)
    for (Index d = 0; d < size; ++d) {
      float* row = to + d * padded_time + t0;
      for (Index t = 0; t < kTile; ++t) row[t] = t0 + t < time ? from[(t0 + t) * stride + d] : 0.0F;
    }
}

/// Rows of (padded T, padded D) back into (T, D) with `stride` between rows, times `scale`.
void unpack_rows(float* to, Index stride, const float* from, Index time, Index size, Index padded_size,
                 float scale) {
  for (Index t = 0; t < time; ++t)
#pragma GCC ivdep
    for (Index d = 0; d < size; ++d) to[t * stride + d] = from[t * padded_size + d] * scale;
}

/// What every block of one head needs.
struct Head {
  Index time, size;                // T, D
  Index padded_time, padded_size;  // ... up to whole strips and vectors
  Index qkv, y, row;               // first element within (B, T, 3C), (B, T, C), (B, H, T)
  std::uint64_t dropout_index;     // of weight (0, 0)
};
Head head_of(Index index, const AttentionSize& s, const AttentionOptions& options) {
  const Index b = index / s.heads;
  const Index h = index % s.heads;
  return {s.time,
          s.head_size,
          round_up(s.time, kLanes),
          round_up(s.head_size, kLanes),
          b * s.time * 3 * s.channels() + h * s.head_size,
          b * s.time * s.channels() + h * s.head_size,
          index * s.time,
          options.first_index + static_cast<std::uint64_t>(index * s.time * s.time)};
}

/// The part of a block that the mask leaves: keys [key, key + keys) that queries [query, query + 8) may see,
/// to whole vectors.
Index visible_keys(Index query, Index key, Index keys) {
  return std::clamp<Index>(round_up(query + kStrip - key, kLanes), 0, keys);
}

/// scores (8, keys) of eight queries: q k^T, -inf where the key comes after the query.
void strip_scores(float* scores, const float* q, const float* k_columns, const Head& head, Index query,
                  Index key, Index keys) {
  strip_product(scores, kBlock, q + query * head.padded_size, head.padded_size, 1, k_columns + key,
                head.padded_time, keys, head.size, false);
  if (key + keys <= query + 1) return;
  for (Index i = 0; i < kStrip; ++i)
    for (Index j = std::max<Index>(0, query + i + 1 - key); j < keys; ++j)
      scores[i * kBlock + j] = -std::numeric_limits<float>::infinity();
}

/// Multiplies row `query` of a block's weights by the dropout's mask and scale.
void drop_row(float* weights, const Head& head, Index query, Index key, Index keys,
              const AttentionOptions& options) {
  float scale[kBlock];
  const auto first = head.dropout_index + static_cast<std::uint64_t>(query * head.time + key);
  dropout_scale(scale, keys, options.dropout, options.rng, first);
  for (Index j = 0; j < keys; ++j) weights[j] *= scale[j];
}

void forward_head(float* y, float* lse, const float* qkv, const Head& head, Index channels,
                  const AttentionOptions& options) {
  const Index size = head.padded_size;
  const auto [q, k_columns, v, out, weights] =
      scratch.cut({head.padded_time * size, head.size * head.padded_time, head.padded_time * size,
                   kStrip * size, kStrip * kBlock});
  const float* from = qkv + head.qkv;
  pack_rows(q, from, 3 * channels, head.time, head.size, head.padded_time, size,
            1.0F / std::sqrt(static_cast<float>(head.size)));
  pack_columns(k_columns, from + channels, 3 * channels, head.time, head.size, head.padded_time);
  pack_rows(v, from + 2 * channels, 3 * channels, head.time, head.size, head.padded_time, size, 1);

  for (Index query = 0; query < head.time; query += kStrip) {
    float running_max[kStrip], running_sum[kStrip];
    std::fill_n(running_max, kStrip, -std::numeric_limits<float>::infinity());
    std::fill_n(running_sum, kStrip, 0.0F);
    for (Index key = 0; key < query + kStrip; key += kBlock) {
      const Index keys = visible_keys(query, key, std::min(kBlock, head.padded_time - key));
      strip_scores(weights, q, k_columns, head, query, key, keys);
      for (Index i = 0; i < kStrip; ++i) {
        float* row = weights + i * kBlock;
        const float highest = std::max(running_max[i], row_max(row, keys));
        const float total = row_exp(row, row, keys, highest);
        const float repair = key == 0 ? 0 : std::exp(running_max[i] - highest);
        running_sum[i] = running_sum[i] * repair + total;
        running_max[i] = highest;
        if (key > 0)
          for (Index d = 0; d < size; d += kLanes)
            store(out + i * size + d, load(out + i * size + d) * repair);
        if (options.dropout > 0) drop_row(row, head, query + i, key, keys, options);
      }
      strip_product(out, size, weights, kBlock, 1, v + key * size, size, size, keys, key > 0);
    }
    for (Index i = 0; i < std::min(kStrip, head.time - query); ++i) {
      float* to = y + head.y + (query + i) * channels;
      const float over = 1.0F / running_sum[i];
#pragma GCC ivdep
      for (Index d = 0; d < head.size; ++d) to[d] = out[i * size + d] * over;
      lse[head.row + query + i] = running_max[i] + std::log(running_sum[i]);
    }
  }
}

// With P = exp(S - lse), M the dropout's mask and scale, and delta_i = y_i . dy_i (= sum_j P_ij dP_ij):
//   dV = (M P)^T dY,  dP = M (dY V^T),  dS = P (dP - delta),  dQ = dS K / sqrt(D),  dK = dS^T Q / sqrt(D).
void backward_head(float* dqkv, const float* dy, const float* y, const float* lse, const float* qkv,
                   const Head& head, Index channels, const AttentionOptions& options) {
  const Index size = head.padded_size;
  const Index rows = head.padded_time * size;
  const Index columns = head.size * head.padded_time;
  const auto [q, k, k_columns, v_columns, dout, dq, dk, dv, delta, p, ds] =
      scratch.cut({rows, rows, columns, columns, rows, rows, rows, rows, head.padded_time, kBlock * kBlock,
                   kBlock * kBlock});
  const float scale = 1.0F / std::sqrt(static_cast<float>(head.size));
  const float* from = qkv + head.qkv;
  pack_rows(q, from, 3 * channels, head.time, head.size, head.padded_time, size, scale);
  pack_rows(k, from + channels, 3 * channels, head.time, head.size, head.padded_time, size, 1);
  pack_columns(k_columns, from + channels, 3 * channels, head.time, head.size, head.padded_time);
  pack_columns(v_columns, from + 2 * channels, 3 * channels, head.time, head.size, head.padded_time);
  pack_rows(dout, dy + head.y, channels, head.time, head.size, head.padded_time, size, 1);
  std::fill_n(dq, rows, 0.0F);
  std::fill_n(dk, rows, 0.0F);
  std::fill_n(dv, rows, 0.0F);
  for (Index t = 0; t < head.padded_time; ++t) {
    float dot = 0;
    if (t < head.time)
      for (Index d = 0; d < head.size; ++d) dot += y[head.y + t * channels + d] * dout[t * size + d];
    delta[t] = dot;
  }

  for (Index key = 0; key < head.time; key += kBlock) {
    const Index all_keys = std::min(kBlock, head.padded_time - key);
    for (Index block = key; block < head.time; block += kBlock) {
      const Index queries = std::min(kBlock, head.padded_time - block);
      for (Index strip = 0; strip < queries; strip += kStrip) {
        const Index query = block + strip;
        const Index keys = visible_keys(query, key, all_keys);
        float* strip_p = p + strip * kBlock;
        float* strip_ds = ds + strip * kBlock;
        strip_scores(strip_p, q, k_columns, head, query, key, keys);
        strip_product(strip_ds, kBlock, dout + query * size, size, 1, v_columns + key, head.padded_time, keys,
                      head.size, false);
        for (Index i = 0; i < kStrip; ++i) {
          float* weights = strip_p + i * kBlock;
          float* grad = strip_ds + i * kBlock;
          const bool real = query + i < head.time;  // padded queries give nothing
          const float shift = real ? lse[head.row + query + i] : std::numeric_limits<float>::infinity();
          row_exp(weights, weights, keys, shift);
          if (options.dropout > 0) {
            float mask[kBlock];
            const auto first = head.dropout_index + static_cast<std::uint64_t>((query + i) * head.time + key);
            dropout_scale(mask, keys, options.dropout, options.rng, first);
            for (Index j = 0; j < keys; ++j) {
              grad[j] = weights[j] * (mask[j] * grad[j] - delta[query + i]);
              weights[j] *= mask[j];
            }
          } else {
            for (Index j = 0; j < keys; j += kLanes)
              store(grad + j, load(weights + j) * (load(grad + j) - delta[query + i]));
          }
        }
        // dQ (8, D) += dS (8, keys) K (keys, D)
        strip_product(dq + query * size, size, strip_ds, kBlock, 1, k + key * size, size, size, keys, true);
      }
      // dK, dV (keys, D) += dS^T Q, (M P)^T dY. On the diagonal, eight keys are seen by the queries from
      // theirs on.
      for (Index strip = 0; strip < all_keys; strip += kStrip) {
        const Index first = block == key ? strip : 0;
        const Index count = queries - first;
        if (count <= 0) continue;
        strip_product(dk + (key + strip) * size, size, ds + first * kBlock + strip, 1, kBlock,
                      q + (block + first) * size, size, size, count, true);
        strip_product(dv + (key + strip) * size, size, p + first * kBlock + strip, 1, kBlock,
                      dout + (block + first) * size, size, size, count, true);
      }
    }
  }
  float* to = dqkv + head.qkv;
  unpack_rows(to, 3 * channels, dq, head.time, head.size, size, scale);
  unpack_rows(to + channels, 3 * channels, dk, head.time, head.size, size, 1);  // q carries the scale already
  unpack_rows(to + 2 * channels, 3 * channels, dv, head.time, head.size, size, 1);
}

}  // namespace

void attention_flash_forward(float* y, float* lse, const float* qkv, const AttentionSize& s,
                             const AttentionOptions& options) {
  parallel_for(s.batch * s.heads, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i)
      forward_head(y, lse, qkv, head_of(i, s, options), s.channels(), options);
  });
}

void attention_flash_backward(float* dqkv, const float* dy, const float* y, const float* lse,
                              const float* qkv, const AttentionSize& s, const AttentionOptions& options) {
  parallel_for(s.batch * s.heads, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i)
      backward_head(dqkv, dy, y, lse, qkv, head_of(i, s, options), s.channels(), options);
  });
}

}  // namespace llm::cpu
