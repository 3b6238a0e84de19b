// Flash attention on tensor cores, forward (Dao 2023, "FlashAttention-2", algorithm 1 and section 3). bf16,
// sums in f32. Chapter 3.
//
// A block of 4 warps owns 128 queries, a warp 32 of them with their 32 x D sums in registers. Keys and values
// come in tiles of 64 positions by asynchronous copies, the next tile while this one is multiplied; one
// barrier per tile. Tiles that the mask hides are not fetched, steps that it hides from a warp are skipped,
// and only those on the diagonal compare positions. 32 queries per warp, because with 16 each piece of keys
// read from shared memory would serve half as many products, and shared memory would be the limit.
//
// What to expect of an H100 (132 multiprocessors, 989 TFLOP/s of dense bf16, 3.35 TB/s), by arithmetic:
//   * Memory is not the limit: a position of a head takes 4 D T / 2 operations for 8 D bytes, at T = 1024
//     256 per byte; from 185 on the tensor cores have enough to do.
//   * Tensor cores: `mma.sync` reaches some 62% of the peak (Luo et al. 2024, "Benchmarking and Dissecting
//     the Nvidia Hopper GPU Architecture"): 620 TFLOP/s, 2500 operations per cycle and multiprocessor. The
//     rest is for `wgmma`, which takes its operands from shared memory by itself (Shah et al. 2024,
//     "FlashAttention-3") and is not used here.
//   * Exponentials: 16 per cycle and multiprocessor. 2500 operations are 10 scores for D = 64, 0.6 cycles of
//     exponentials, and 0.3 for D = 128. They overlap only with products of other warps, of which the
//     registers leave room for 8 in 2 blocks. If nothing overlapped, D = 64 would get half of 620 TFLOP/s.
//   * Shared memory: 128 bytes per cycle. For D = 64 queries stay in registers, and keys and values are read
//     once per warp: 32 operations per byte, 4096 per cycle. For D = 128 queries are read again for every 32
//     keys: 21 per byte, 2730 per cycle, hardly more than the tensor cores take.
// FlashAttention-2, of the same design, was measured at 35% of 989 TFLOP/s (Shah et al. 2024). This kernel
// reached 33% at T = 8192, D = 64 and 34% at D = 128 (BENCHMARKS.md): tensor cores 48% busy at T = 4096, D =
// 64, and neither memory nor shared memory above 45%, so it is waiting, of which more warps would do less.
#include "common/ops/cuda/attention_mma.cuh"

namespace llm::cuda {

namespace {

template <int kSize, bool kDropout>
struct ForwardShape {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRowTiles = 2;  // of 16 queries, per warp
  static constexpr int kQueries = 16 * kRowTiles * kWarps;
  static constexpr int kKeys = 64;                                  // fetched together
  static constexpr int kStep = kSize <= 64 && !kDropout ? 64 : 32;  // of them, multiplied together
  static constexpr bool kQueriesInRegisters = kSize <= 64;
  static constexpr bool kMaskAlways = kSize > 96 && kDropout;  // two kinds of step do not fit the registers
  static constexpr int kStage = 2 * kKeys * kSize;             // elements: a tile of keys and one of values
  static constexpr std::size_t kShared = (kQueries * kSize + 2 * kStage) * sizeof(Bf16);
};

/// What a warp keeps of its 32 queries: lane 4 g + t has rows g and g + 8 of each row tile.
template <int kSize, bool kDropout>
struct ForwardWarp {
  using Shape = ForwardShape<kSize, kDropout>;
  static constexpr int kRowTiles = Shape::kRowTiles, kColumnTiles = Shape::kStep / 8;

  float out[kRowTiles][kSize / 8][4];
  float maximum[kRowTiles][2];  // of the scores before scaling
  float total[kRowTiles][2];    // of this lane's columns only; lanes are added up at the end

  __device__ __forceinline__ ForwardWarp() {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kSize / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) out[m][n][i] = 0;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        maximum[m][half] = -kInfinity;
        total[m][half] = 0;
      }
    }
  }

  /// Takes kStep keys. Weights are exp2(scale s - scale m): the scale, times log2 e, is folded into the one
  /// multiply-add that subtracts the maximum.
  template <bool kMasked, typename Left>
  __device__ __forceinline__ void step(const Left& queries, const Bf16* k_tile, const Bf16* v_tile,
                                       float scale, int query, int key, const WeightDropout& dropout,
                                       int head, int time) {
    float s[kRowTiles][kColumnTiles][4];
    warp_scores<kSize>(s, queries, k_tile);
    if (kMasked) mask_scores(s, query, key);
    raise_maximum(s, scale);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = query + 16 * m + 8 * half + lane_row();
        const float shift = maximum[m][half] * scale;
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n) {
          float& first = s[m][n][2 * half];
          float& second = s[m][n][2 * half + 1];
          first = fast_exp2(fmaf(first, scale, -shift));
          second = fast_exp2(fmaf(second, scale, -shift));
          total[m][half] += first + second;
          if (kDropout) {
            const auto column = static_cast<std::uint64_t>(key + 8 * n + lane_column());
            const float2 factor = dropout.pair(dropout.row_index(head, row, time) + column);
            first *= factor.x;
            second *= factor.y;
          }
        }
      }
    std::uint32_t p[kRowTiles][kColumnTiles / 2][4];
    pack_weights(p, s);
    warp_accumulate<kSize>(out, p, v_tile);
  }

  /// Hides keys after the query.
  static __device__ __forceinline__ void mask_scores(float (&s)[kRowTiles][kColumnTiles][4], int query,
                                                     int key) {
    const int ahead =
        query + lane_row() - key - lane_column();  // of its first key is this lane's first query
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (8 * n + i % 2 > ahead + 16 * m + i / 2 * 8) s[m][n][i] = -kInfinity;
  }

  /// Any number near the row's maximum serves as well: weights up to 2^8 overflow nothing, and are divided by
  /// a total that grew with them. So sums are repaired only where a maximum grew by more than that, which
  /// after the first tiles is rare.
  __device__ __forceinline__ void raise_maximum(const float (&s)[kRowTiles][kColumnTiles][4], float scale) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      float highest[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float& high = highest[half] = maximum[m][half];
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n)
          high = fmaxf(high, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffU, high, 1));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffU, high, 2));
      }
      const bool grew = (highest[0] - maximum[m][0]) * scale > 8 || (highest[1] - maximum[m][1]) * scale > 8;
      if (!__any_sync(0xffffffffU, grew)) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float repair = fast_exp2((maximum[m][half] - highest[half]) * scale);
        maximum[m][half] = highest[half];
        total[m][half] *= repair;
#pragma unroll
        for (int n = 0; n < kSize / 8; ++n)
#pragma unroll
          for (int i = 0; i < 2; ++i) out[m][n][2 * half + i] *= repair;
      }
    }
  }
};

/// A block owns 128 queries, a warp 32 of them.
template <int kSize, bool kDropout>
__global__ void __launch_bounds__(ForwardShape<kSize, kDropout>::kThreads)
    flash_mma_forward(Heads<Bf16> y, float* lse, Heads<const Bf16> q, Heads<const Bf16> k,
                      Heads<const Bf16> v, float scale, int heads, WeightDropout dropout) {
  using Shape = ForwardShape<kSize, kDropout>;
  constexpr int kThreads = Shape::kThreads, kKeys = Shape::kKeys;
  const int head = block_head();
  if (head >= heads) return;
  const int time = q.time, size = q.size;
  const int first = static_cast<int>(gridDim.y - 1 - blockIdx.y) * Shape::kQueries;
  const int warp_first = static_cast<int>(threadIdx.x / 32) * 16 * Shape::kRowTiles;
  const Rows<const Bf16> keys = k[head], values = v[head];
  Bf16* q_tile = dynamic_shared<Bf16>();
  Bf16* stages = q_tile + Shape::kQueries * kSize;

  const auto fetch = [&](int number) {
    Bf16* stage = stages + number % 2 * Shape::kStage;
    copy_tile<kSize, kKeys, kThreads>(stage, keys, number * kKeys, time, size);
    copy_tile<kSize, kKeys, kThreads>(stage + kKeys * kSize, values, number * kKeys, time, size);
    __pipeline_commit();
  };
  copy_tile<kSize, Shape::kQueries, kThreads>(q_tile, q[head], first, time, size);
  fetch(0);

  ForwardWarp<kSize, kDropout> warp;
  const TileRows<kSize> shared_queries{q_tile, warp_first};
  RegisterRows<kSize, Shape::kRowTiles> kept_queries;
  const int query = first + warp_first;                           // the warp's first
  const int last = min(query + 16 * Shape::kRowTiles, time) - 1;  // ... and last
  const int tiles = (min(first + Shape::kQueries, time) - 1) / kKeys + 1;
  for (int number = 0; number < tiles; ++number) {
    __pipeline_wait_prior(0);
    __syncthreads();  // this tile is there, and everybody is done with the one before: its place is free
    if (number + 1 < tiles) fetch(number + 1);
    if (Shape::kQueriesInRegisters && number == 0) kept_queries.load_from(shared_queries);
#pragma unroll
    for (int part = 0; part < kKeys; part += Shape::kStep) {
      const Bf16* k_tile = stages + number % 2 * Shape::kStage + part * kSize;
      const Bf16* v_tile = k_tile + kKeys * kSize;
      const int key = number * kKeys + part;
      const auto step = [&](auto masked) {
        if constexpr (Shape::kQueriesInRegisters)
          warp.template step<masked()>(kept_queries, k_tile, v_tile, scale, query, key, dropout, head, time);
        else
          warp.template step<masked()>(shared_queries, k_tile, v_tile, scale, query, key, dropout, head,
                                       time);
      };
      if (!Shape::kMaskAlways && key + Shape::kStep - 1 <= query)
        step(std::false_type());  // every query sees every key
      else if (key <= last)
        step(std::true_type());
    }
  }

  float over[Shape::kRowTiles][2];
#pragma unroll
  for (int m = 0; m < Shape::kRowTiles; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = warp.total[m][half];
      total += __shfl_xor_sync(0xffffffffU, total, 1);
      total += __shfl_xor_sync(0xffffffffU, total, 2);
      over[m][half] = 1 / total;
      const int row = query + 16 * m + 8 * half + lane_row();
      if (lane_id() % 4 == 0 && row < time)
        lse[static_cast<std::int64_t>(head) * time + row] =
            (warp.maximum[m][half] * scale + log2f(total)) * kLn2;
    }
  store_warp_rows<kSize>(y[head], q_tile + warp_first * kSize, warp.out, over, query, time, size);
}

template <int kSize, bool kDropout>
void forward(const Tensor& y, const Tensor& lse, const Tensor& qkv, const AttentionSize& s,
             const AttentionOptions& options) {
  using Shape = ForwardShape<kSize, kDropout>;
  const auto* from = static_cast<const Bf16*>(qkv.raw());
  const auto heads = static_cast<int>(s.batch * s.heads);
  launch(flash_mma_forward<kSize, kDropout>,
         {tile_grid(s, Shape::kQueries), dim3(Shape::kThreads), Shape::kShared},
         output(static_cast<Bf16*>(y.raw()), s), lse.data(), part(from, 0, s), part(from, 1, s),
         part(from, 2, s), score_scale(s) * kLog2E, heads, WeightDropout(options));
}

}  // namespace

void attention_flash_mma_forward(const Tensor& y, const Tensor& lse, const Tensor& qkv,
                                 const AttentionOptions& options) {
  const AttentionSize s = check_flash_forward("attention_flash_mma_forward", y, lse, qkv, options);
  check_on_cuda("attention_flash_mma_forward", qkv, {DType::bf16});
  check_head_size("attention_flash_mma_forward", s.head_size);
  check_alignment("attention_flash_mma_forward", {&qkv, &y});
  if (qkv.numel() == 0) return;
  for_padded_size<32, 64, 96, 128>(s.head_size, [&](auto size) {
    options.dropout > 0 ? forward<size(), true>(y, lse, qkv, s, options)
                        : forward<size(), false>(y, lse, qkv, s, options);
  });
}

}  // namespace llm::cuda
