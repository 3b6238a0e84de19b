#include "common/training/peak.h"

#include <algorithm>
#include <chrono>

#include "common/core/device_memory.h"
#include "common/ops/ops.h"

namespace llm {

double measure_peak_flops(Placement placement, double seconds) {
  const bool device = placement.device == Device::cuda;
  using Clock = std::chrono::steady_clock;
  const auto elapsed = [](Clock::time_point since) {
    return std::chrono::duration<double>(Clock::now() - since).count();
  };
  double best = 0;
  const auto start = Clock::now();
  for (std::int64_t n = 1024; n <= (device ? 8192 : 1024); n *= 2) {
    const auto matrix = [&] {
      Tensor t({n, n}, DType::f32, placement.device);
      t.fill(0.5F);
      if (placement.dtype == DType::f32) return t;
      Tensor rounded({n, n}, placement.dtype, placement.device);
      cast(rounded, t);
      return rounded;
    };
    const Tensor a = matrix(), b = matrix(), c = matrix();
    double shortest = 1e9;
    do {
      const auto begin = Clock::now();
      linear_forward(c, a, b, {});
      if (device) device_synchronize();
      shortest = std::min(shortest, elapsed(begin));
    } while (elapsed(start) < seconds);
    best = std::max(best, 2.0 * static_cast<double>(n * n * n) / shortest);
    if (shortest > 2e-3) break;  // larger ones only help where these were over at once
  }
  return best;
}

}  // namespace llm
