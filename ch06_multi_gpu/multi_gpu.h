// What the program's commands are asked to do, and the functions that do it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/parallel/schedule.h"
#include "common/parallel/schedule_timing.h"

namespace llm::ch06 {

namespace fs = std::filesystem;

struct PlanCommand {
  std::string model = "70b";  // a name or a JSON file
  int gpus = 1024;
  std::string device = "h100-80g";
  std::string calibration = "fused";
  std::int64_t sequence = 0;  // tokens; 0: the model's
  std::int64_t batch = 0;     // sequences of a step; 0: some 4 million tokens, at least one per GPU
  int max_tp = 0;             // 0: the GPUs of a node
  int rows = 10;              // of each table
  fs::path svg;               // the schedule of the best layout; empty: none
  fs::path metrics;
};
/// Prints the best layouts, what the best one costs, and what does not fit.
void plan(const PlanCommand& command);

struct ScheduleCommand {
  std::string kind = "1f1b";
  int stages = 4;  // ranks
  int micro_batches = 8;
  int chunks = 0;    // per rank; 0: 2 for the interleaved schedule, else 1
  int backward = 2;  // how long a backward pass takes, in forward passes
  int columns = 120;
  bool instructions = false;  // also print the lists
  fs::path svg;
  fs::path metrics;
};
/// Prints a pipeline schedule as it goes by, and how long it takes.
void schedule(const ScheduleCommand& command);

/// Fits the planner's constants to the published tables in a folder, and prints them.
void calibrate(const fs::path& tables);

/// The picture of a schedule.
std::string schedule_svg(const PipelineSchedule& schedule, const Timeline& timeline,
                         const std::string& title);

/// The whole chapter.
void walk();

}  // namespace llm::ch06
