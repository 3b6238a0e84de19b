// Time of a training step under a layout: compute, each kind of communication, the pipeline's bubble.
//
// Costs of collectives: chapter 6. Tensor parallelism: Shoeybi et al. 2019 (arXiv:1909.08053), section 3;
// pipelines: Narayanan et al. 2021 (arXiv:2104.04473), sections 2.2 and 3; ZeRO: Rajbhandari et al. 2020,
// section 7.
#pragma once

#include "common/parallel/planner/calibration.h"
#include "common/parallel/planner/layout.h"
#include "common/parallel/planner/model_shape.h"

namespace llm::planner {

/// Seconds of one step, as the slowest stage sees them. They add up to `total`.
struct StepTime {
  double compute = 0;   // matrix products of all micro-batches
  double memory = 0;    // what is not a product: as slow as memory
  double tensor = 0;    // all-reduces within layers (or all-gathers and reduce-scatters)
  double overhead = 0;  // the device waits for the host
  double pipeline = 0;  // messages between stages
  double bubble = 0;    // stages without work: (p-1)/v micro-batches
  double data = 0;      // gradients and parameters over dp, as far as they are not hidden behind compute
  double optimizer = 0;
  double total() const { return compute + memory + tensor + overhead + pipeline + bubble + data + optimizer; }
};

StepTime step_time(const ModelShape& shape, const Hardware& hardware, const Layout& layout,
                   const Calibration& calibration);

/// Seconds of forward and backward of one micro-batch on one layer, and on the head (of one of tp ranks).
struct PassTime {
  double compute = 0, memory = 0, tensor = 0, overhead = 0;
  double total() const { return compute + memory + tensor + overhead; }
};
PassTime layer_time(const ModelShape& shape, const Hardware& hardware, const Layout& layout,
                    const Calibration& calibration);
PassTime head_time(const ModelShape& shape, const Hardware& hardware, const Layout& layout,
                   const Calibration& calibration);

/// Bytes that a rank sends in one step; the runner's counts are held against the same formulas.
struct Traffic {
  double tensor = 0, pipeline = 0, data = 0;
};
/// Data parallelism: 2 P (n-1)/n elements for ZeRO 0, 1 and 2, 3 P (n-1)/n per micro-batch for ZeRO-3. Tensor
/// parallelism: per layer and micro-batch 4 all-reduces of s b h elements. Pipelines: s b h elements forward
/// and as many back, per chunk; with tensor parallelism each rank sends its 1/tp.
Traffic traffic(const ModelShape& shape, const Layout& layout, const Calibration& calibration);

/// Operations done by one device and step: those of the model, and what is recomputed.
double model_flops_per_step(const ModelShape& shape, const Layout& layout);     // all devices
double hardware_flops_per_step(const ModelShape& shape, const Layout& layout);  // all devices

}  // namespace llm::planner
