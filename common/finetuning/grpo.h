// GRPO: reinforcement learning without a value network. For each prompt the model writes a group of answers;
// an answer is as good as it is better than the others of its group.
//
// Shao et al. 2024, "DeepSeekMath", section 4.1, equations 3 and 4. For a group of G answers with rewards
// R_i, ratios q_t = p(t) / p_old(t) of each token's probability now and when it was written:
//
//     A_i  = (R_i - mean R) / (std R + 1e-4)
//     loss = -1/G sum_i 1/|answer i| sum_t [ min(q_t A_i, clip(q_t, 1 - eps, 1 + eps) A_i) - kl D_t ]
//     D_t  = ref(t) / p(t) - log(ref(t) / p(t)) - 1        an unbiased estimate of KL(p || ref), never
//     negative
//
// std is that of a sample (n - 1), as trl computes it. Chapter 7 explains it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace llm {

/// The advantages of one group's answers; zeros where all rewards are equal. Error if it has fewer than two.
std::vector<double> group_advantages(std::span<const double> rewards);

struct GrpoOptions {
  double clip = 0.2;  // eps
  double kl = 0.04;
};

struct GrpoLoss {
  double loss = 0;
  double kl = 0;                // mean of D_t over all tokens
  double clipped = 0;           // share of tokens at which the clip stopped the gradient
  std::vector<float> gradient;  // d loss / d log p(t), token by token
};

/// The answers' tokens stand one after the other: answer i has lengths[i] of them and advantages[i]. Log-
/// probabilities now, when they were written, and by the reference. UsageError for absurd options.
GrpoLoss grpo_loss(std::span<const double> now, std::span<const double> old,
                   std::span<const double> reference, std::span<const std::int64_t> lengths,
                   std::span<const double> advantages, const GrpoOptions& options);

}  // namespace llm
