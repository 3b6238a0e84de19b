// Flash attention on tensor cores, backward (Dao et al. 2022, algorithm 4; Dao 2023, section 3.1.2). bf16,
// sums in f32. Chapter 3.
//
// With P = exp(S - lse), M the dropout's mask and scale, delta_i = y_i . dy_i:
//   dV = (M P)^T dY,  dP = M (dY V^T),  dS = P (dP - delta),  dQ = dS K / sqrt(D),  dK = dS^T Q / sqrt(D).
//
// Two passes, each with a tile it owns in registers: queries with dQ, then keys with dK and dV. So nobody
// adds to another's sums, and every result has the same bits in whatever order blocks run. It also keeps P
// and dS in registers: each pass computes them the way round in which they are the left side of its next
// product. The price is S and dP computed twice, 7 products instead of the 5 of FlashAttention-2, which adds
// to dQ with atomics (and so differs in its last bits from run to run), passes dS through shared memory, and
// needs dQ in f32 in between.
//
// What to expect of an H100 (its numbers stand in attention_flash_mma.cu): 7 products at 620 TFLOP/s are 5 at
// 440. And shared memory delivers 128 bytes per cycle. For D = 64, where a warp has 32 rows, that is 21
// (keys) and 24 (queries) operations per byte, 2700 and 3100 per cycle, just above the tensor cores' 2500.
// For D = 128 the sums of dK and dV leave room for 16 keys per warp only: 13 operations per byte, 1640 per
// cycle. There shared memory is the limit, and 5 products cannot pass 340 TFLOP/s. Measured at T =
// 8192 (BENCHMARKS.md): 257 TFLOP/s for D = 64, 229 for D = 128, counted as 5 products.
#include "common/ops/cuda/attention_mma.cuh"

namespace llm::cuda {

namespace {

// ---- the pass over queries: dQ, and delta for the other pass ------------------------------------------

template <int kSize>
struct QueryShape {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRowTiles = 2;  // of 16 queries, per warp
  static constexpr int kQueries = 16 * kRowTiles * kWarps;
  static constexpr int kKeys = kSize <= 64 ? 64 : 32;  // fetched together
  static constexpr int kStep = 32;                     // of them, multiplied together
  static constexpr bool kQueriesInRegisters = kSize <= 64;
  // Two kinds of step, with and without mask, do not fit the registers here; and where the tensor cores are
  // the limit, comparisons are free.
  static constexpr bool kMaskAlways = kSize > 96;
  static constexpr int kStage = 2 * kKeys * kSize;  // elements: a tile of keys and one of values
  static constexpr std::size_t kShared =
      (2 * kQueries * kSize + 2 * kStage) * sizeof(Bf16) + 2 * kQueries * sizeof(float);
};

/// delta_i = y_i . dy_i of the warp's rows [first, first + kRows), 8 lanes to a row.
template <int kSize, int kRows>
__device__ __forceinline__ void row_dots(float* shared_delta, float* delta, const Rows<const Bf16>& y,
                                         const Rows<const Bf16>& dy, int first, int time, int size) {
#pragma unroll
  for (int step = 0; step < kRows; step += 4) {
    const int row = step + lane_id() / 8;
    float dot = 0;
#pragma unroll
    for (int c = 0; c < kSize / 8; c += 8) {
      const int d = 8 * (c + lane_id() % 8);
      if (first + row < time && d < size) {
        const uint4 a = *reinterpret_cast<const uint4*>(y.row(first + row) + d);
        const uint4 b = *reinterpret_cast<const uint4*>(dy.row(first + row) + d);
        const auto add = [&](std::uint32_t left, std::uint32_t right) {
          dot += unpack(left).x * unpack(right).x + unpack(left).y * unpack(right).y;
        };
        add(a.x, b.x);
        add(a.y, b.y);
        add(a.z, b.z);
        add(a.w, b.w);
      }
    }
#pragma unroll
    for (int distance = 4; distance > 0; distance /= 2) dot += __shfl_xor_sync(0xffffffffU, dot, distance);
    if (lane_id() % 8 == 0) {
      shared_delta[row] = dot;
      if (first + row < time) delta[first + row] = dot;
    }
  }
  __syncwarp();
}

template <int kSize, bool kDropout>
__global__ void __launch_bounds__(QueryShape<kSize>::kThreads)
    flash_mma_backward_queries(Heads<Bf16> dq, float* deltas, Heads<const Bf16> dy, Heads<const Bf16> y,
                               const float* lse, Heads<const Bf16> q, Heads<const Bf16> k,
                               Heads<const Bf16> v, float scale, int heads, WeightDropout dropout) {
  using Shape = QueryShape<kSize>;
  constexpr int kThreads = Shape::kThreads, kKeys = Shape::kKeys, kRowTiles = Shape::kRowTiles;
  constexpr int kColumnTiles = Shape::kStep / 8;
  const int head = block_head();
  if (head >= heads) return;
  const int time = q.time, size = q.size;
  const int first = static_cast<int>(gridDim.y - 1 - blockIdx.y) * Shape::kQueries;
  const int warp_first = static_cast<int>(threadIdx.x / 32) * 16 * kRowTiles;
  const std::int64_t head_row = static_cast<std::int64_t>(head) * time;
  const Rows<const Bf16> keys = k[head], values = v[head];
  Bf16* q_tile = dynamic_shared<Bf16>();
  Bf16* dy_tile = q_tile + Shape::kQueries * kSize;
  Bf16* stages = dy_tile + Shape::kQueries * kSize;
  float* tile_lse = reinterpret_cast<float*>(stages + 2 * Shape::kStage);
  float* tile_delta = tile_lse + Shape::kQueries;

  const auto fetch = [&](int number) {
    Bf16* stage = stages + number % 2 * Shape::kStage;
    copy_tile<kSize, kKeys, kThreads>(stage, keys, number * kKeys, time, size);
    copy_tile<kSize, kKeys, kThreads>(stage + kKeys * kSize, values, number * kKeys, time, size);
    __pipeline_commit();
  };
  copy_tile<kSize, Shape::kQueries, kThreads>(q_tile, q[head], first, time, size);
  copy_tile<kSize, Shape::kQueries, kThreads>(dy_tile, dy[head], first, time, size);
  fetch(0);

  const int query = first + warp_first;                    // the warp's first
  const int last = min(query + 16 * kRowTiles, time) - 1;  // ... and last
  const TileRows<kSize> q_rows{q_tile, warp_first}, dy_rows{dy_tile, warp_first};
  RegisterRows<kSize, kRowTiles> kept_queries;
  // While the copies are under way: what is needed of each row.
  const int own = first + static_cast<int>(threadIdx.x);
  tile_lse[threadIdx.x] = own < time ? lse[head_row + own] * kLog2E : kInfinity;  // weight 0 past the end
  row_dots<kSize, 16 * kRowTiles>(tile_delta + warp_first, deltas + head_row, y[head], dy[head], query, time,
                                  size);

  float sums[kRowTiles][kSize / 8][4] = {};
  const auto step = [&](auto masked, const Bf16* k_tile, const Bf16* v_tile, int key) {
    const int ahead =
        query + lane_row() - key - lane_column();  // of its first key is this lane's first query
    float s[kRowTiles][kColumnTiles][4], ds[kRowTiles][kColumnTiles][4];
    if constexpr (Shape::kQueriesInRegisters)
      warp_scores<kSize>(s, kept_queries, k_tile);
    else
      warp_scores<kSize>(s, q_rows, k_tile);
    warp_scores<kSize>(ds, dy_rows, v_tile);  // dP, before the dropout's mask
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = warp_first + 16 * m + 8 * half + lane_row();
          const float row_lse = tile_lse[row], row_delta = tile_delta[row];
          float2 factor = make_float2(1, 1);
          if (kDropout) {
            const auto column = static_cast<std::uint64_t>(key + 8 * n + lane_column());
            factor = dropout.pair(dropout.row_index(head, first + row, time) + column);
          }
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const float p = fast_exp2(fmaf(s[m][n][2 * half + i], scale * kLog2E, -row_lse));
            float& gradient = ds[m][n][2 * half + i];
            if (kDropout) gradient *= i == 0 ? factor.x : factor.y;
            gradient = p * (gradient - row_delta);
            if (masked() && 8 * n + i > ahead + 16 * m + 8 * half) gradient = 0;
          }
        }
    std::uint32_t left[kRowTiles][kColumnTiles / 2][4];
    pack_weights(left, ds);
    warp_accumulate<kSize>(sums, left, k_tile);
  };

  const int tiles = (min(first + Shape::kQueries, time) - 1) / kKeys + 1;
  for (int number = 0; number < tiles; ++number) {
    __pipeline_wait_prior(0);
    __syncthreads();  // this tile is there, and everybody is done with the one before
    if (number + 1 < tiles) fetch(number + 1);
    if (Shape::kQueriesInRegisters && number == 0) kept_queries.load_from(q_rows);
#pragma unroll 1
    for (int part = 0; part < kKeys; part += Shape::kStep) {
      const Bf16* k_tile = stages + number % 2 * Shape::kStage + part * kSize;
      const int key = number * kKeys + part;
      if (!Shape::kMaskAlways && key + Shape::kStep - 1 <= query)
        step(std::false_type(), k_tile, k_tile + kKeys * kSize, key);  // every query sees every key
      else if (key <= last)
        step(std::true_type(), k_tile, k_tile + kKeys * kSize, key);
    }
  }

  float factor[kRowTiles][2];
  for (auto& pair : factor) pair[0] = pair[1] = scale;
  store_warp_rows<kSize>(dq[head], q_tile + warp_first * kSize, sums, factor, query, time, size);
}

// ---- the pass over keys: dK and dV --------------------------------------------------------------------

template <int kSize, bool kDropout>
struct KeyShape {
  static constexpr int kRowTiles = kSize <= 64 ? 2 : 1;  // of 16 keys, per warp
  static constexpr int kWarps = 8 / kRowTiles;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kKeys = 16 * kRowTiles * kWarps;   // 128
  static constexpr int kQueries = kSize <= 96 ? 64 : 32;  // fetched together
  static constexpr int kStep = kDropout ? 16 : 32;        // of them, multiplied together
  static constexpr int kStage = 2 * kQueries * kSize;     // elements: a tile of queries and one of dy
  static constexpr std::size_t kShared =
      (2 * kKeys * kSize + 2 * kStage) * sizeof(Bf16) + 2 * 2 * kQueries * sizeof(float);
};

/// Starts copying a number per query; `past_the_end` where there is none.
template <int kCount>
__device__ __forceinline__ void copy_numbers(float* to, const float* from, int first, int time,
                                             float past_the_end) {
  const auto i = static_cast<int>(threadIdx.x);
  if (i >= kCount) return;
  if (first + i < time)
    __pipeline_memcpy_async(to + i, from + first + i, 4);
  else
    to[i] = past_the_end;
}

/// Everything is transposed: rows are keys, columns are queries.
template <int kSize, bool kDropout>
__global__ void __launch_bounds__(KeyShape<kSize, kDropout>::kThreads)
    flash_mma_backward_keys(Heads<Bf16> dk, Heads<Bf16> dv, const float* deltas, Heads<const Bf16> dy,
                            const float* lse, Heads<const Bf16> q, Heads<const Bf16> k, Heads<const Bf16> v,
                            float scale, int heads, WeightDropout dropout) {
  using Shape = KeyShape<kSize, kDropout>;
  constexpr int kThreads = Shape::kThreads, kQueries = Shape::kQueries, kRowTiles = Shape::kRowTiles;
  constexpr int kColumnTiles = Shape::kStep / 8;
  const int head = block_head();
  if (head >= heads) return;
  const int time = q.time, size = q.size;
  const int first = static_cast<int>(blockIdx.y) * Shape::kKeys;
  const int warp_first = static_cast<int>(threadIdx.x / 32) * 16 * kRowTiles;
  const std::int64_t head_row = static_cast<std::int64_t>(head) * time;
  const Rows<const Bf16> queries = q[head], douts = dy[head];
  Bf16* k_tile = dynamic_shared<Bf16>();
  Bf16* v_tile = k_tile + Shape::kKeys * kSize;
  Bf16* stages = v_tile + Shape::kKeys * kSize;
  float* numbers = reinterpret_cast<float*>(stages + 2 * Shape::kStage);  // per stage: lse, then delta

  const auto fetch = [&](int number) {
    Bf16* stage = stages + number % 2 * Shape::kStage;
    float* stage_numbers = numbers + number % 2 * 2 * kQueries;
    copy_tile<kSize, kQueries, kThreads>(stage, queries, number * kQueries, time, size);
    copy_tile<kSize, kQueries, kThreads>(stage + kQueries * kSize, douts, number * kQueries, time, size);
    copy_numbers<kQueries>(stage_numbers, lse + head_row, number * kQueries, time, kInfinity);  // weight 0
    copy_numbers<kQueries>(stage_numbers + kQueries, deltas + head_row, number * kQueries, time, 0);
    __pipeline_commit();
  };
  copy_tile<kSize, Shape::kKeys, kThreads>(k_tile, k[head], first, time, size);
  copy_tile<kSize, Shape::kKeys, kThreads>(v_tile, v[head], first, time, size);
  fetch(first / kQueries);

  const int key = first + warp_first;  // the warp's first
  const TileRows<kSize> k_rows{k_tile, warp_first}, v_rows{v_tile, warp_first};
  float key_sums[kRowTiles][kSize / 8][4] = {}, value_sums[kRowTiles][kSize / 8][4] = {};

  const auto step = [&](auto masked, const Bf16* q_tile, const Bf16* dy_tile, const float* step_numbers,
                        int query) {
    const int ahead = query + lane_column() - key - lane_row();
    float s[kRowTiles][kColumnTiles][4], ds[kRowTiles][kColumnTiles][4];
    std::uint32_t weights[kRowTiles][kColumnTiles / 2][4], gradients[kRowTiles][kColumnTiles / 2][4];
    warp_scores<kSize>(s, k_rows, q_tile);
    warp_scores<kSize>(ds, v_rows, dy_tile);
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      const int column = 8 * n + lane_column();
      const float2 row_lse = *reinterpret_cast<const float2*>(step_numbers + column);
      const float2 row_delta = *reinterpret_cast<const float2*>(step_numbers + kQueries + column);
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const bool hidden = masked() && 16 * m + i / 2 * 8 > ahead + 8 * n + i % 2;
          const float shift = (i % 2 == 0 ? row_lse.x : row_lse.y) * kLog2E;
          const float p = hidden ? 0.0F : fast_exp2(fmaf(s[m][n][i], scale * kLog2E, -shift));
          float factor = 1;
          if (kDropout) {
            const int lane = lane_id_again();  // for each weight anew: its number is not kept in registers
            const auto row = static_cast<std::uint64_t>(key + 16 * m + i / 2 * 8 + lane / 4);
            const int at = query + 8 * n + lane % 4 * 2 + i % 2;
            factor = dropout.factor(dropout.row_index(head, at, time) + row);
          }
          const float gradient = p * (factor * ds[m][n][i] - (i % 2 == 0 ? row_delta.x : row_delta.y));
          ds[m][n][i] = hidden ? 0.0F : gradient;
          s[m][n][i] = factor * p;
        }
    }
    pack_weights(weights, s);
    pack_weights(gradients, ds);
    warp_accumulate<kSize>(value_sums, weights, dy_tile);
    warp_accumulate<kSize>(key_sums, gradients, q_tile);
  };

  const int tiles = (time - 1) / kQueries + 1;
  for (int number = first / kQueries; number < tiles; ++number) {
    __pipeline_wait_prior(0);
    __syncthreads();  // this tile is there, and everybody is done with the one before
    if (number + 1 < tiles) fetch(number + 1);
#pragma unroll 1
    for (int part = 0; part < kQueries; part += Shape::kStep) {
      const Bf16* q_tile = stages + number % 2 * Shape::kStage + part * kSize;
      const float* step_numbers = numbers + number % 2 * 2 * kQueries + part;
      const int query = number * kQueries + part;
      if (query >= key + 16 * kRowTiles - 1)
        step(std::false_type(), q_tile, q_tile + kQueries * kSize, step_numbers, query);
      else if (query + Shape::kStep - 1 >= key)
        step(std::true_type(), q_tile, q_tile + kQueries * kSize, step_numbers, query);
    }
  }

  float factor[kRowTiles][2];
  for (auto& pair : factor) pair[0] = pair[1] = 1;
  store_warp_rows<kSize>(dv[head], v_tile + warp_first * kSize, value_sums, factor, key, time, size);
  for (auto& pair : factor) pair[0] = pair[1] = scale;
  store_warp_rows<kSize>(dk[head], k_tile + warp_first * kSize, key_sums, factor, key, time, size);
}

template <int kSize, bool kDropout>
void backward(const Tensor& dqkv, const Tensor& dy, const Tensor& y, const Tensor& lse, const Tensor& qkv,
              const AttentionSize& s, const AttentionOptions& options) {
  using QueryPass = QueryShape<kSize>;
  using KeyPass = KeyShape<kSize, kDropout>;
  const auto* from = static_cast<const Bf16*>(qkv.raw());
  auto* to = static_cast<Bf16*>(dqkv.raw());
  const Heads<const Bf16> out = output(static_cast<const Bf16*>(y.raw()), s);
  const Heads<const Bf16> dout = output(static_cast<const Bf16*>(dy.raw()), s);
  const Heads<const Bf16> q = part(from, 0, s), k = part(from, 1, s), v = part(from, 2, s);
  const Tensor delta = Tensor::uninitialized(lse.shape(), DType::f32, Device::cuda);
  const float* row_lse = lse.data();
  const WeightDropout dropout(options);
  const auto heads = static_cast<int>(s.batch * s.heads);
  launch(flash_mma_backward_queries<kSize, kDropout>,
         {tile_grid(s, QueryPass::kQueries), dim3(QueryPass::kThreads), QueryPass::kShared}, part(to, 0, s),
         delta.data(), dout, out, row_lse, q, k, v, score_scale(s), heads, dropout);
  launch(flash_mma_backward_keys<kSize, kDropout>,
         {tile_grid(s, KeyPass::kKeys), dim3(KeyPass::kThreads), KeyPass::kShared}, part(to, 1, s),
         part(to, 2, s), delta.data(), dout, row_lse, q, k, v, score_scale(s), heads, dropout);
}

}  // namespace

void attention_flash_mma_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& y, const Tensor& lse,
                                  const Tensor& qkv, const AttentionOptions& options) {
  const AttentionSize s =
      check_flash_backward("attention_flash_mma_backward", dqkv, dy, y, lse, qkv, options);
  check_on_cuda("attention_flash_mma_backward", qkv, {DType::bf16});
  check_head_size("attention_flash_mma_backward", s.head_size);
  check_alignment("attention_flash_mma_backward", {&qkv, &dqkv, &y, &dy});
  if (qkv.numel() == 0) return;
  for_padded_size<32, 64, 96, 128>(s.head_size, [&](auto size) {
    options.dropout > 0 ? backward<size(), true>(dqkv, dy, y, lse, qkv, s, options)
                        : backward<size(), false>(dqkv, dy, y, lse, qkv, s, options);
  });
}

}  // namespace llm::cuda
