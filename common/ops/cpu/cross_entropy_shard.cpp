// Cross-entropy where each of several ranks has the logits of a part of the vocabulary. See ops.h; chapter 6.
#include <algorithm>
#include <cmath>
#include <limits>

#include "common/core/threads.h"
#include "common/ops/cpu/kernels.h"

namespace llm::cpu {

namespace {

Index grain(Index vocabulary) {
  return 1 + 4096 / vocabulary;
}

}  // namespace

void shard_cross_entropy_statistics(float* highest, float* total, float* right, const float* logits,
                                    const std::int32_t* targets, Index rows, Index vocabulary, Index first) {
  parallel_for(rows, grain(vocabulary), [=](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const float* line = logits + row * vocabulary;
      // Finite, so that the difference of two is never that of two infinities.
      highest[row] = std::max(row_max(line, vocabulary), std::numeric_limits<float>::lowest());
      total[row] = row_exp(nullptr, line, vocabulary, highest[row]);
      const Index target = targets[row] - first;
      right[row] = targets[row] >= 0 && target >= 0 && target < vocabulary ? line[target] : 0.0F;
    }
  });
}

void shard_cross_entropy_rescale(float* total, const float* highest, const float* new_highest, Index rows) {
  for (Index row = 0; row < rows; ++row) total[row] *= std::exp(highest[row] - new_highest[row]);
}

void shard_cross_entropy_losses(float* losses, const float* highest, const float* total, const float* right,
                                const std::int32_t* targets, Index rows) {
  for (Index row = 0; row < rows; ++row)
    losses[row] = targets[row] < 0 ? 0.0F : std::log(total[row]) + (highest[row] - right[row]);
}

void shard_cross_entropy_backward(float* dlogits, const float* logits, const std::int32_t* targets,
                                  const float* highest, const float* total, float scale, const float* weights,
                                  Index rows, Index vocabulary, Index first) {
  parallel_for(rows, grain(vocabulary), [=](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      float* gradient = dlogits + row * vocabulary;
      if (targets[row] < 0) {
        std::fill_n(gradient, vocabulary, 0.0F);
        continue;
      }
      row_exp(gradient, logits + row * vocabulary, vocabulary, highest[row]);
      const float share = weights ? scale * weights[row] : scale;
      const float factor = share / total[row];
#pragma GCC ivdep
      for (Index v = 0; v < vocabulary; ++v) gradient[v] *= factor;
      const Index target = targets[row] - first;
      if (target >= 0 && target < vocabulary) gradient[target] -= share;
    }
  });
}

}  // namespace llm::cpu
