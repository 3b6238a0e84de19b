// A linear layer while generating: few rows, for each is one sequence's newest token. Chapters 5 and 7.
//
// Each weight is used once per row, so for few rows nearly all the time goes into getting at the weights. The
// kernel of large products (gemm_builtin.cpp) first copies all of them into another order; that would be most
// of the work here. Here the rows are transposed instead, which are small: a vector holds the same input of
// eight rows, and a weight, read once from where it lies, is multiplied with all of them. Eight sequences
// cost what one does.
//
// An output is the sum of its products in the order of the inputs, whatever the number of rows. So a sequence
// gets the same bits alone and beside others; the products of matrix libraries promise no such thing.
#include <algorithm>
#include <cstring>

#include "common/core/threads.h"
#include "common/ops/cpu/decode.h"
#include "common/ops/cpu/scratch.h"

namespace llm::cpu {

namespace {

constexpr Index kRows = 8;
typedef float Eight __attribute__((vector_size(kRows * sizeof(float))));

/// Outs outputs of eight rows. columns (in, 8) is x transposed: a weight is read once, and multiplied with
/// the same input of all rows.
template <int Outs>
void rows_in_lanes(float* y, Index y_row, Index rows, const float* columns, const float* w, const float* b,
                   Index in) {
  Eight total[Outs] = {};
  for (Index i = 0; i < in; ++i) {
    Eight column;
    std::memcpy(&column, columns + i * kRows, sizeof column);
#pragma GCC unroll 12
    for (int o = 0; o < Outs; ++o) total[o] += w[o * in + i] * column;
  }
  for (int o = 0; o < Outs; ++o)
    for (Index r = 0; r < rows; ++r) y[r * y_row + o] = total[o][r] + (b ? b[o] : 0.0F);
}

}  // namespace

void linear_decode(float* y, const float* x, const float* w, const float* b, Index rows, Index in,
                   Index out) {
  constexpr int kOuts = 12;            // running sums
  constexpr Index kGrainWork = 16384;  // weights worth a thread
  static thread_local Scratch scratch;
  const Index padded = (rows + kRows - 1) / kRows * kRows;
  float* columns = scratch.floats(padded * in);  // of each eight rows, one after the other
  for (Index r = 0; r < padded; ++r)
    for (Index i = 0; i < in; ++i)
      columns[(r / kRows * in + i) * kRows + r % kRows] = r < rows ? x[r * in + i] : 0.0F;

  parallel_for((out + kOuts - 1) / kOuts, 1 + kGrainWork / (kOuts * in), [=](Index first, Index last) {
    const Index end = std::min(out, last * kOuts);
    for (Index o = first * kOuts; o < end;) {
      const bool many = o + kOuts <= end;
      for (Index r = 0; r < rows; r += kRows)
        (many ? rows_in_lanes<kOuts> : rows_in_lanes<1>)(y + r * out + o, out, std::min(kRows, rows - r),
                                                         columns + r * in, w + o * in, b ? b + o : nullptr,
                                                         in);
      o += many ? kOuts : 1;
    }
  });
}

}  // namespace llm::cpu
