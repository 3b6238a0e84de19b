// Answers to the exercises of chapter 7, short rather than fast. The library's own are in common/finetuning.
#include <algorithm>
#include <cmath>

#include "ch07_finetuning/exercises.h"

namespace llm::exercises::ch07 {

// 7.1
std::vector<float> class_logits(std::span<const float> hidden, std::span<const std::int64_t> lengths,
                                std::int64_t tokens, std::int64_t channels, std::span<const float> weight,
                                std::span<const float> bias) {
  const auto C = static_cast<std::size_t>(channels);
  std::vector<float> logits;
  for (std::size_t b = 0; b < lengths.size(); ++b) {
    const auto last = b * static_cast<std::size_t>(tokens) + static_cast<std::size_t>(lengths[b]) - 1;
    for (std::size_t k = 0; k < bias.size(); ++k) {
      float sum = bias[k];
      for (std::size_t c = 0; c < C; ++c) sum += weight[k * C + c] * hidden[last * C + c];
      logits.push_back(sum);
    }
  }
  return logits;
}

// 7.2
Rows collate(std::span<const Conversation> examples, std::int32_t padding, bool mask_prompt) {
  std::size_t length = 0;
  for (const Conversation& e : examples) length = std::max(length, e.tokens.size() - 1);
  Rows rows;
  for (const Conversation& e : examples)
    for (std::size_t t = 0; t < length; ++t) {
      const bool there = t + 1 < e.tokens.size();
      const bool counts = there && !(mask_prompt && t + 1 < e.answer);
      rows.inputs.push_back(there ? e.tokens[t] : padding);
      rows.targets.push_back(counts ? e.tokens[t + 1] : -1);
    }
  return rows;
}

namespace {

/// Plain matrix products, accumulated: c (m, n) += scale op(a) op(b).
enum class As { is, transposed };
void add_product(std::vector<float>& c, std::span<const float> a, As as_a, std::span<const float> b, As as_b,
                 std::int64_t m, std::int64_t n, std::int64_t k, float scale) {
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (std::int64_t l = 0; l < k; ++l)
        sum += a[static_cast<std::size_t>(as_a == As::is ? i * k + l : l * m + i)] *
               b[static_cast<std::size_t>(as_b == As::is ? l * n + j : j * k + l)];
      c[static_cast<std::size_t>(i * n + j)] += scale * sum;
    }
}
std::vector<float> zeros(std::int64_t rows, std::int64_t columns) {
  return std::vector<float>(static_cast<std::size_t>(rows * columns));
}

}  // namespace

// 7.3
std::vector<float> lora_forward(std::span<const float> x, std::span<const float> w, std::span<const float> a,
                                std::span<const float> b, std::int64_t in, std::int64_t out,
                                std::int64_t rank, float alpha) {
  const std::int64_t n = static_cast<std::int64_t>(x.size()) / in;
  std::vector<float> y = zeros(n, out), h = zeros(n, rank);
  add_product(y, x, As::is, w, As::transposed, n, out, in, 1);
  add_product(h, x, As::is, a, As::transposed, n, rank, in, 1);
  add_product(y, h, As::is, b, As::transposed, n, out, rank, alpha / static_cast<float>(rank));
  return y;
}

// 7.4
LoraGradients lora_backward(std::span<const float> dy, std::span<const float> x, std::span<const float> w,
                            std::span<const float> a, std::span<const float> b, std::int64_t in,
                            std::int64_t out, std::int64_t rank, float alpha) {
  const std::int64_t n = static_cast<std::int64_t>(x.size()) / in;
  const float share = alpha / static_cast<float>(rank);
  std::vector<float> h = zeros(n, rank), dh = zeros(n, rank);
  LoraGradients g{zeros(n, in), zeros(rank, in), zeros(out, rank)};
  add_product(h, x, As::is, a, As::transposed, n, rank, in, 1);
  add_product(dh, dy, As::is, b, As::is, n, rank, out, share);
  add_product(g.db, dy, As::transposed, h, As::is, out, rank, n, share);
  add_product(g.da, dh, As::transposed, x, As::is, rank, in, n, 1);
  add_product(g.dx, dy, As::is, w, As::is, n, in, out, 1);
  add_product(g.dx, dh, As::is, a, As::is, n, in, rank, 1);
  return g;
}

// 7.5
std::vector<float> lora_merge(std::span<const float> w, std::span<const float> a, std::span<const float> b,
                              std::int64_t in, std::int64_t out, std::int64_t rank, float alpha) {
  const float share = alpha / static_cast<float>(rank);
  std::vector<float> merged(w.begin(), w.end());
  add_product(merged, b, As::is, a, As::is, out, in, rank, share);
  return merged;
}

// 7.6
PairLoss dpo(double chosen, double rejected, double reference_chosen, double reference_rejected,
             double beta) {
  const double z = beta * ((chosen - reference_chosen) - (rejected - reference_rejected));
  const double small = std::exp(-std::abs(z));                          // never infinite
  const double wrong = z >= 0 ? small / (1 + small) : 1 / (1 + small);  // sigmoid(-z)
  return {std::max(-z, 0.0) + std::log1p(small), -beta * wrong, beta * wrong};
}

// 7.7
std::vector<double> advantages(std::span<const double> rewards) {
  double mean = 0, squares = 0;
  for (const double r : rewards) mean += r / static_cast<double>(rewards.size());
  for (const double r : rewards) squares += (r - mean) * (r - mean);
  const double deviation = std::sqrt(squares / static_cast<double>(rewards.size() - 1));
  std::vector<double> result;
  for (const double r : rewards) result.push_back((r - mean) / (deviation + 1e-4));
  return result;
}

// 7.8
TokenGain clipped_gain(double now, double old, double advantage, double clip) {
  const double ratio = std::exp(now - old);
  const double bounded = std::clamp(ratio, 1 - clip, 1 + clip);
  if (bounded * advantage < ratio * advantage) return {bounded * advantage, 0};  // a constant
  return {ratio * advantage, ratio * advantage};
}

// 7.9
std::size_t choose(std::span<const double> scores, std::span<const std::string> choices, bool normalised) {
  std::size_t best = 0;
  const auto score = [&](std::size_t i) {
    return normalised ? scores[i] / static_cast<double>(choices[i].size()) : scores[i];
  };
  for (std::size_t i = 1; i < scores.size(); ++i)
    if (score(i) > score(best)) best = i;
  return best;
}

}  // namespace llm::exercises::ch07
