// How a product is shared out when a library computes it: the library runs on one thread, and each of our
// threads calls it for pieces of C. The pieces depend on the sizes alone, for a library may add up in another
// order when it is given other sizes.
#pragma once

#include <algorithm>

#include "common/core/threads.h"
#include "common/ops/cpu/gemm.h"

namespace llm::cpu {

/// Calls library(piece) for pieces of `whole`, then adds the bias to each.
template <typename Library>
void multiply_pieces(const Product& whole, const Library& library) {
  if (whole.m <= 0 || whole.n <= 0) return;
  constexpr Index kMultiple = 48, kPieces = 8;
  const bool by_columns = whole.n >= whole.m;
  const Index size = by_columns ? whole.n : whole.m;
  const Index piece =
      std::max(4 * kMultiple, (size + kPieces * kMultiple - 1) / (kPieces * kMultiple) * kMultiple);
  parallel_for((size + piece - 1) / piece, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      Product o = whole;
      const Index first = i * piece;
      const Index count = std::min(piece, size - first);
      if (by_columns) {
        o.n = count;
        o.b += first * (o.transpose_b ? o.ldb : 1);
        o.c += first;
        if (o.bias) o.bias += first;
      } else {
        o.m = count;
        o.a += first * (o.transpose_a ? 1 : o.lda);
        o.c += first * o.ldc;
      }
      if (o.k > 0)
        library(o);
      else  // not every library takes a sum of nothing
        for (Index row = 0; row < o.m; ++row)
          for (Index j = 0; j < o.n; ++j)
            o.c[row * o.ldc + j] = o.beta == 0 ? 0 : o.beta * o.c[row * o.ldc + j];
      if (!o.bias) continue;
      for (Index row = 0; row < o.m; ++row) {
        float* line = o.c + row * o.ldc;
#pragma GCC ivdep
        for (Index j = 0; j < o.n; ++j) line[j] += o.bias[j];
      }
    }
  });
}

}  // namespace llm::cpu
