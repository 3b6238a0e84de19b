// AdamW (Loshchilov and Hutter 2019, algorithm 2), and the norm that clipping needs. Chapter 5.
//
// Seven passes over memory (four arrays read, three written) and next to no arithmetic: the floor is 28 bytes
// per parameter over the memory's bandwidth.
#include <algorithm>
#include <cmath>
#include <vector>

#include "common/core/threads.h"
#include "common/ops/cpu/kernels.h"

namespace llm::cpu {

void adamw_update(float* values, float* first_moment, float* second_moment, const float* gradients,
                  Index count, const AdamWStep& o) {
  // m_hat = m / (1 - beta1^t), v_hat = v / (1 - beta2^t), value -= lr (m_hat / (sqrt(v_hat) + eps)), with the
  // two corrections folded into constants, computed in double as PyTorch does.
  const double correction1 = 1.0 - std::pow(o.beta1, static_cast<double>(o.step));
  const double correction2 = 1.0 - std::pow(o.beta2, static_cast<double>(o.step));
  const auto step_size = static_cast<float>(o.learning_rate / correction1);
  const auto root2 = static_cast<float>(1.0 / std::sqrt(correction2));
  const auto decay = static_cast<float>(1.0 - o.learning_rate * o.weight_decay);
  const auto beta1 = static_cast<float>(o.beta1), rest1 = static_cast<float>(1.0 - o.beta1);
  const auto beta2 = static_cast<float>(o.beta2), rest2 = static_cast<float>(1.0 - o.beta2);
  const auto eps = static_cast<float>(o.eps), scale = static_cast<float>(o.gradient_scale);
  parallel_for(count, 16384, [=](Index begin, Index end) {
#pragma GCC ivdep
    for (Index i = begin; i < end; ++i) {
      const float g = gradients[i] * scale;
      const float m = beta1 * first_moment[i] + rest1 * g;
      const float v = beta2 * second_moment[i] + rest2 * g * g;
      first_moment[i] = m;
      second_moment[i] = v;
      values[i] = values[i] * decay - step_size * m / (std::sqrt(v) * root2 + eps);
    }
  });
}

// Pieces of a fixed size, each summed in eight lanes of double, then added in order.
double squared_norm(const float* x, Index count) {
  constexpr Index kPiece = 32768;
  const Index pieces = (count + kPiece - 1) / kPiece;
  std::vector<double> sums(static_cast<std::size_t>(pieces));
  parallel_for(pieces, 1, [&](Index begin, Index end) {
    for (Index p = begin; p < end; ++p) {
      const float* part = x + p * kPiece;
      const Index n = std::min(kPiece, count - p * kPiece);
      constexpr Index kWidth = 32;
      double lane[kWidth] = {};
      Index i = 0;
      for (; i + kWidth <= n; i += kWidth)
        for (Index j = 0; j < kWidth; ++j) lane[j] += static_cast<double>(part[i + j]) * part[i + j];
      for (; i < n; ++i) lane[0] += static_cast<double>(part[i]) * part[i];
      double total = 0;
      for (const double value : lane) total += value;
      sums[static_cast<std::size_t>(p)] = total;
    }
  });
  double total = 0;
  for (const double value : sums) total += value;
  return total;
}

}  // namespace llm::cpu
