// Memory of a rank: parameters, gradients, optimizer, activations, buffers.
//
// Model states: Rajbhandari et al. 2020 (arXiv:1910.02054), section 3 and table 1. Activations: Korthikanti
// et al. 2022 (arXiv:2205.05198), section 4 and table 2. Chapter 6 explains both.
#pragma once

#include <vector>

#include "common/parallel/planner/calibration.h"
#include "common/parallel/planner/layout.h"
#include "common/parallel/planner/model_shape.h"

namespace llm::planner {

/// Bytes of one rank.
struct Memory {
  double parameters = 0, gradients = 0, optimizer = 0;
  double activations = 0;  // of all micro-batches in flight, and the logits
  double buffers = 0;      // gathered parameters of ZeRO-3, and what is always there
  double total() const { return parameters + gradients + optimizer + activations + buffers; }
};

/// `parameters` parameters, shared by `dp` ranks: 16 bytes each (2 value, 2 gradient, 12 the optimizer's f32
/// value and two moments), of which ZeRO-1 divides the 12 by dp, ZeRO-2 also the gradients', ZeRO-3 all.
Memory model_states(double parameters, int dp, int zero, const Calibration& calibration = Calibration{});

/// Bytes that backward needs of one layer for `micro_batch` sequences, on one of tp ranks. For a GPT with ffn
/// = 4 h: s b h (10 + 24 / tp + 5 a s / (h tp)), 10 / tp instead of 10 with sequence parallelism, without the
/// last term if attention is recomputed, and 2 s b h if everything is.
double layer_activations(const ModelShape& shape, double micro_batch, int tp, bool sequence_parallel,
                         Recompute recompute, const Calibration& calibration = Calibration{});

/// Layers whose activations rank `rank` of the pipeline holds at once, each for one micro-batch: GPipe m L/p,
/// 1F1B min(m, p - rank) L/p, interleaved (1 + (p-1)/(p v)) L on the first rank (m >= 2 p).
double layers_in_flight(const Layout& layout, int rank, const std::vector<LayerRange>& stages);

/// The stages of a layout, balanced by cost if the calibration says so. UsageError if there are too few
/// layers.
std::vector<LayerRange> stages_of(const ModelShape& shape, const Layout& layout,
                                  const Calibration& calibration);

/// Memory of each rank of the pipeline.
std::vector<Memory> memory_by_stage(const ModelShape& shape, const Layout& layout,
                                    const Calibration& calibration);
/// The rank that needs most.
Memory memory_per_rank(const ModelShape& shape, const Layout& layout, const Calibration& calibration);

}  // namespace llm::planner
