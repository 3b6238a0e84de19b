// What `train` and the tour are asked to do, and the functions that do it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/core/memory_meter.h"
#include "common/parallel/parallel_trainer.h"
#include "common/training/model_choice.h"
#include "common/training/training_data.h"

namespace llm::ch06 {

namespace fs = std::filesystem;

/// The same options as `ch05_pretraining train`, and the layout.
struct TrainCommand : ModelChoice {
  fs::path data, out;
  fs::path init_from;  // start from this model's weights; empty: from random ones
  std::string samples = "auto";
  TrainerOptions trainer;
  Placement placement;
  int ranks = 0;      // 0: as many as mpirun started, or 2 threads
  bool nccl = false;  // under mpirun with a GPU per process
  ParallelOptions parallel;
  std::string schedule = "1f1b";
  std::string layout;                  // "auto": as the planner proposes; empty: what `parallel` says
  std::string plan_device = "laptop";  // what the planner plans for
  std::int64_t eval_every = 0, eval_batches = 16, save_every = 0, log_every = 0;
  bool resume = false;
  fs::path metrics;
  fs::path trace;       // a Chrome trace of what the ranks said to each other; empty: none
  double deadline = 0;  // seconds; 0: the default
};

/// Trains on a grid of ranks and writes the model folder `out`.
void train(const TrainCommand& command);

struct TourCommand {
  fs::path work;
  std::uint64_t seed = 42;
  std::int64_t steps = 6;
  Placement placement;
  fs::path metrics;
};

/// The chapter's tour: one run under a dozen layouts, in one table.
void tour(const TourCommand& command);

}  // namespace llm::ch06
