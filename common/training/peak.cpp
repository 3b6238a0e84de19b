// The measured peak. See peak.h.
#include "common/training/peak.h"

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "common/core/tensor.h"
#include "common/ops/ops.h"

namespace llm {

double measure_peak_flops(double seconds) {
  constexpr std::int64_t n = 1024;
  Tensor a({n, n}), b({n, n}), c({n, n});
  a.fill(0.5F);
  b.fill(0.25F);
  using Clock = std::chrono::steady_clock;
  const auto elapsed = [](Clock::time_point since) {
    return std::chrono::duration<double>(Clock::now() - since).count();
  };
  double best = 0;
  const auto start = Clock::now();
  do {
    const auto begin = Clock::now();
    gemm(false, false, n, n, n, 1, a.data(), n, b.data(), n, 0, c.data(), n);
    best = std::max(best, 2.0 * n * n * n / elapsed(begin));
  } while (elapsed(start) < seconds);
  return best;
}

}  // namespace llm
