// What a rank sends in one training step, from the layout alone: the formulas that measurements are held
// against. Chapter 6 explains them.
//
// With n ranks, an all-reduce of k bytes sends 2 k (n - 1) / n per rank, a reduce-scatter or all-gather of k
// bytes in all k (n - 1) / n, a message k. So per step and rank, for P parameters of the rank's stages:
//
//   data parallel, ZeRO 1 and 2   2 P (n - 1) / n      gradients (reduce-scatter), values or sums
//   (all-gather) ZeRO 3                        3 P (n - 1) / n      values twice, gradients once; per
//   micro-batch pipeline                      B T C per micro-batch and boundary, forward and backward each
//   tensor parallel               tensor_traffic (model/tensor_parallel.h)
#pragma once

#include <cstdint>

#include "common/parallel/parallel_trainer.h"

namespace llm {

/// Bytes.
struct StepTraffic {
  double dp = 0, pp = 0, tp = 0;
  double total() const { return dp + pp + tp; }
};

/// For rows of `tokens` tokens. The few numbers that all ranks exchange at the end of a step (losses, the
/// norm) are not among it.
StepTraffic step_traffic(const ParallelTrainer& trainer, std::int64_t tokens);

/// Bytes of parameters, gradients and moments that a rank keeps (f32).
double state_bytes(const ParallelTrainer& trainer);

}  // namespace llm
