// Answers to the exercises of chapter 5. Try yourself first: `./book hint 5.1`.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "ch05_pretraining/exercises.h"

namespace llm::exercises::ch05 {

// 5.1
double scheduled_rate(std::int64_t step, double peak, double floor, std::int64_t warmup, std::int64_t steps) {
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup + 1);
  if (step >= steps) return floor;
  const double done = static_cast<double>(step - warmup) / static_cast<double>(steps - warmup);  // 0 to 1
  return floor + (peak - floor) * (1 + std::cos(std::numbers::pi * done)) / 2;
}

// 5.2
void adamw_step(std::span<float> w, std::span<float> m, std::span<float> v, std::span<const float> g,
                double rate, double beta1, double beta2, double eps, double decay, std::int64_t t) {
  const double correct1 = 1 - std::pow(beta1, static_cast<double>(t));
  const double correct2 = 1 - std::pow(beta2, static_cast<double>(t));
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double mean = beta1 * m[i] + (1 - beta1) * g[i];
    const double square = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
    m[i] = static_cast<float>(mean);
    v[i] = static_cast<float>(square);
    const double direction = mean / correct1 / (std::sqrt(square / correct2) + eps);
    w[i] = static_cast<float>(w[i] - rate * decay * w[i] - rate * direction);
  }
}

// 5.3
double clip_gradients(std::vector<std::span<float>> gradients, double limit) {
  double squares = 0;
  for (const auto& gradient : gradients)
    for (const float g : gradient) squares += static_cast<double>(g) * g;
  const double norm = std::sqrt(squares);
  if (norm > limit)
    for (const auto& gradient : gradients)
      for (float& g : gradient) g = static_cast<float>(g * (limit / norm));
  return norm;
}

// 5.4
namespace {

void scale_to_one(std::vector<Choice>& choices) {
  double sum = 0;
  for (const Choice& c : choices) sum += c.probability;
  for (Choice& c : choices) c.probability /= sum;
}

}  // namespace

std::vector<Choice> sampling_choices(std::span<const float> logits, double temperature, std::int64_t k,
                                     double p) {
  const double high = *std::max_element(logits.begin(), logits.end());
  std::vector<Choice> choices;
  for (std::size_t i = 0; i < logits.size(); ++i)
    choices.push_back({static_cast<std::int32_t>(i), std::exp((logits[i] - high) / temperature)});
  scale_to_one(choices);
  std::stable_sort(choices.begin(), choices.end(),
                   [](const Choice& a, const Choice& b) { return a.probability > b.probability; });
  if (k > 0 && k < static_cast<std::int64_t>(choices.size())) {
    choices.resize(static_cast<std::size_t>(k));
    scale_to_one(choices);
  }
  if (p < 1) {
    double sum = 0;
    std::size_t kept = 0;
    while (kept < choices.size() && sum < p) sum += choices[kept++].probability;
    choices.resize(kept);
    scale_to_one(choices);
  }
  return choices;
}

}  // namespace llm::exercises::ch05
