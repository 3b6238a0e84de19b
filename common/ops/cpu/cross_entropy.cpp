// Cross-entropy of the next token: -log softmax(logits)[target], and the same fused with the head that makes
// the logits. Chapter 4.
#include <algorithm>
#include <cmath>

#include "common/core/threads.h"
#include "common/ops/cpu/gemm.h"
#include "common/ops/cpu/kernels.h"
#include "common/ops/cpu/scratch.h"
#include "common/ops/cpu/vec.h"

namespace llm::cpu {

namespace {

/// One row's loss; if `gradient` is not null (it may be the row itself), scale * (softmax - one_hot) into it.
float row_loss(float* gradient, const float* logits, std::int32_t target, float scale, Index vocabulary) {
  if (target < 0) {
    if (gradient) std::fill_n(gradient, vocabulary, 0.0F);
    return 0;
  }
  const float right = logits[target];
  const float highest = row_max(logits, vocabulary);
  const float total = row_exp(gradient, logits, vocabulary, highest);
  if (gradient) {
    const float factor = scale / total;
#pragma GCC ivdep
    for (Index v = 0; v < vocabulary; ++v) gradient[v] *= factor;
    gradient[target] -= scale;
  }
  return std::log(total) + (highest - right);
}

Index grain(Index vocabulary) {
  return 1 + 4096 / vocabulary;
}

}  // namespace

void cross_entropy_forward(float* losses, const float* logits, const std::int32_t* targets, Index rows,
                           Index vocabulary) {
  parallel_for(rows, grain(vocabulary), [=](Index begin, Index end) {
    for (Index row = begin; row < end; ++row)
      losses[row] = row_loss(nullptr, logits + row * vocabulary, targets[row], 0, vocabulary);
  });
}

void cross_entropy_backward(float* dlogits, const float* logits, const std::int32_t* targets, float scale,
                            Index rows, Index vocabulary) {
  parallel_for(rows, grain(vocabulary), [=](Index begin, Index end) {
    for (Index row = begin; row < end; ++row)
      row_loss(dlogits + row * vocabulary, logits + row * vocabulary, targets[row], scale, vocabulary);
  });
}

// Rows are taken in equal blocks whose logits fill at most 64 MB (GPT-2: up to 333 rows): each block's logits
// are made, turned into their own gradient in place, used for dx and dw, and forgotten. Smaller blocks would
// need less memory but pass more often over w and dw, which are 154 MB each.
void linear_cross_entropy(float* losses, float* dx, float* dw, const float* x, const float* w,
                          const std::int32_t* targets, float scale, const float* weights, Index rows,
                          Index channels, Index vocabulary) {
  constexpr Index kLogits = Index{16} << 20;  // elements
  const Index most = std::max<Index>(1, kLogits / vocabulary);
  const Index blocks = std::max<Index>(1, (rows + most - 1) / most);
  const Index block = (rows + blocks - 1) / blocks;
  static thread_local Scratch scratch;
  float* const logits = scratch.floats(block * vocabulary);
  for (Index first = 0; first < rows; first += block) {
    const Index n = std::min(block, rows - first);
    const float* xs = x + first * channels;
    multiply({false, true, n, vocabulary, channels, 1, xs, channels, w, channels, 0, logits, vocabulary});
    parallel_for(n, grain(vocabulary), [=](Index begin, Index end) {
      for (Index row = begin; row < end; ++row) {
        float* line = logits + row * vocabulary;
        const float weight = weights ? scale * weights[first + row] : scale;
        losses[first + row] = row_loss(dx ? line : nullptr, line, targets[first + row], weight, vocabulary);
      }
    });
    if (!dx) continue;
    multiply({false, false, n, channels, vocabulary, 1, logits, vocabulary, w, channels, 0,
              dx + first * channels, channels});
    if (dw)
      multiply({true, false, vocabulary, channels, n, 1, logits, vocabulary, xs, channels, 1, dw, channels});
  }
}

}  // namespace llm::cpu
