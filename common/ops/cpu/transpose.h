// Sixteen by sixteen numbers transposed within registers: four rounds that exchange halves, quarters, pairs
// and single lanes between rows. Chapter 3.
#pragma once

#include <algorithm>

#include "common/ops/cpu/kernels.h"
#include "common/ops/cpu/vec.h"

namespace llm::cpu {

/// Rows i and i + Step exchange their off-diagonal groups of Step lanes.
template <int Step>
[[gnu::always_inline]] inline void exchange(Vec (&row)[kLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (i & Step) continue;
    const Vec a = row[i], b = row[i + Step];
    if constexpr (Step == 8) {
      row[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
      row[i + 8] =
          __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    } else if constexpr (Step == 4) {
      row[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
      row[i + 4] = __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    } else if constexpr (Step == 2) {
      row[i] = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
      row[i + 2] = __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    } else {
      row[i] = __builtin_shufflevector(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
      row[i + 1] = __builtin_shufflevector(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
    }
  }
}

/// Lane i of the result is the sum of the lanes of row[i] (or their maximum, or whatever `combine` does to
/// two): the rounds of the transposition, each followed by adding what has met. Fifteen additions for sixteen
/// rows.
template <typename Combine>
[[gnu::always_inline]] inline Vec reduce_rows(Vec (&row)[kLanes], const Combine& combine) {
  exchange<8>(row);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) row[i] = combine(row[i], row[i + 8]);
  exchange<4>(row);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) row[i] = combine(row[i], row[i + 4]);
  exchange<2>(row);
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) row[i] = combine(row[i], row[i + 2]);
  exchange<1>(row);
  return combine(row[0], row[1]);
}

/// from (rows <= 16, columns), `from_row` floats apart -> to (columns, 16), `to_row` apart; zeros for missing
/// rows.
inline void transpose_block(float* to, Index to_row, const float* from, Index from_row, Index rows,
                            Index columns) {
  for (Index c = 0; c < columns; c += kLanes) {
    const Index width = std::min(kLanes, columns - c);
    Vec row[kLanes];
    if (rows == kLanes && width == kLanes) {
#pragma GCC unroll 16
      for (Index i = 0; i < kLanes; ++i) row[i] = load(from + i * from_row + c);
    } else {
      for (Index i = 0; i < kLanes; ++i)
        row[i] = i < rows ? load_part(from + i * from_row + c, width) : Vec{};
    }
    exchange<8>(row);
    exchange<4>(row);
    exchange<2>(row);
    exchange<1>(row);
    if (width == kLanes) {
#pragma GCC unroll 16
      for (Index i = 0; i < kLanes; ++i) store(to + (c + i) * to_row, row[i]);
    } else {
      for (Index i = 0; i < width; ++i) store(to + (c + i) * to_row, row[i]);
    }
  }
}

}  // namespace llm::cpu
