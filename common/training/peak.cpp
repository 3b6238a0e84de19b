#include "common/training/peak.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "common/core/device_memory.h"
#include "common/ops/measuring.h"
#include "common/ops/ops.h"

namespace llm {

double measure_peak_flops(Placement placement, double seconds) {
  const bool device = placement.device == Device::cuda;
  using Clock = std::chrono::steady_clock;
  const auto elapsed = [](Clock::time_point since) {
    return std::chrono::duration<double>(Clock::now() - since).count();
  };
  const auto best_rate = [&](std::int64_t n, int calls) {
    const auto matrix = [&] { return normals_for_measuring({n, n}, placement.dtype, placement.device); };
    const Tensor a = matrix(), b = matrix(), c = matrix();
    const auto multiply = [&] {
      for (int i = 0; i < calls; ++i) linear_forward(c, a, b, {});
      if (device) device_synchronize();
    };
    multiply();  // a first call chooses a kernel, and gets it to the device
    double shortest = std::numeric_limits<double>::infinity();
    const auto start = Clock::now();
    do {
      const auto begin = Clock::now();
      multiply();
      shortest = std::min(shortest, elapsed(begin));
    } while (elapsed(start) < seconds);
    return 2.0 * static_cast<double>(n * n * n) * calls / shortest;
  };
  const double small = best_rate(1024, 1);
  constexpr double kOfAGpu = 1e12;  // faster than this, a small product is over before the device is busy
  return device && small > kOfAGpu ? std::max(small, best_rate(4096, 8)) : small;
}

}  // namespace llm
