// Sixteen by sixteen numbers transposed within registers: four rounds that exchange halves, quarters, pairs
// and single lanes between rows. Chapter 3.
#pragma once

#include <algorithm>
#include <utility>

#include "common/ops/cpu/kernels.h"
#include "common/ops/cpu/vec.h"

namespace llm::cpu {

/// Two parts exchange their off-diagonal groups of Step lanes: of (a0 a1 | b0 b1) in such groups, a becomes
/// (a0 b0) and b becomes (a1 b1).
template <int Step>
[[gnu::always_inline]] inline void exchange_lanes(Part& a, Part& b) {
  const Part old_a = a, old_b = b;
  // Lane i of the new a is lane i of the old where i is in an even group, else lane i - Step of b; of the new
  // b, lane i + Step of a where i is in an even group, else lane i of the old. __builtin_shuffle counts b's
  // lanes on from a's.
  IntPart from_a, from_b;
#pragma GCC unroll 16
  for (int i = 0; i < kPartLanes; ++i) {
    from_a[i] = i & Step ? kPartLanes + i - Step : i;
    from_b[i] = i & Step ? kPartLanes + i : i + Step;
  }
  a = __builtin_shuffle(old_a, old_b, from_a);
  b = __builtin_shuffle(old_a, old_b, from_b);
}

/// Rows i and i + Step exchange their off-diagonal groups of Step lanes.
template <int Step>
[[gnu::always_inline]] inline void exchange(Vec (&row)[kLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (i & Step) continue;
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) {
      if constexpr (Step < kPartLanes) {
        exchange_lanes<Step>(row[i].part[p], row[i + Step].part[p]);
      } else {  // whole parts change places
        constexpr int kApart = Step / kPartLanes;
        if (p & kApart) continue;
        std::swap(row[i].part[p + kApart], row[i + Step].part[p]);
      }
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
