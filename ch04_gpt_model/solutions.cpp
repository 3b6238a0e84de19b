// Answers to the exercises of chapter 4, short rather than fast. The library's own are in common/ops/cpu and
// common/model.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "ch04_gpt_model/exercises.h"

namespace llm::exercises::ch04 {

// 4.1
std::vector<float> layer_norm(std::span<const float> x, std::span<const float> gamma,
                              std::span<const float> beta, float eps) {
  const std::size_t C = gamma.size();
  std::vector<float> y(x.size());
  for (std::size_t first = 0; first < x.size(); first += C) {
    float mean = 0;
    for (std::size_t c = 0; c < C; ++c) mean += x[first + c];
    mean /= static_cast<float>(C);
    float variance = 0;  // of the differences: x^2 - mean^2 would cancel for rows far from zero
    for (std::size_t c = 0; c < C; ++c) variance += (x[first + c] - mean) * (x[first + c] - mean);
    variance /= static_cast<float>(C);
    const float scale = 1 / std::sqrt(variance + eps);
    for (std::size_t c = 0; c < C; ++c) y[first + c] = (x[first + c] - mean) * scale * gamma[c] + beta[c];
  }
  return y;
}

// 4.2
std::vector<float> gelu(std::span<const float> x) {
  const float factor = std::sqrt(2 / std::numbers::pi_v<float>);
  std::vector<float> y;
  for (const float v : x) y.push_back(0.5F * v * (1 + std::tanh(factor * (v + 0.044715F * v * v * v))));
  return y;
}

// 4.3
std::int64_t count_parameters(std::int64_t vocabulary, std::int64_t context, std::int64_t channels,
                              std::int64_t layers, bool tied) {
  const std::int64_t C = channels;
  const std::int64_t norm = 2 * C;
  const std::int64_t attention = (3 * C * C + 3 * C) + (C * C + C);
  const std::int64_t feed_forward = (4 * C * C + 4 * C) + (4 * C * C + C);
  const std::int64_t block = 2 * norm + attention + feed_forward;
  const std::int64_t head = tied ? 0 : vocabulary * C;
  return vocabulary * C + context * C + layers * block + norm + head;
}

// 4.4
double cross_entropy(std::span<const float> logits, std::int64_t vocabulary,
                     std::span<const std::int32_t> targets) {
  const auto V = static_cast<std::size_t>(vocabulary);
  double total = 0;
  std::int64_t counted = 0;
  for (std::size_t n = 0; n < targets.size(); ++n) {
    if (targets[n] == -1) continue;
    const std::span<const float> row = logits.subspan(n * V, V);
    const double high = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (const float logit : row) sum += std::exp(logit - high);
    total += high + std::log(sum) - row[static_cast<std::size_t>(targets[n])];
    ++counted;
  }
  return counted > 0 ? total / static_cast<double>(counted) : 0;
}

}  // namespace llm::exercises::ch04
