// Flash attention's two products on tensor cores, for one warp: what tile_scores and tile_accumulate of
// attention_flash.cu are there, on bf16 tiles in shared memory. Chapter 3.
//
// `mma.m16n8k16` multiplies a 16 x 16 piece of a with a 16 x 8 piece of b and adds to 16 x 8 sums in f32. The
// pieces are spread over the warp's registers ("fragments", PTX ISA, "Matrix fragments for mma.m16n8k16"):
// lane 4 g + t holds of the sums rows g and g + 8, columns 2 t and 2 t + 1. Of a it holds the same rows,
// columns 2 t, 2 t + 1 and 8 more: so sums, rounded to bf16 in pairs, are the left side of the next product
// as they stand. That is why the weights never see shared memory (Dao 2023, section 3.3). `ldmatrix` fetches
// four 8 x 8 pieces at once, 16 bytes from each of 32 rows, and can transpose them on the way.
//
// Banks. The 8 rows of a piece are a whole tile row apart, which is a multiple of 64 bytes: unless moved,
// their 16-byte chunks share 2 (or 1) of the 8 places in the 128 bytes that shared memory delivers at a time.
// So chunk c of row r is kept at chunk c ^ (r % 8), or, where rows are not whole multiples of 128 bytes, c ^
// (r / 2 % 4): then any 8 neighbouring rows lie in 8 places, for copies, `ldmatrix` and results alike.
#pragma once

#include <cstring>

#include "common/ops/cuda/attention.cuh"
#include "common/simt/mma.cuh"

namespace llm::cuda {

using Bf16 = __nv_bfloat16;
constexpr float kLog2E = 1.44269504088896340736F;
constexpr float kLn2 = 0.69314718055994530942F;

__device__ __forceinline__ int lane_id() {
  return static_cast<int>(threadIdx.x % 32);
}
/// The same, but what is computed from it is not kept in registers from one turn of a loop to the next: where
/// the sums fill the registers, a few operations per turn are cheaper than addresses that do not fit.
__device__ __forceinline__ int lane_id_again() {
  int lane = lane_id();
#ifdef __CUDACC__
  asm volatile("" : "+r"(lane));
#endif
  return lane;
}
/// Within the warp's 16 x 8 sums: this lane's first row, and its first column.
__device__ __forceinline__ int lane_row() {
  return lane_id() / 4;
}
__device__ __forceinline__ int lane_column() {
  return lane_id() % 4 * 2;
}

/// Two bf16 in one register, the first in the low half, and back.
__device__ __forceinline__ std::uint32_t pack(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  std::uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}
__device__ __forceinline__ float2 unpack(std::uint32_t bits) {
  return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000U));
}

/// What is added to the chunk number in row `row` (bitwise, without carry).
template <int kSize>
__device__ __forceinline__ int swizzle(int row) {
  return kSize % 64 == 0 ? row % 8 : row / 2 % 4;
}
/// Element 8 `chunk` of row `row` of a tile with kSize columns.
template <int kSize>
__device__ __forceinline__ int tile_index(int row, int chunk) {
  return row * kSize + 8 * (chunk ^ swizzle<kSize>(row));
}

/// Element 8 (chunk ^ 2 k) of row `row`, for the loops over k: one operation per step where rows are a power
/// of two long, since there a chunk's bits lie below the row's.
template <int kSize>
__device__ __forceinline__ int step_index(int row, int chunk, int k) {
  if constexpr ((kSize & (kSize - 1)) == 0)
    return (row * kSize + 8 * (chunk ^ swizzle<kSize>(row))) ^ (16 * k);
  else
    return row * kSize + 8 * ((chunk ^ swizzle<kSize>(row)) ^ (2 * k));
}

/// Starts copying positions [first, first + kRows) of a head into a tile, 16 bytes per thread and step; zeros
/// past the end of the sequence and of the head. 8 (or 4) neighbouring threads take 128 (64) bytes of a row.
template <int kSize, int kRows, int kThreads>
__device__ __forceinline__ void copy_tile(Bf16* tile, const Rows<const Bf16>& rows, int first, int time,
                                          int size) {
  constexpr int kLanes = kSize % 64 == 0 ? 8 : 4, kRowsAtOnce = kThreads / kLanes;
  static_assert(kRows % kRowsAtOnce == 0);
  const int row = static_cast<int>(threadIdx.x) / kLanes, chunk = static_cast<int>(threadIdx.x) % kLanes;
  const Bf16* from = rows.row(first + row) + 8 * chunk;
  Bf16* to =
      tile + tile_index<kSize>(row, chunk);  // 8 rows or kLanes chunks further, the swizzle is the same
#pragma unroll
  for (int r = 0; r < kRows; r += kRowsAtOnce, from += static_cast<std::int64_t>(kRowsAtOnce) * rows.stride)
#pragma unroll
    for (int c = 0; c < kSize / 8; c += kLanes)
      if (first + row + r < time && 8 * (chunk + c) < size)
        __pipeline_memcpy_async(to + r * kSize + 8 * c, from + 8 * c, 16);
      else
        *reinterpret_cast<uint4*>(to + r * kSize + 8 * c) = uint4{0, 0, 0, 0};
}

/// Left sides of products: rows [row, row + 16 kRowTiles) of a tile, fetched piece by piece ...
template <int kSize>
struct TileRows {
  const Bf16* tile;
  int row;
  __device__ __forceinline__ void load(std::uint32_t (&a)[4], int row_tile, int k, int lane) const {
    ldmatrix_x4(a, tile + (row + 16 * row_tile) * kSize + step_index<kSize>(lane % 16, lane / 16, k));
  }
};
/// ... or fetched once and kept.
template <int kSize, int kRowTiles>
struct RegisterRows {
  std::uint32_t pieces[kRowTiles][kSize / 16][4];
  __device__ __forceinline__ void load_from(const TileRows<kSize>& rows) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int k = 0; k < kSize / 16; ++k) rows.load(pieces[m][k], m, k, lane_id());
  }
  __device__ __forceinline__ void load(std::uint32_t (&a)[4], int row_tile, int k, int) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = pieces[row_tile][k][i];
  }
};

/// s = a b^T: sums [16 kRowTiles rows of a] x [8 kColumnTiles rows of the tile b].
template <int kSize, int kRowTiles, int kColumnTiles, typename Left>
__device__ __forceinline__ void warp_scores(float (&s)[kRowTiles][kColumnTiles][4], const Left& left,
                                            const Bf16* b) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) s[m][n][i] = 0;
  const int lane = lane_id_again();
  const int row = lane % 8 + lane / 16 * 8;  // of two column tiles
  const int chunk = lane / 8 % 2;
#pragma unroll
  for (int k = 0; k < kSize / 16; ++k) {
    std::uint32_t a[kRowTiles][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) left.load(a[m], m, k, lane);
#pragma unroll
    for (int n = 0; n < kColumnTiles; n += 2) {
      std::uint32_t pair[4];
      ldmatrix_x4(pair, b + 8 * n * kSize + step_index<kSize>(row, chunk, k));
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        mma_m16n8k16(s[m][n], a[m], {pair[0], pair[1]});
        mma_m16n8k16(s[m][n + 1], a[m], {pair[2], pair[3]});
      }
    }
  }
}

/// Sums as the left side of a product.
template <int kRowTiles, int kColumnTiles>
__device__ __forceinline__ void pack_weights(std::uint32_t (&p)[kRowTiles][kColumnTiles / 2][4],
                                             const float (&s)[kRowTiles][kColumnTiles][4]) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int k = 0; k < kColumnTiles / 2; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        p[m][k][i] = pack(s[m][2 * k + i / 2][i % 2 * 2], s[m][2 * k + i / 2][i % 2 * 2 + 1]);
}

/// acc += p x: weights of 16 kSteps positions, whose rows the tile x holds.
template <int kSize, int kRowTiles, int kSteps>
__device__ __forceinline__ void warp_accumulate(float (&acc)[kRowTiles][kSize / 8][4],
                                                const std::uint32_t (&p)[kRowTiles][kSteps][4],
                                                const Bf16* x) {
  const int lane = lane_id_again();
#pragma unroll
  for (int k = 0; k < kSteps; ++k)
#pragma unroll
    for (int n = 0; n < kSize / 8; n += 2) {
      std::uint32_t pair[4];
      ldmatrix_x4_trans(pair, x + 16 * k * kSize + step_index<kSize>(lane % 16, lane / 16, n / 2));
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        mma_m16n8k16(acc[m][n], p[m][k], {pair[0], pair[1]});
        mma_m16n8k16(acc[m][n + 1], p[m][k], {pair[2], pair[3]});
      }
    }
}

/// Sums times a factor per row, to rows [first, first + 16 kRowTiles) of a head, 16 bytes per lane and step.
/// They are sorted in this warp's rows of a tile, which nobody needs any more.
template <int kSize, int kRowTiles>
__device__ __forceinline__ void store_warp_rows(const Rows<Bf16>& rows, Bf16* tile,
                                                const float (&acc)[kRowTiles][kSize / 8][4],
                                                const float (&factor)[kRowTiles][2], int first, int time,
                                                int size) {
  __syncwarp();
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int n = 0; n < kSize / 8; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = tile_index<kSize>(16 * m + 8 * half + lane_row(), n) + lane_column();
        *reinterpret_cast<std::uint32_t*>(tile + at) =
            pack(acc[m][n][2 * half] * factor[m][half], acc[m][n][2 * half + 1] * factor[m][half]);
      }
  __syncwarp();
  constexpr int kChunks = kSize / 8;
#pragma unroll
  for (int step = 0; step < 16 * kRowTiles * kChunks / 32; ++step) {
    const int row = (step * 32 + lane_id()) / kChunks, chunk = (step * 32 + lane_id()) % kChunks;
    if (first + row < time && 8 * chunk < size)
      *reinterpret_cast<uint4*>(rows.row(first + row) + 8 * chunk) =
          *reinterpret_cast<const uint4*>(tile + tile_index<kSize>(row, chunk));
  }
}

/// In which order blocks take tiles; they start with blockIdx.x running fastest. With causal attention tiles
/// differ in length up to T / tile times, so the longest must start first, or the last of them run alone at
/// the end. But all heads at once would not fit the L2 cache, from which a head's blocks should share what
/// they all read. So heads are taken in groups that fit, and in each group the longest tiles first: grid
/// (heads of a group, tiles, groups). The last group may have fewer heads.
inline dim3 tile_grid(const AttentionSize& s, int rows_per_tile) {
  constexpr std::int64_t kCache = 24 << 20;  // bytes: half of an H100's L2, 60% of an A100's
  const std::int64_t heads = s.batch * s.heads, bytes = s.time * s.head_size * 2 * 2;
  const std::int64_t group = std::clamp<std::int64_t>(kCache / bytes, 1, heads);
  return dim3(static_cast<unsigned>(group), blocks_for(s.time, rows_per_tile), blocks_for(heads, group));
}
__device__ __forceinline__ int block_head() {
  return static_cast<int>(blockIdx.z * gridDim.x + blockIdx.x);
}

/// 2^x; 0 for -infinity. One instruction, wrong by at most 2 units in the last place.
__device__ __forceinline__ float fast_exp2(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return std::exp2(x);
#endif
}

}  // namespace llm::cuda
