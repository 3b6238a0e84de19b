// Inverted dropout (Srivastava et al. 2014). The mask is not stored: element i draws number i of its stream,
// whoever computes it and as often as needed. Chapter 3.
#include <algorithm>

#include "common/core/threads.h"
#include "common/ops/cpu/kernels.h"

namespace llm::cpu {

void dropout_scale(float* scale, Index count, float p, const Philox& rng, std::uint64_t first_index) {
  const float keep = 1.0F / (1.0F - p);
  Index i = 0;
  while (i < count) {
    // One block of the generator makes four numbers.
    const std::uint64_t index = first_index + static_cast<std::uint64_t>(i);
    const auto words = rng.block(index / 4);
    for (std::uint64_t lane = index % 4; lane < 4 && i < count; ++lane, ++i) {
      const float uniform = static_cast<float>(words[lane] >> 8) * 0x1p-24F;
      scale[i] = uniform >= p ? keep : 0.0F;
    }
  }
}

void dropout(float* y, const float* x, Index count, float p, const Philox& rng, std::uint64_t first_index) {
  parallel_for(count, 4096, [=](Index begin, Index end) {
    constexpr Index kBlock = 256;
    float scale[kBlock];
    for (Index i = begin; i < end; i += kBlock) {
      const Index n = std::min(kBlock, end - i);
      dropout_scale(scale, n, p, rng, first_index + static_cast<std::uint64_t>(i));
#pragma GCC ivdep
      for (Index j = 0; j < n; ++j) y[i + j] = x[i + j] * scale[j];
    }
  });
}

}  // namespace llm::cpu
