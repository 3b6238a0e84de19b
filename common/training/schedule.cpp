// Warm-up and cosine. See schedule.h.
#include "common/training/schedule.h"

#include <cmath>
#include <numbers>

#include "common/core/error.h"

namespace llm {

void validate(const Schedule& schedule) {
  if (!(schedule.peak >= 0) || !std::isfinite(schedule.peak))
    fail_usage("the learning rate must be a number that is not negative, got {}", schedule.peak);
  if (!(schedule.floor >= 0 && schedule.floor <= schedule.peak))
    fail_usage("the smallest learning rate must lie between 0 and the learning rate {}, got {}",
               schedule.peak, schedule.floor);
  if (schedule.warmup < 0) fail_usage("the warm-up must not be negative, got {} steps", schedule.warmup);
  if (schedule.steps < 1) fail_usage("training needs at least one step, got {}", schedule.steps);
}

double learning_rate(const Schedule& schedule, std::int64_t step) {
  if (step < schedule.warmup)
    return schedule.peak * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup + 1);
  if (step >= schedule.steps) return schedule.floor;
  const double x =
      static_cast<double>(step - schedule.warmup) / static_cast<double>(schedule.steps - schedule.warmup);
  return schedule.floor + (schedule.peak - schedule.floor) * 0.5 * (1 + std::cos(std::numbers::pi * x));
}

}  // namespace llm
