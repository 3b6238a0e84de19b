// The inner loop of a matrix product: eight rows times two vectors, all sums in registers. Chapter 3.
//
// Attention multiplies many small blocks (64 x 64 x D), for which a library's packing and calls cost as much
// as the product. Eight rows and two vectors of sixteen make sixteen running sums: enough to keep two fused
// multiply-adds per cycle busy (each takes four), and with their operands they fit the 32 registers.
#pragma once

#include "common/ops/cpu/kernels.h"
#include "common/ops/cpu/vec.h"

namespace llm::cpu {

constexpr Index kStrip = 8;  // rows

/// C[0:8][0:16 Vectors] (+)= sum over p < k of A(i, p) B[p][...], where A(i, p) = a[i a_row + p a_column].
template <int Vectors>
inline void strip_product_columns(float* c, Index c_row, const float* a, Index a_row, Index a_column,
                                  const float* b, Index b_row, Index k, bool accumulate) {
  Vec total[kStrip][Vectors] = {};
  for (Index p = 0; p < k; ++p) {
    Vec right[Vectors];
    for (int v = 0; v < Vectors; ++v) right[v] = load(b + p * b_row + v * kLanes);
    for (Index i = 0; i < kStrip; ++i) {
      const float left = a[i * a_row + p * a_column];
      for (int v = 0; v < Vectors; ++v) total[i][v] += left * right[v];
    }
  }
  for (Index i = 0; i < kStrip; ++i)
    for (int v = 0; v < Vectors; ++v) {
      float* place = c + i * c_row + v * kLanes;
      store(place, accumulate ? load(place) + total[i][v] : total[i][v]);
    }
}

/// The same for n columns, a multiple of 16.
inline void strip_product(float* c, Index c_row, const float* a, Index a_row, Index a_column, const float* b,
                          Index b_row, Index n, Index k, bool accumulate) {
  Index column = 0;
  for (; column + 2 * kLanes <= n; column += 2 * kLanes)
    strip_product_columns<2>(c + column, c_row, a, a_row, a_column, b + column, b_row, k, accumulate);
  if (column < n)
    strip_product_columns<1>(c + column, c_row, a, a_row, a_column, b + column, b_row, k, accumulate);
}

}  // namespace llm::cpu
