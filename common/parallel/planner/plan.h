// The planner: all layouts of a model on so many devices, what does not fit and why, and the fastest of the
// rest.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/parallel/planner/memory.h"
#include "common/parallel/planner/step_time.h"

namespace llm::planner {

struct PlanOptions {
  int devices = 8;
  std::int64_t batch = 512;  // sequences of a step
  int max_tp = 0;            // 0: the devices of a node
  int max_micro_batch = 16;
  int max_chunks = 8;
  bool zero_2_and_3 = true;  // also layouts that shard gradients and parameters
};

struct Candidate {
  Layout layout{};
  Memory memory{};
  StepTime time{};
  double mfu = 0;                // model FLOP/s over the peak
  double tokens_per_second = 0;  // all devices
};

/// A grid that no micro-batch, ZeRO stage or recomputation makes possible.
struct Refusal {
  int pp = 1, dp = 1, tp = 1;
  std::string reason{};
};

struct Plan {
  std::vector<Candidate> best{};  // of each grid the fastest layout that fits; the fastest grid first
  std::vector<Refusal> refused{};
  int tried = 0, fitting = 0;  // layouts
};

/// Estimates a layout. UsageError if the model cannot be cut so.
Candidate estimate(const ModelShape& shape, const Hardware& hardware, const Layout& layout,
                   const Calibration& calibration);

/// Goes through pp x dp x tp = devices, ZeRO stages (2 and 3 without a pipeline only, whose micro-batches
/// would each communicate all gradients), micro-batches (powers of two), chunks per stage, and with and
/// without recomputing. UsageError for impossible options.
Plan make_plan(const ModelShape& shape, const Hardware& hardware, const Calibration& calibration,
               const PlanOptions& options);

/// The fastest layout. Error with the reasons if nothing fits.
Layout best_layout(const ModelShape& shape, const Hardware& hardware, const Calibration& calibration,
                   const PlanOptions& options);

/// The schedule of a layout.
PipelineSchedule schedule_of(const Layout& layout);

}  // namespace llm::planner
