// Advantages within a group, and GRPO's loss. See grpo.h.
#include "common/finetuning/grpo.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/core/error.h"

namespace llm {

std::vector<double> group_advantages(std::span<const double> rewards) {
  check(rewards.size() >= 2, "a group needs at least two answers to compare, got {}", rewards.size());
  const auto n = static_cast<double>(rewards.size());
  const double mean = std::accumulate(rewards.begin(), rewards.end(), 0.0) / n;
  double squares = 0;
  for (const double r : rewards) squares += (r - mean) * (r - mean);
  const double deviation = std::sqrt(squares / (n - 1));
  std::vector<double> advantages;
  for (const double r : rewards) advantages.push_back((r - mean) / (deviation + 1e-4));
  return advantages;
}

GrpoLoss grpo_loss(std::span<const double> now, std::span<const double> old,
                   std::span<const double> reference, std::span<const std::int64_t> lengths,
                   std::span<const double> advantages, const GrpoOptions& options) {
  if (!(options.clip > 0 && options.clip < 1))
    fail_usage("GRPO's clip must be between 0 and 1, got {}", options.clip);
  if (!(options.kl >= 0) || !std::isfinite(options.kl))
    fail_usage("the weight of the divergence must not be negative, got {}", options.kl);
  const std::int64_t tokens = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  check(
      !lengths.empty() && lengths.size() == advantages.size() &&
          tokens == static_cast<std::int64_t>(now.size()) && old.size() == now.size() &&
          reference.size() == now.size(),
      "{} answers of {} tokens together need an advantage each and three log-probabilities per token, got {} "
      "advantages and {}, {} and {} log-probabilities",
      lengths.size(), tokens, advantages.size(), now.size(), old.size(), reference.size());
  GrpoLoss result;
  result.gradient.reserve(now.size());
  std::size_t t = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    check(lengths[i] >= 1, "answer {} has no tokens", i);
    const double share = 1 / (static_cast<double>(lengths.size()) * static_cast<double>(lengths[i]));
    const double advantage = advantages[i];
    for (const std::size_t end = t + static_cast<std::size_t>(lengths[i]); t < end; ++t) {
      const double ratio = std::exp(now[t] - old[t]);
      const double bounded = std::clamp(ratio, 1 - options.clip, 1 + options.clip);
      // The minimum is the clipped one only where the ratio has already gone far enough in the direction that
      // the advantage asks for; it is constant there.
      const bool stopped = bounded * advantage < ratio * advantage;
      const double gain = stopped ? bounded * advantage : ratio * advantage;
      const double difference = reference[t] - now[t];
      const double divergence = std::expm1(difference) - difference;
      result.loss -= share * (gain - options.kl * divergence);
      result.kl += divergence / static_cast<double>(now.size());
      result.clipped += stopped ? 1 / static_cast<double>(now.size()) : 0;
      // d divergence / d now = 1 - exp(difference)
      const double dgain = stopped ? 0 : ratio * advantage;
      result.gradient.push_back(static_cast<float>(-share * (dgain + options.kl * std::expm1(difference))));
    }
  }
  return result;
}

}  // namespace llm
