// Sums over rows (gradients of biases, gamma and beta) without atomics: the rows are cut into pieces, each
// piece is summed by itself, and the pieces are added in order. How many pieces there are depends on the
// sizes alone, so the result has the same bits on every GPU. Chapter 3.
#pragma once

#include "common/core/tensor.h"

namespace llm::cuda {

/// Rows cut into pieces of equal size (the last may be shorter).
struct Pieces {
  std::int64_t rows_each, count;
};
/// At most `most` pieces, of a multiple of `multiple` rows each.
Pieces cut_rows(std::int64_t rows, std::int64_t most, std::int64_t multiple);

/// a[c] += the sum over the pieces, in order, of partial (pieces, columns). With a second target, partial is
/// (pieces, 2, columns) and b takes the second half; either may be null: not wanted.
void add_pieces(float* a, const float* partial, std::int64_t columns, std::int64_t pieces);
void add_pieces(float* a, float* b, const float* partial, std::int64_t columns, std::int64_t pieces);

/// to (columns, f32) += the sum of the rows of x (N, columns).
void add_column_sums(float* to, const Tensor& x, std::int64_t columns);

}  // namespace llm::cuda
