// The primitives that know of shards: embedding, cross-entropy and the dropout of attention, on every device.
#include <gtest/gtest.h>

#include "ch04_model_helpers.h"
#include "common/core/error.h"
#include "common/ops/ops.h"

namespace llm::testing {
namespace {

constexpr Placement kPlaces[] = {{}, {Device::cuda, DType::f32}, {Device::cuda, DType::bf16}};

Tensor random(const Shape& shape, std::uint64_t seed, float scale = 1) {
  Tensor t(shape);
  const Philox philox{seed, stream_id("shard ops")};
  for (std::int64_t i = 0; i < t.numel(); ++i)
    t.data()[i] = scale * philox.normal(static_cast<std::uint64_t>(i));
  return t;
}
Tensor placed(const Tensor& t, const Placement& place) {
  Tensor narrow = Tensor::uninitialized(t.shape(), place.dtype);
  cast(narrow, t);
  return narrow.to(place.device);
}
Tensor back(const Tensor& t) {
  Tensor wide = Tensor::uninitialized(t.shape());
  cast(wide, t.to(Device::cpu));
  return wide;
}

/// Uneven shards of a vocabulary of `whole`.
std::vector<Slice> shards_of(std::int64_t whole) {
  return {{0, whole / 3}, {whole / 3, whole / 3 + 1}, {whole / 3 + 1, whole}};
}

TEST(ShardOps, EmbeddingsAddUpToTheWholeBitForBit) {
  const std::int64_t B = 3, T = 50, V = 19, C = 24;
  const Tensor table = random({V, C}, 1), positions = random({T, C}, 2), dy = random({B, T, C}, 3);
  for (const Placement& place : kPlaces) {
    const Tensor tokens = random_ids(B, T, V, 4).to(place.device);
    const Tensor w = placed(table, place), p = placed(positions, place), d = placed(dy, place);
    const Tensor y = Tensor({B, T, C}, place.dtype, place.device);
    embedding_forward(y, tokens, w, p);
    const Tensor dw({V, C}, DType::f32, place.device), dp({T, C}, DType::f32, place.device);
    embedding_backward(dw, dp, d, tokens);

    const Tensor sum({B, T, C});
    for (const Slice& s : shards_of(V)) {
      const Tensor part = Tensor({B, T, C}, place.dtype, place.device);
      embedding_forward(part, tokens, w.slice(s.begin, s.end), p, 0, {s.begin, V});
      add(sum, sum, back(part));
      const Tensor dpart({s.end - s.begin, C}, DType::f32, place.device),
          dp2({T, C}, DType::f32, place.device);
      embedding_backward(dpart, dp2, d, tokens, 0, {s.begin, V});
      EXPECT_EQ(copy(back(dpart)), copy(back(dw.slice(s.begin, s.end))));
      EXPECT_EQ(copy(back(dp2)), copy(back(dp)));
    }
    EXPECT_EQ(copy(sum), copy(back(y)));
    EXPECT_THROW(embedding_forward(y, tokens, w, p, 0, {1, V}), Error);  // more rows than there are
  }
}

TEST(ShardOps, CrossEntropyOfShardsIsThatOfTheWhole) {
  // Vocabularies below and above 4096, where the device changes its kernel; odd, so that rows are not
  // aligned.
  for (const std::int64_t V : {37, 9001})
    for (const Placement& place : kPlaces) {
      const std::int64_t N = 7;
      const Tensor logits = placed(random({N, V}, 5, 8), place);
      Tensor ids = random_ids(1, N, V, 6);
      ids.data<std::int32_t>()[2] = -1;
      ids.data<std::int32_t>()[3] = static_cast<std::int32_t>(V / 3);  // the shard of one
      const Tensor targets = ids.to(place.device);
      const Tensor losses({N}, DType::f32, place.device), dlogits(logits.shape(), place.dtype, place.device);
      cross_entropy_forward(losses, logits, targets);
      cross_entropy_backward(dlogits, logits, targets, 0.25F);

      struct Part {
        Slice slice;
        Tensor logits, highest, total, right;
      };
      std::vector<Part> parts;
      const Tensor host = back(logits);
      for (const Slice& s : shards_of(V)) {
        Tensor mine({N, s.end - s.begin});
        for (std::int64_t i = 0; i < N; ++i)
          mine.slice(i, i + 1).copy_from(host.range(i * V + s.begin, {s.end - s.begin}));
        const auto statistic = [&] { return Tensor({N}, DType::f32, place.device); };
        parts.push_back({s, placed(mine, place), statistic(), statistic(), statistic()});
        const Part& p = parts.back();
        shard_cross_entropy_statistics(p.highest, p.total, p.right, p.logits, targets, {s.begin, V});
      }
      Tensor most = back(parts[0].highest).clone();
      for (const Part& p : parts)
        for (std::int64_t i = 0; i < N; ++i)
          most.data()[i] = std::max(most.data()[i], back(p.highest).data()[i]);
      const Tensor highest = most.to(place.device);
      Tensor total({N}), right({N});
      for (const Part& p : parts) {
        shard_cross_entropy_rescale(p.total, p.highest, highest);
        add(total, total, back(p.total));
        add(right, right, back(p.right));
      }
      total = total.to(place.device);
      right = right.to(place.device);
      const Tensor got({N}, DType::f32, place.device);
      shard_cross_entropy_losses(got, highest, total, right, targets);
      EXPECT_LT(relative_distance(back(got).span(), back(losses).span()), 1e-6);
      const Tensor expected = back(dlogits);
      for (const Part& p : parts) {
        const Tensor& d = p.logits;  // in place
        shard_cross_entropy_backward(d, p.logits, targets, highest, total, 0.25F, {p.slice.begin, V});
        Tensor wanted(d.shape());
        for (std::int64_t i = 0; i < N; ++i)
          wanted.slice(i, i + 1).copy_from(expected.range(i * V + p.slice.begin, {d.dim(1)}));
        EXPECT_LT(relative_distance(back(d).span(), wanted.span()), place.dtype == DType::bf16 ? 3e-3 : 1e-6);
      }
    }
}

TEST(ShardOps, CrossEntropySurvivesAShardFarBelowTheOthers) {
  for (const Placement& place : {kPlaces[0], kPlaces[1]}) {
    const Tensor low = Tensor::from(std::vector<float>{-1e30F, -HUGE_VALF}, {1, 2}).to(place.device);
    const Tensor targets = Tensor::from(std::vector<std::int32_t>{3}, {1}).to(place.device);
    const Tensor highest({1}, DType::f32, place.device), total({1}, DType::f32, place.device),
        right({1}, DType::f32, place.device);
    shard_cross_entropy_statistics(highest, total, right, low, targets, {0, 4});
    const Tensor other = Tensor::from(std::vector<float>{5}, {1}).to(place.device);
    shard_cross_entropy_rescale(total, highest, other);
    EXPECT_EQ(back(total).data()[0], 0);
    EXPECT_EQ(back(right).data()[0], 0);
  }
}

/// Columns of heads [first, first + heads) of each of the parts (q, k, v) of a row.
Tensor heads_of(const Tensor& t, std::int64_t parts, std::int64_t all, std::int64_t first,
                std::int64_t heads) {
  const std::int64_t rows = t.dim(0) * t.dim(1), size = t.dim(2) / (parts * all);
  Tensor out({t.dim(0), t.dim(1), parts * heads * size});
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t part = 0; part < parts; ++part)
      out.range((row * parts + part) * heads * size, {heads * size})
          .copy_from(t.range(((row * parts + part) * all + first) * size, {heads * size}));
  return out;
}

TEST(ShardOps, AttentionDropsTheSameWeightsForSomeOfTheHeads) {
  const std::int64_t B = 2, T = 70, H = 6, D = 16;
  const Tensor qkv = random({B, T, 3 * H * D}, 7), dy = random({B, T, H * D}, 8);
  const AttentionOptions whole{.heads = H, .dropout = 0.3F, .rng = {1, 2}, .first_index = 5 * H * T * T};
  for (const Placement& place : kPlaces)
    for (const bool flash : {false, true}) {
      if (!flash && place.dtype == DType::bf16) continue;
      const auto run = [&](const Tensor& x, const Tensor& d, const AttentionOptions& options) {
        const Tensor in = placed(x, place), dout = placed(d, place);
        const Tensor y(d.shape(), place.dtype, place.device), dx(x.shape(), place.dtype, place.device);
        if (flash) {
          const Tensor lse({B, options.heads, T}, DType::f32, place.device);
          attention_flash_forward(y, lse, in, options);
          attention_flash_backward(dx, dout, y, lse, in, options);
        } else {
          const Tensor weights({B, options.heads, T, T}, DType::f32, place.device);
          attention_naive_forward(y, weights, in, options);
          attention_naive_backward(dx, dout, weights, in, options);
        }
        return std::pair(back(y), back(dx));
      };
      const auto [y, dx] = run(qkv, dy, whole);
      for (const std::int64_t first : {0, 2, 4}) {
        AttentionOptions some = whole;
        some.heads = 2;
        some.all_heads = H;
        some.first_index += static_cast<std::uint64_t>(first * T * T);
        const auto [part, dpart] = run(heads_of(qkv, 3, H, first, 2), heads_of(dy, 1, H, first, 2), some);
        EXPECT_LT(relative_distance(part.span(), heads_of(y, 1, H, first, 2).span()), 1e-6);
        EXPECT_LT(relative_distance(dpart.span(), heads_of(dx, 3, H, first, 2).span()), 1e-6);
      }
    }
}

}  // namespace
}  // namespace llm::testing
