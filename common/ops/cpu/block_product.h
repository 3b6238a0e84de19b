// The inner loop of a matrix product: eight rows times up to three vectors, all sums in registers. Chapter 3.
//
// A fused multiply-add takes four cycles and two start in each, so at least eight must be under way. Eight
// rows times three vectors of sixteen make twenty-four running sums; with their operands they fit the 32
// registers of AVX-512, and each number read is used eight or forty-eight times.
#pragma once

#include "common/ops/cpu/kernels.h"
#include "common/ops/cpu/vec.h"

namespace llm::cpu {

constexpr Index kStrip = 8;  // rows

/// total (8, 16 Vectors) += A (8, k) B (k, 16 Vectors), where A(i, p) = a[i a_row + p a_column] and
/// B(p, j) = b[p b_row + j]. Every sum is added in the order of p.
template <int Vectors>
[[gnu::always_inline]] inline void strip_sums(Vec (&total)[kStrip][Vectors], const float* a, Index a_row,
                                              Index a_column, const float* b, Index b_row, Index k) {
  constexpr Index kAhead = 16;  // rows of B to fetch in advance: about 200 cycles
  for (Index p = 0; p < k; ++p) {
    Vec right[Vectors];
#pragma GCC unroll 3
    for (int v = 0; v < Vectors; ++v) {
      right[v] = load(b + p * b_row + v * kLanes);
      __builtin_prefetch(b + (p + kAhead) * b_row + v * kLanes);
    }
#pragma GCC unroll 8
    for (Index i = 0; i < kStrip; ++i) {
      const float left = a[i * a_row + p * a_column];
#pragma GCC unroll 3
      for (int v = 0; v < Vectors; ++v) total[i][v] += left * right[v];
    }
  }
}

template <int Vectors>
inline void strip_product_columns(float* c, Index c_row, const float* a, Index a_row, Index a_column,
                                  const float* b, Index b_row, Index k, bool accumulate) {
  Vec total[kStrip][Vectors] = {};
  if (a_column == 1)  // a constant stride makes shorter code
    strip_sums<Vectors>(total, a, a_row, 1, b, b_row, k);
  else
    strip_sums<Vectors>(total, a, a_row, a_column, b, b_row, k);
#pragma GCC unroll 8
  for (Index i = 0; i < kStrip; ++i)
#pragma GCC unroll 3
    for (int v = 0; v < Vectors; ++v) {
      float* place = c + i * c_row + v * kLanes;
      store(place, accumulate ? load(place) + total[i][v] : total[i][v]);
    }
}

/// C (8, n) = (or += with `accumulate`) A (8, k) B (k, n) for n a multiple of 16.
inline void strip_product(float* c, Index c_row, const float* a, Index a_row, Index a_column, const float* b,
                          Index b_row, Index n, Index k, bool accumulate) {
  Index column = 0;
  for (; column + 2 * kLanes <= n; column += 2 * kLanes)
    strip_product_columns<2>(c + column, c_row, a, a_row, a_column, b + column, b_row, k, accumulate);
  if (column < n)
    strip_product_columns<1>(c + column, c_row, a, a_row, a_column, b + column, b_row, k, accumulate);
}

}  // namespace llm::cpu
