// Rows become columns within registers: in rounds that exchange halves, quarters, pairs and single lanes
// between rows, so that what stood in sixteen rows meets. Chapter 3.
#pragma once

#include <cstring>
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
/// two): the rounds of a transposition, each followed by adding what has met. Fifteen additions for sixteen
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

// Four by four numbers within 128 bits, for which processors have instructions of their own: of (a0 a1 a2 a3)
// and (b0 b1 b2 b3), zipped<0> makes (a0 b0 a1 b1) and zipped<2> (a2 b2 a3 b3); paired<0> makes (a0 a1 b0 b1)
// and paired<2> (a2 a3 b2 b3).
template <int First>
[[gnu::always_inline]] inline Part zipped(const Part& a, const Part& b) {
  IntPart from;
#pragma GCC unroll 16
  for (int i = 0; i < kPartLanes; ++i) from[i] = (i & ~3) + First + (i & 3) / 2 + (i & 1) * kPartLanes;
  return __builtin_shuffle(a, b, from);
}
template <int First>
[[gnu::always_inline]] inline Part paired(const Part& a, const Part& b) {
  IntPart from;
#pragma GCC unroll 16
  for (int i = 0; i < kPartLanes; ++i) from[i] = (i & ~3) + First + (i & 1) + (i & 2) / 2 * kPartLanes;
  return __builtin_shuffle(a, b, from);
}

/// As many rows as a part has lanes, transposed: first groups of four lanes change places between rows, then
/// four rows at a time the numbers within the groups.
[[gnu::always_inline]] inline void transpose_square(Part (&row)[kPartLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kPartLanes; ++i) {
    if constexpr (kPartLanes > 8)
      if (!(i & 8)) exchange_lanes<8>(row[i], row[i + 8]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kPartLanes; ++i) {
    if constexpr (kPartLanes > 4)
      if (!(i & 4)) exchange_lanes<4>(row[i], row[i + 4]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kPartLanes; i += 4) {
    const Part low = zipped<0>(row[i], row[i + 1]), high = zipped<2>(row[i], row[i + 1]);
    const Part next_low = zipped<0>(row[i + 2], row[i + 3]), next_high = zipped<2>(row[i + 2], row[i + 3]);
    row[i] = paired<0>(low, next_low);
    row[i + 1] = paired<2>(low, next_low);
    row[i + 2] = paired<0>(high, next_high);
    row[i + 3] = paired<2>(high, next_high);
  }
}

/// from (rows <= 16, columns), `from_row` floats apart -> to (columns, 16), `to_row` apart; zeros for missing
/// rows. In squares that fit the registers.
inline void transpose_block(float* to, Index to_row, const float* from, Index from_row, Index rows,
                            Index columns) {
  const Index whole = rows == kLanes ? columns / kPartLanes * kPartLanes : 0;
  for (Index c = 0; c < whole; c += kPartLanes)
    for (Index first = 0; first < kLanes; first += kPartLanes) {
      Part row[kPartLanes];
#pragma GCC unroll 16
      for (Index i = 0; i < kPartLanes; ++i)
        std::memcpy(&row[i], from + (first + i) * from_row + c, sizeof row[i]);
      transpose_square(row);
#pragma GCC unroll 16
      for (Index i = 0; i < kPartLanes; ++i)
        std::memcpy(to + (c + i) * to_row + first, &row[i], sizeof row[i]);
    }
  for (Index c = whole; c < columns; ++c)
    for (Index i = 0; i < kLanes; ++i) to[c * to_row + i] = i < rows ? from[i * from_row + c] : 0;
}

}  // namespace llm::cpu
