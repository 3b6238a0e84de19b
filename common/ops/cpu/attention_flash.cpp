// Causal multi-head attention that never stores the T x T scores (Milakov and Gimelshein 2018 for the running
// softmax; Dao et al. 2022 for attention in blocks, forward and backward). Chapter 3.
//
// 64 queries meet 64 keys at a time. The scores of such a block are 16 KB and stay in the first-level cache;
// a running maximum m and sum l per query repair what was added before the maximum was known. Of each row
// only lse = m + log l is saved; backward recomputes the weights as exp(score - lse).
//
// A head's parts are first copied out of (B, T, 3C) into rows of their own, padded with zeros to whole
// vectors and strips, so that the inner loops have no odd ends.
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>

#include "common/core/threads.h"
#include "common/ops/cpu/block_product.h"
#include "common/ops/cpu/kernels.h"
#include "common/ops/cpu/scratch.h"
#include "common/ops/cpu/transpose.h"
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
  const Index whole = size / kLanes * kLanes;
  for (Index t = 0; t < time; ++t, to += padded_size, from += stride) {
    for (Index d = 0; d < whole; d += kLanes) store(to + d, load(from + d) * scale);
    if (whole < size) store(to + whole, load_part(from + whole, size - whole) * scale);
  }
  std::fill(to, to + (padded_time - time) * padded_size, 0.0F);
}

/// (T, D) with `stride` between rows -> blocks of 64 positions, each (D, 64).
void pack_columns(float* to, const float* from, Index stride, Index time, Index size) {
  for (Index t = 0; t < time; t += kLanes)
    transpose_block(to + t / kBlock * kBlock * size + t % kBlock, kBlock, from + t * stride, stride,
                    std::min(kLanes, time - t), size);
}

/// Rows of (padded T, padded D) back into (T, D) with `stride` between rows, times `scale`.
void unpack_rows(float* to, Index stride, const float* from, Index time, Index size, Index padded_size,
                 float scale) {
  const Index whole = size / kLanes * kLanes;
  for (Index t = 0; t < time; ++t, to += stride, from += padded_size) {
    for (Index d = 0; d < whole; d += kLanes) store(to + d, load(from + d) * scale);
    if (whole < size) store_part(to + whole, load(from + whole) * scale, size - whole);
  }
}

/// delta (padded T) = y . dy, row by row, where y (T, D) has `stride` between rows and dy is packed.
void row_dots(float* delta, const float* y, Index stride, const float* dy, Index time, Index size,
              Index padded_size) {
  for (Index first = 0; first < time; first += kLanes) {
    Vec row[kLanes] = {};
    for (Index r = 0; r < std::min(kLanes, time - first); ++r)
      for (Index d = 0; d < size; d += kLanes)
        row[r] +=
            load_up_to(y + (first + r) * stride + d, size - d) * load(dy + (first + r) * padded_size + d);
    store(delta + first, reduce_rows(row, [](const Vec& a, const Vec& b) { return a + b; }));
  }
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
          options.first_index + static_cast<std::uint64_t>(numbered_head(index, options) * s.time * s.time)};
}

/// A block: 64 queries from `query` on and 64 keys from `key` on, or what there is of them, in whole strips
/// of queries and whole vectors of keys.
struct Block {
  Index query, key, queries, keys;

  /// Whether the mask cuts through it: then keys after a strip's last query are left out, ...
  bool diagonal() const { return key == query; }
  /// ... so many of the keys have a weight for one of the eight queries from `strip` on, ...
  Index weighted(Index strip) const { return diagonal() ? std::min(keys, strip + kStrip) : keys; }
  /// ... and so many, to whole vectors, have a score.
  Index visible(Index strip) const { return round_up(weighted(strip), kLanes); }
  Index visible_to(Index query_of_block) const { return visible(query_of_block / kStrip * kStrip); }
  /// The first query that sees the eight keys from `strip` on.
  Index first_query(Index strip) const { return diagonal() ? strip : 0; }
};

/// Rows [first, first + 8) of (T, D) with `stride` between them, to be in the first-level cache when their
/// turn comes: of stretches this short and far apart the processor fetches none ahead by itself. (Inline: g++
/// takes a function that only asks for data for one that does nothing.)
template <bool write>
[[gnu::always_inline]] inline void fetch_ahead(const float* from, Index stride, Index first,
                                               const Head& head) {
  constexpr Index kLine = 16;
  const Index end = std::min(head.time, first + kStrip);
  for (Index t = first; t < end; ++t)
    for (Index d = 0; d < head.size; d += kLine) __builtin_prefetch(from + t * stride + d, write);
}

/// The same of q, k and v, or of their gradients, which lie side by side in (B, T, 3C).
template <bool write>
[[gnu::always_inline]] inline void fetch_qkv_ahead(const float* qkv, Index channels, Index first,
                                                   const Head& head) {
  for (Index part = 0; part < 3; ++part)
    fetch_ahead<write>(qkv + head.qkv + part * channels, 3 * channels, first, head);
}

/// scores (64, 64) = q k^T, also for the few keys of a strip's last vector that the mask will take away.
void block_scores(float* scores, const float* q, const float* k_columns, const Head& head,
                  const Block& block) {
  for (Index strip = 0; strip < block.queries; strip += kStrip)
    strip_product(scores + strip * kBlock, kBlock, q + (block.query + strip) * head.padded_size,
                  head.padded_size, 1, k_columns + block.key * head.size, kBlock, block.visible(strip),
                  head.size, false);
}

/// Vector j of row i of a block of scores: -inf where the key comes after the query.
[[gnu::always_inline]] inline Vec masked(const float* scores, const Block& block, Index i, Index j) {
  const Vec score = load(scores + i * kBlock + j);
  if (!block.diagonal() || j + kLanes <= i + 1) return score;
  return first_lanes(score, static_cast<std::int32_t>(i - j + 1), -std::numeric_limits<float>::infinity());
}

/// The dropout's mask and scale for `count` keys from block.key on, of row i of the block.
void block_mask(float* mask, const Head& head, const Block& block, Index i, Index count,
                const AttentionOptions& options) {
  const auto first =
      head.dropout_index + static_cast<std::uint64_t>((block.query + i) * head.time + block.key);
  dropout_scale(mask, count, options.dropout, options.rng, first);
}

/// Turns a block of scores into exp(score - maximum), where `maximum` (64 queries) grows to cover this block,
/// adds them to `total`, and gives in `repair` what everything added before must be multiplied with.
void block_softmax(float* weights, float* maximum, float* total, float* repair, const Block& block) {
  for (Index i = 0; i < block.queries; i += kLanes) {
    Vec row[kLanes];
    for (Index r = 0; r < kLanes; ++r) {
      row[r] = masked(weights, block, i + r, 0);
      const Index count = block.visible_to(i + r);
      for (Index j = kLanes; j < count; j += kLanes) row[r] = max(row[r], masked(weights, block, i + r, j));
    }
    const Vec highest =
        max(load(maximum + i), reduce_rows(row, [](const Vec& a, const Vec& b) { return max(a, b); }));
    const Vec factor = exp_nonpositive(load(maximum + i) - highest);
    store(maximum + i, highest);
    store(repair + i, factor);
    for (Index r = 0; r < kLanes; ++r) {
      row[r] = Vec{};
      const Index count = block.visible_to(i + r);
      for (Index j = 0; j < count; j += kLanes) {
        const Vec weight = exp_nonpositive(masked(weights, block, i + r, j) - maximum[i + r]);
        store(weights + (i + r) * kBlock + j, weight);
        row[r] += weight;
      }
    }
    store(total + i,
          load(total + i) * factor + reduce_rows(row, [](const Vec& a, const Vec& b) { return a + b; }));
  }
}

void forward_head(float* y, float* lse, const float* qkv, const Head& head, const Head& next, Index channels,
                  const AttentionOptions& options) {
  const Index size = head.padded_size;
  const Index rows = head.padded_time * size;
  const auto [q, k_columns, v, out, weights, maximum, total, repair] =
      scratch.cut({rows, round_up(head.time, kBlock) * head.size, rows, kBlock * size, kBlock * kBlock,
                   kBlock, kBlock, kBlock});
  const float* from = qkv + head.qkv;
  pack_rows(q, from, 3 * channels, head.time, head.size, head.padded_time, size,
            1.0F / std::sqrt(static_cast<float>(head.size)));
  pack_columns(k_columns, from + channels, 3 * channels, head.time, head.size);
  pack_rows(v, from + 2 * channels, 3 * channels, head.time, head.size, head.padded_time, size, 1);

  for (Index query = 0; query < head.time; query += kBlock) {
    std::fill_n(maximum, kBlock, -std::numeric_limits<float>::infinity());
    std::fill_n(total, kBlock, 0.0F);
    for (Index key = 0; key <= query; key += kBlock) {
      const Block block{query, key, std::min(kBlock, head.padded_time - query),
                        std::min(kBlock, head.padded_time - key)};
      block_scores(weights, q, k_columns, head, block);
      block_softmax(weights, maximum, total, repair, block);
      if (key > 0)
        for (Index i = 0; i < block.queries; ++i)
          for (Index d = 0; d < size; d += kLanes)
            store(out + i * size + d, load(out + i * size + d) * repair[i]);
      if (options.dropout > 0)
        for (Index i = 0; i < block.queries; ++i) {
          float mask[kBlock];
          const Index count = block.visible_to(i);
          block_mask(mask, head, block, i, count, options);
          for (Index j = 0; j < count; ++j) weights[i * kBlock + j] *= mask[j];
        }
      for (Index strip = 0; strip < block.queries; strip += kStrip) {  // (8, keys) (keys, D)
        if (key == 0) {
          fetch_qkv_ahead<false>(qkv, channels, query + strip, next);
          fetch_ahead<true>(y + head.y, channels, query + strip, head);
        }
        strip_product(out + strip * size, size, weights + strip * kBlock, kBlock, 1, v + key * size, size,
                      size, block.weighted(strip), key > 0);
      }
    }
    const Index real = std::min(kBlock, head.time - query);
    using Array = Eigen::Array<float, Eigen::Dynamic, 1>;
    Eigen::Map<Array>(lse + head.row + query, real) =
        Eigen::Map<const Array>(maximum, real) + Eigen::Map<const Array>(total, real).log();
    for (Index i = 0; i < real; ++i)
      unpack_rows(y + head.y + (query + i) * channels, channels, out + i * size, 1, head.size, size,
                  1.0F / total[i]);
  }
}

/// Scores (64, 64) -> weights p = exp(score - lse); dp -> ds = p (M dp - delta), p -> M p with M the
/// dropout's mask and scale (1 without).
void block_softmax_backward(float* p, float* ds, const float* lse, const float* delta, const Head& head,
                            const Block& block, const AttentionOptions& options) {
  for (Index i = 0; i < block.queries; ++i) {
    float* weights = p + i * kBlock;
    float* grad = ds + i * kBlock;
    const Index count = block.visible_to(i);
    // Queries that only fill up a strip get weight 0.
    const bool real = block.query + i < head.time;
    const float shift = real ? lse[block.query + i] : std::numeric_limits<float>::infinity();
    const float dot = delta[block.query + i];
    if (options.dropout > 0) {
      float mask[kBlock];
      block_mask(mask, head, block, i, count, options);
      for (Index j = 0; j < count; j += kLanes)
        store(weights + j, exp_nonpositive(masked(p, block, i, j) - shift));
      for (Index j = 0; j < count; ++j) {
        grad[j] = weights[j] * (mask[j] * grad[j] - dot);
        weights[j] *= mask[j];
      }
    } else {
      for (Index j = 0; j < count; j += kLanes) {
        const Vec weight = exp_nonpositive(masked(p, block, i, j) - shift);
        store(weights + j, weight);
        store(grad + j, weight * (load(grad + j) - dot));
      }
    }
  }
}

// With P = exp(S - lse), M the dropout's mask and scale, and delta_i = y_i . dy_i (= sum_j P_ij dP_ij):
//   dV = (M P)^T dY,  dP = M (dY V^T),  dS = P (dP - delta),  dQ = dS K / sqrt(D),  dK = dS^T Q / sqrt(D).
void backward_head(float* dqkv, const float* dy, const float* y, const float* lse, const float* qkv,
                   const Head& head, const Head& next, Index channels, const AttentionOptions& options) {
  const Index size = head.padded_size;
  const Index rows = head.padded_time * size;
  const Index columns = round_up(head.time, kBlock) * head.size;
  const auto [q, k, k_columns, v_columns, dout, dq, dk, dv, delta, p, ds] =
      scratch.cut({rows, rows, columns, columns, rows, rows, rows, rows, head.padded_time, kBlock * kBlock,
                   kBlock * kBlock});
  const float scale = 1.0F / std::sqrt(static_cast<float>(head.size));
  const float* from = qkv + head.qkv;
  pack_rows(q, from, 3 * channels, head.time, head.size, head.padded_time, size, scale);
  pack_rows(k, from + channels, 3 * channels, head.time, head.size, head.padded_time, size, 1);
  pack_columns(k_columns, from + channels, 3 * channels, head.time, head.size);
  pack_columns(v_columns, from + 2 * channels, 3 * channels, head.time, head.size);
  pack_rows(dout, dy + head.y, channels, head.time, head.size, head.padded_time, size, 1);
  row_dots(delta, y + head.y, channels, dout, head.time, head.size, size);

  for (Index key = 0; key < head.time; key += kBlock)
    for (Index query = key; query < head.time; query += kBlock) {
      const Block block{query, key, std::min(kBlock, head.padded_time - query),
                        std::min(kBlock, head.padded_time - key)};
      block_scores(p, q, k_columns, head, block);
      // dP (8, keys) = dY (8, D) V^T (D, keys)
      for (Index strip = 0; strip < block.queries; strip += kStrip) {
        if (key == 0) {
          fetch_qkv_ahead<false>(qkv, channels, query + strip, next);
          fetch_ahead<false>(dy + next.y, channels, query + strip, next);
          fetch_ahead<false>(y + next.y, channels, query + strip, next);
        }
        strip_product(ds + strip * kBlock, kBlock, dout + (query + strip) * size, size, 1,
                      v_columns + key * head.size, kBlock, block.visible(strip), head.size, false);
      }
      block_softmax_backward(p, ds, lse + head.row, delta, head, block, options);
      // dQ (8, D) += dS (8, keys) K (keys, D)
      for (Index strip = 0; strip < block.queries; strip += kStrip) {
        if (key == 0) fetch_qkv_ahead<true>(dqkv, channels, query + strip, head);
        strip_product(dq + (query + strip) * size, size, ds + strip * kBlock, kBlock, 1, k + key * size, size,
                      size, block.weighted(strip), key > 0);
      }
      // dK (8, D) += dS^T (8, queries) Q (queries, D), and dV += (M P)^T dY
      for (Index strip = 0; strip < block.keys; strip += kStrip) {
        const Index first = block.first_query(strip);
        strip_product(dk + (key + strip) * size, size, ds + first * kBlock + strip, 1, kBlock,
                      q + (query + first) * size, size, size, block.queries - first, query > key);
      }
      for (Index strip = 0; strip < block.keys; strip += kStrip) {
        const Index first = block.first_query(strip);
        strip_product(dv + (key + strip) * size, size, p + first * kBlock + strip, 1, kBlock,
                      dout + (query + first) * size, size, size, block.queries - first, query > key);
      }
    }
  float* to = dqkv + head.qkv;
  unpack_rows(to, 3 * channels, dq, head.time, head.size, size, scale);
  unpack_rows(to + channels, 3 * channels, dk, head.time, head.size, size, 1);  // q carries the scale already
  unpack_rows(to + 2 * channels, 3 * channels, dv, head.time, head.size, size, 1);
}

/// each(head, the one after it) for all heads of a batch; the last is followed by itself.
template <typename Each>
void for_each_head(const AttentionSize& s, const AttentionOptions& options, const Each& each) {
  const Index heads = s.batch * s.heads;
  parallel_for(heads, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i)
      each(head_of(i, s, options), head_of(std::min(i + 1, heads - 1), s, options));
  });
}

}  // namespace

void attention_flash_forward(float* y, float* lse, const float* qkv, const AttentionSize& s,
                             const AttentionOptions& options) {
  for_each_head(s, options, [&](const Head& head, const Head& next) {
    forward_head(y, lse, qkv, head, next, s.channels(), options);
  });
}

void attention_flash_backward(float* dqkv, const float* dy, const float* y, const float* lse,
                              const float* qkv, const AttentionSize& s, const AttentionOptions& options) {
  for_each_head(s, options, [&](const Head& head, const Head& next) {
    backward_head(dqkv, dy, y, lse, qkv, head, next, s.channels(), options);
  });
}

}  // namespace llm::cpu
