// Linear layers, forward and backward: three matrix products around one weight. Chapter 3.
#include <algorithm>

#include "common/core/threads.h"
#include "common/ops/cpu/gemm.h"
#include "common/ops/cpu/kernels.h"
#include "common/ops/cpu/vec.h"

namespace llm::cpu {

void linear_forward(float* y, const float* x, const float* w, const float* b, Index rows, Index in,
                    Index out) {
  multiply({false, true, rows, out, in, 1, x, in, w, in, 0, y, out, b});  // (N, I) (I, O) -> (N, O)
}

void linear_backward(float* dx, float* dw, float* db, const float* dy, const float* x, const float* w,
                     Index rows, Index in, Index out) {
  if (dx) multiply({false, false, rows, in, out, 1, dy, out, w, in, 0, dx, in});  // (N, O) (O, I) -> (N, I)
  if (dw) multiply({true, false, out, in, rows, 1, dy, out, x, in, 1, dw, in});   // (O, N) (N, I) -> (O, I)
  if (!db) return;
  // Column sums, eight rows at a time, so that db is read and written only once for them.
  constexpr Index kRows = 8;
  parallel_for((out + kLanes - 1) / kLanes, 8, [=](Index begin, Index end) {
    for (Index row = 0; row < rows; row += kRows)
      for (Index o = begin * kLanes; o < std::min(out, end * kLanes); o += kLanes) {
        const Index count = std::min(kLanes, out - o);
        Vec total = load_part(db + o, count);
        for (Index i = row; i < std::min(rows, row + kRows); ++i) {
          const float* from = dy + i * out + o;
          total += load_up_to(from, count);
        }
        store_part(db + o, total, count);
      }
  });
}

}  // namespace llm::cpu
