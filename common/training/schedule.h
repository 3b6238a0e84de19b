// The learning rate over a run: linear warm-up, then half a cosine down to a floor.
//
// Warm-up: Goyal et al. 2017, section 2.2; cosine: Loshchilov and Hutter 2017, equation 5; the two together
// as GPT-3 was trained (Brown et al. 2020, appendix B). Chapter 5 explains it.
#pragma once

#include <cstdint>

namespace llm {

struct Schedule {
  double peak = 1e-3;       // reached at the end of the warm-up
  double floor = 1e-4;      // reached at the last step
  std::int64_t warmup = 0;  // steps
  std::int64_t steps = 1;   // of the whole run
};

/// UsageError unless 0 <= floor <= peak, 0 <= warmup and steps >= 1.
void validate(const Schedule& schedule);

/// The rate of step 0, 1, ..., steps - 1. During the warm-up peak (step + 1) / (warmup + 1); at step = warmup
/// the peak; from there floor + (peak - floor) (1 + cos(pi x)) / 2 with x going from 0 to 1 at step = steps;
/// the floor from then on.
double learning_rate(const Schedule& schedule, std::int64_t step);

}  // namespace llm
