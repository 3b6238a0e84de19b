// Answers to the exercises of chapter 3 that run on the CPU, short rather than fast. The library's own are in
// common/ops/cpu.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ch03_attention/exercises.h"

namespace llm::exercises::ch03 {

// 3.1
void softmax_row(std::span<float> x) {
  const float high = *std::max_element(x.begin(), x.end());
  float sum = 0;
  for (float& entry : x) {
    entry = std::exp(entry - high);  // at most exp(0): nothing overflows
    sum += entry;
  }
  for (float& entry : x) entry /= sum;
}

// 3.2
std::vector<float> causal_head(std::span<const float> q, std::span<const float> k, std::span<const float> v,
                               std::int64_t head_size) {
  const auto D = static_cast<std::size_t>(head_size);
  const std::size_t T = q.size() / D;
  const float scale = 1 / std::sqrt(static_cast<float>(D));
  std::vector<float> y(q.size());
  for (std::size_t t = 0; t < T; ++t) {
    std::vector<float> scores(t + 1);  // token t sees itself and what stands left of it
    for (std::size_t j = 0; j <= t; ++j) {
      for (std::size_t d = 0; d < D; ++d) scores[j] += q[t * D + d] * k[j * D + d];
      scores[j] *= scale;
    }
    const float high = *std::max_element(scores.begin(), scores.end());
    float sum = 0;
    for (float& score : scores) sum += score = std::exp(score - high);
    for (std::size_t j = 0; j <= t; ++j)
      for (std::size_t d = 0; d < D; ++d) y[t * D + d] += scores[j] / sum * v[j * D + d];
  }
  return y;
}

// 3.3
std::vector<float> split_heads(std::span<const float> x, std::int64_t batch, std::int64_t tokens,
                               std::int64_t channels, std::int64_t heads) {
  const std::int64_t D = channels / heads;
  std::vector<float> split(x.size());
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t t = 0; t < tokens; ++t)
        for (std::int64_t d = 0; d < D; ++d)
          split[static_cast<std::size_t>(((b * heads + h) * tokens + t) * D + d)] =
              x[static_cast<std::size_t>((b * tokens + t) * channels + h * D + d)];
  return split;
}

std::vector<float> merge_heads(std::span<const float> split, std::int64_t batch, std::int64_t tokens,
                               std::int64_t channels, std::int64_t heads) {
  const std::int64_t D = channels / heads;
  std::vector<float> x(split.size());
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t c = 0; c < channels; ++c)
        x[static_cast<std::size_t>((b * tokens + t) * channels + c)] =
            split[static_cast<std::size_t>(((b * heads + c / D) * tokens + t) * D + c % D)];
  return x;
}

// 3.4
std::vector<float> softmax_backward_row(std::span<const float> dy, std::span<const float> y) {
  float mean = 0;  // of dy, with weights y
  for (std::size_t i = 0; i < y.size(); ++i) mean += y[i] * dy[i];
  std::vector<float> dx(y.size());
  for (std::size_t i = 0; i < y.size(); ++i) dx[i] = y[i] * (dy[i] - mean);
  return dx;
}

// 3.5
void causal_mask(std::span<float> scores, std::int64_t queries, std::int64_t keys) {
  for (std::size_t at = 0; at < scores.size(); ++at) {
    const auto key = static_cast<std::int64_t>(at) % keys;
    const auto query = static_cast<std::int64_t>(at) / keys % queries;
    const std::int64_t token = keys - queries + query;
    if (key > token) scores[at] = -std::numeric_limits<float>::infinity();
  }
}

// 3.6
HeadGradients causal_head_backward(std::span<const float> dy, std::span<const float> q,
                                   std::span<const float> k, std::span<const float> v,
                                   std::int64_t head_size) {
  const auto D = static_cast<std::size_t>(head_size);
  const std::size_t T = q.size() / D;
  const float shrink = 1 / std::sqrt(static_cast<float>(D));
  const auto dot = [D](std::span<const float> a, std::size_t i, std::span<const float> b, std::size_t j) {
    float sum = 0;
    for (std::size_t d = 0; d < D; ++d) sum += a[i * D + d] * b[j * D + d];
    return sum;
  };
  HeadGradients g{std::vector<float>(T * D), std::vector<float>(T * D), std::vector<float>(T * D)};
  std::vector<float> w(T), dw(T);
  for (std::size_t t = 0; t < T; ++t) {
    float largest = -std::numeric_limits<float>::infinity(), total = 0;
    for (std::size_t j = 0; j <= t; ++j) largest = std::max(largest, w[j] = dot(q, t, k, j) * shrink);
    for (std::size_t j = 0; j <= t; ++j) total += w[j] = std::exp(w[j] - largest);
    for (std::size_t j = 0; j <= t; ++j) w[j] /= total;  // the weights again

    float weighted = 0;  // the mean of dw, with the weights
    for (std::size_t j = 0; j <= t; ++j) {
      dw[j] = dot(dy, t, v, j);
      weighted += w[j] * dw[j];
    }
    for (std::size_t j = 0; j <= t; ++j) {
      const float ds = w[j] * (dw[j] - weighted);
      for (std::size_t d = 0; d < D; ++d) {
        g.dv[j * D + d] += w[j] * dy[t * D + d];
        g.dq[t * D + d] += ds * shrink * k[j * D + d];
        g.dk[j * D + d] += ds * shrink * q[t * D + d];
      }
    }
  }
  return g;
}

}  // namespace llm::exercises::ch03
