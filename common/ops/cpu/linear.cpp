// Linear layers, forward and backward: three matrix products around one weight. Chapter 3.
#include "common/core/threads.h"
#include "common/ops/cpu/gemm.h"
#include "common/ops/cpu/kernels.h"

namespace llm::cpu {

void linear_forward(float* y, const float* x, const float* w, const float* b, Index rows, Index in,
                    Index out) {
  multiply({false, true, rows, out, in, 1, x, in, w, in, 0, y, out, b});  // (N, I) (I, O) -> (N, O)
}

void linear_backward(float* dx, float* dw, float* db, const float* dy, const float* x, const float* w,
                     Index rows, Index in, Index out) {
  if (dx) multiply({false, false, rows, in, out, 1, dy, out, w, in, 0, dx, in});  // (N, O) (O, I) -> (N, I)
  multiply({true, false, out, in, rows, 1, dy, out, x, in, 1, dw, in});           // (O, N) (N, I) -> (O, I)
  if (!db) return;
  parallel_for(out, 128, [=](Index begin, Index end) {
    for (Index row = 0; row < rows; ++row) {
      const float* line = dy + row * out;
#pragma GCC ivdep
      for (Index o = begin; o < end; ++o) db[o] += line[o];
    }
  });
}

}  // namespace llm::cpu
