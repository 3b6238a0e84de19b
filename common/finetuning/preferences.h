// DPO: learning from pairs of a better and a worse answer, without a reward model and without sampling.
//
// Rafailov et al. 2023, "Direct Preference Optimization", equation 7. With log p(answer | prompt) the sum
// over the answer's tokens, a policy and a frozen reference (the model before),
//
//     z = beta ((log p(chosen) - log ref(chosen)) - (log p(rejected) - log ref(rejected)))
//     loss = mean of -log sigmoid(z)
//
// beta (log p - log ref) is the reward that the policy implies; the loss asks that the chosen answer's be
// larger. Everything here is a function of log-probabilities; what makes them is the model. Chapter 7
// explains it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace llm {

struct DpoLoss {
  double loss = 0;                        // mean over the pairs
  double accuracy = 0;                    // share of pairs whose chosen answer has the larger implied reward
  double margin = 0;                      // mean difference of the implied rewards, z
  std::vector<float> dchosen, drejected;  // d loss / d log p of each answer
};

/// All four spans have one entry per pair. UsageError unless beta > 0.
DpoLoss dpo_loss(std::span<const double> chosen, std::span<const double> rejected,
                 std::span<const double> reference_chosen, std::span<const double> reference_rejected,
                 double beta);

}  // namespace llm
