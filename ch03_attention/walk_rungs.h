// What the walk tells about a kernel: on a GPU how long it takes, on the software GPU what it moves and how
// long that would take a GPU at least.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "common/cli/metrics.h"

namespace llm::ch03 {

/// What any kernel with this result must do.
struct Cost {
  double operations = 0;  // multiplications and additions
  double bytes = 0;       // every input read once, every result written once
};

/// One way to compute something.
struct Rung {
  std::string name;
  bool tensor_cores = false;
  std::function<void()> run;  // launches it
  Cost cost;                  // of what `run` does
  Cost full;                  // of the size that the prediction is for
  double times = 1;           // how much more such a kernel moves at that size
};

/// Whether this build measures on a GPU. Then sizes should be full, as nothing needs to be predicted.
bool measured();

/// Runs each and prints a table: times and shares of the roofline on a GPU, counts and a prediction without
/// one. Where the build can do neither, says so.
void show_rungs(const std::vector<Rung>& rungs, MetricsWriter& metrics);

/// Runs `body`, which does something wrong on the device, and prints what the software GPU says about it.
void show_report(const std::function<void()>& body);

}  // namespace llm::ch03
