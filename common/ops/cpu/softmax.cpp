// Softmax of rows: y = exp(x - max) / sum. Subtracting the row's maximum changes nothing and keeps exp from
// overflowing. Chapter 3.
#include <cmath>
#include <limits>

#include "common/core/threads.h"
#include "common/ops/cpu/kernels.h"
#include "common/ops/cpu/vec.h"

namespace llm::cpu {

float row_max(const float* x, Index count) {
  constexpr float kLeast = -std::numeric_limits<float>::infinity();
  Vec best[2] = {splat(kLeast), splat(kLeast)};
  Index i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    best[0] = max(best[0], load(x + i));
    best[1] = max(best[1], load(x + i + kLanes));
  }
  for (; i + kLanes <= count; i += kLanes) best[0] = max(best[0], load(x + i));
  if (i < count) best[1] = max(best[1], load_part(x + i, count - i, kLeast));
  return largest(max(best[0], best[1]));
}

float row_exp(float* y, const float* x, Index count, float shift) {
  Vec total[2] = {};
  Index i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    const Vec a = exp_nonpositive(load(x + i) - shift);
    const Vec b = exp_nonpositive(load(x + i + kLanes) - shift);
    total[0] += a;
    total[1] += b;
    if (y) {
      store(y + i, a);
      store(y + i + kLanes, b);
    }
  }
  for (; i < count; i += kLanes) {
    const Index left = count - i < kLanes ? count - i : kLanes;
    // The lanes past the end are -inf and add nothing.
    const Vec a = exp_nonpositive(load_part(x + i, left, -std::numeric_limits<float>::infinity()) - shift);
    total[0] += a;
    if (y) store_part(y + i, a, left);
  }
  return sum(total[0] + total[1]);
}

void softmax_forward(float* y, const float* x, Index rows, Index columns) {
  parallel_for(rows, 1 + 4096 / (columns + 1), [=](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const float* in = x + row * columns;
      float* out = y + row * columns;
      const float total = row_exp(out, in, columns, row_max(in, columns));
#pragma GCC ivdep
      for (Index c = 0; c < columns; ++c) out[c] /= total;
    }
  });
}

/// dx_i = y_i (dy_i - sum_j y_j dy_j).
void softmax_backward(float* dx, const float* dy, const float* y, Index rows, Index columns) {
  parallel_for(rows, 1 + 4096 / (columns + 1), [=](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const float* p = y + row * columns;
      const float* dp = dy + row * columns;
      float* out = dx + row * columns;
      Vec partial = {};
      Index c = 0;
      for (; c + kLanes <= columns; c += kLanes) partial += load(p + c) * load(dp + c);
      if (c < columns) partial += load_part(p + c, columns - c) * load_part(dp + c, columns - c);
      const float dot = sum(partial);
#pragma GCC ivdep
      for (c = 0; c < columns; ++c) out[c] = p[c] * (dp[c] - dot);
    }
  });
}

}  // namespace llm::cpu
