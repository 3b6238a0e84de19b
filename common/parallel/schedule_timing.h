// How long a pipeline schedule takes, from the time of each pass: the simulator. Chapter 6 explains it.
#pragma once

#include <vector>

#include "common/parallel/schedule.h"

namespace llm {

/// Times in one unit, whichever the caller likes.
struct PipelineCosts {
  std::vector<double> forward{}, backward{};  // [stages], of one micro-batch
  double transfer = 0;                        // of one activation or gradient between neighbours
  /// Passes go on while messages travel, and wait only for what they need; else each group of transfers
  /// holds up both ranks until its messages have arrived.
  bool overlap = true;

  /// The same for each of `stages` stages.
  static PipelineCosts uniform(int stages, double forward, double backward) {
    const auto n = static_cast<std::size_t>(stages);
    return {std::vector<double>(n, forward), std::vector<double>(n, backward)};
  }
};

struct TimedInstruction {
  Instruction instruction;
  double start = 0, end = 0;
};

struct Timeline {
  std::vector<std::vector<TimedInstruction>> ranks{};  // in the order of the schedule
  std::vector<double> busy{};                          // [ranks] time spent in passes
  double total = 0;                                    // until the last pass ends

  /// Idle time over busy time of the busiest rank: (p-1)/m for GPipe and 1F1B, (p-1)/(v m) interleaved, if
  /// all stages take equally long and messages no time.
  double bubble() const;
};

/// Error if the schedule cannot be played (check_schedule says why).
Timeline simulate(const PipelineSchedule& schedule, const PipelineCosts& costs);

}  // namespace llm
