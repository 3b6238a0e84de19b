// DPO's loss. See preferences.h.
#include "common/finetuning/preferences.h"

#include <algorithm>
#include <cmath>

#include "common/core/error.h"

namespace llm {

namespace {

/// log(1 + exp(x)) for x of any size.
double softplus(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}
double sigmoid(double x) {
  return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}

}  // namespace

// -log sigmoid(z) = softplus(-z), and its derivative by z is -sigmoid(-z): pairs that are right by far teach
// nothing more, pairs that are wrong by far teach at full strength.
DpoLoss dpo_loss(std::span<const double> chosen, std::span<const double> rejected,
                 std::span<const double> reference_chosen, std::span<const double> reference_rejected,
                 double beta) {
  const std::size_t n = chosen.size();
  check(n > 0 && rejected.size() == n && reference_chosen.size() == n && reference_rejected.size() == n,
        "DPO needs four log-probabilities for each pair, got {}, {}, {} and {}", n, rejected.size(),
        reference_chosen.size(), reference_rejected.size());
  if (!(beta > 0) || !std::isfinite(beta)) fail_usage("DPO's beta must be positive, got {}", beta);
  DpoLoss result;
  const double share = 1 / static_cast<double>(n);
  for (std::size_t i = 0; i < n; ++i) {
    const double z = beta * ((chosen[i] - reference_chosen[i]) - (rejected[i] - reference_rejected[i]));
    result.loss += share * softplus(-z);
    result.margin += share * z;
    result.accuracy += z > 0 ? share : 0;
    const double dz = -share * sigmoid(-z);
    result.dchosen.push_back(static_cast<float>(beta * dz));
    result.drejected.push_back(static_cast<float>(-beta * dz));
  }
  return result;
}

}  // namespace llm
