// The inner loop of a matrix product: some rows times some vectors, all sums in registers. Chapter 3.
//
// A fused multiply-add takes four cycles and two start in each, so at least eight must be under way. With the
// 32 registers of AVX-512, eight rows times three vectors of sixteen make twenty-four running sums, and each
// number read is used eight or forty-eight times. Where there are 16 registers of eight lanes, a vector takes
// two: six rows times one vector make twelve sums.
//
// A virtual processor often shares its core with somebody else's, and then has room for three instructions
// per cycle, not six. So every one beside the twelve multiplications and the eight loads costs time: the loop
// is unrolled.
#pragma once

#include "common/ops/cpu/kernels.h"
#include "common/ops/cpu/vec.h"

namespace llm::cpu {

constexpr Index kTileRows = kParts == 1 ? 8 : 6;
constexpr int kTileVectors = kParts == 1 ? 3 : 1;

/// total (Rows, 16 Vectors) += A (Rows, k) B (k, 16 Vectors), where A(i, p) = a[i a_row + p a_column] and
/// B(p, j) = b[p b_row + j]. Every sum is added in the order of p.
template <Index Rows, int Vectors>
[[gnu::always_inline]] inline void tile_sums(Vec (&total)[Rows][Vectors], const float* a, Index a_row,
                                             Index a_column, const float* b, Index b_row, Index k) {
  // Rows of B to fetch in advance, about 200 cycles, where one row is three cache lines. One line comes in
  // time by itself.
  constexpr Index kAhead = 16;
#pragma GCC unroll 8
  for (Index p = 0; p < k; ++p) {
    Vec right[Vectors];
#pragma GCC unroll 3
    for (int v = 0; v < Vectors; ++v) {
      right[v] = load(b + p * b_row + v * kLanes);
      if constexpr (kParts == 1) __builtin_prefetch(b + (p + kAhead) * b_row + v * kLanes);
    }
#pragma GCC unroll 8
    for (Index i = 0; i < Rows; ++i) {
      const float left = a[i * a_row + p * a_column];
#pragma GCC unroll 3
      for (int v = 0; v < Vectors; ++v) total[i][v] += left * right[v];
    }
  }
}

// For attention, whose blocks are cut into strips of eight rows: the same loop, as two halves of four rows
// where eight do not fit the registers.
constexpr Index kStrip = 8;

template <Index Rows, int Vectors>
inline void strip_product_part(float* c, Index c_row, const float* a, Index a_row, Index a_column,
                               const float* b, Index b_row, Index k, bool accumulate) {
  Vec total[Rows][Vectors] = {};
  if (a_column == 1)  // a constant stride makes shorter code
    tile_sums(total, a, a_row, 1, b, b_row, k);
  else
    tile_sums(total, a, a_row, a_column, b, b_row, k);
#pragma GCC unroll 8
  for (Index i = 0; i < Rows; ++i)
#pragma GCC unroll 3
    for (int v = 0; v < Vectors; ++v) {
      float* place = c + i * c_row + v * kLanes;
      store(place, accumulate ? load(place) + total[i][v] : total[i][v]);
    }
}

/// C (8, n) = (or += with `accumulate`) A (8, k) B (k, n) for n a multiple of 16.
inline void strip_product(float* c, Index c_row, const float* a, Index a_row, Index a_column, const float* b,
                          Index b_row, Index n, Index k, bool accumulate) {
  constexpr Index kRows = kParts == 1 ? kStrip : kStrip / 2;
  constexpr int kVectors = kParts == 1 ? 2 : 1;
  Index column = 0;
  for (; column + kVectors * kLanes <= n; column += kVectors * kLanes)
    for (Index row = 0; row < kStrip; row += kRows)
      strip_product_part<kRows, kVectors>(c + row * c_row + column, c_row, a + row * a_row, a_row, a_column,
                                          b + column, b_row, k, accumulate);
  if (column < n)
    for (Index row = 0; row < kStrip; row += kRows)
      strip_product_part<kRows, 1>(c + row * c_row + column, c_row, a + row * a_row, a_row, a_column,
                                   b + column, b_row, k, accumulate);
}

}  // namespace llm::cpu
