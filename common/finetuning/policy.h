// A language model as a policy: how likely are these answers, and move them.
//
// A loss over log-probabilities (DPO, GRPO) needs two things of a model: the log-probability of each token of
// an answer, and the backward pass of any function of them. As the gradient of log p(t) is minus that of the
// cross-entropy at t, the second is chapter 4's loss with a weight at each position. Chapter 7 explains it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/finetuning/grpo.h"
#include "common/finetuning/preferences.h"
#include "common/model/gpt.h"
#include "common/text/batches.h"

namespace llm {

/// Buffers of a forward and a backward pass, reused from step to step.
struct PassBuffers {
  StageActivations saved;
  StageScratch scratch;
};

// ---- the last stage's part, behind a forward pass ----------------------------------------------------

/// log p of every target that is not -1, row after row.
std::vector<double> token_log_probabilities(GptStage& last, StageActivations& saved, StageScratch& scratch,
                                            const Batch& batch);
/// The same, summed over each row: log p(answer | prompt).
std::vector<double> answer_log_probabilities(GptStage& last, StageActivations& saved, StageScratch& scratch,
                                             const Batch& batch);
/// DPO's loss of pairs. Rows 0 ... n - 1 of the batch are the chosen answers, rows n ... 2 n - 1 the rejected
/// ones; so are the reference's log-probabilities. Leaves the gradient of share * loss for
/// GptStage::backward.
DpoLoss dpo_head(GptStage& last, StageActivations& saved, StageScratch& scratch, const Batch& batch,
                 std::span<const double> reference, double beta, float share = 1);

// ---- a whole model -----------------------------------------------------------------------------------

/// Runs the model over the batch. log p of every target that is not -1, row after row.
std::vector<double> token_log_probabilities(GptStage& model, PassBuffers& buffers, const Batch& batch,
                                            const ForwardOptions& options = {});
/// The same, summed over each row: log p(answer | prompt).
std::vector<double> answer_log_probabilities(GptStage& model, PassBuffers& buffers, const Batch& batch,
                                             const ForwardOptions& options = {});

/// The backward pass right behind one of these: `gradient` holds d loss / d log p of every target that is not
/// -1, row after row. Gradients of the parameters accumulate.
void backpropagate_tokens(GptStage& model, PassBuffers& buffers, const Batch& batch,
                          std::span<const float> gradient, const ForwardOptions& options = {});

/// DPO's loss of pairs, and its gradients. The batch and the reference's log-probabilities, made once before
/// training, are as in dpo_head.
DpoLoss dpo_gradients(GptStage& model, PassBuffers& buffers, const Batch& batch,
                      std::span<const double> reference, double beta, const ForwardOptions& options = {});

/// GRPO's loss of answers, one per row, and its gradients. `old`: log-probabilities when they were written;
/// empty: just now, so that all ratios are 1. `reference`: those of the reference; may be empty if options.kl
/// is 0.
GrpoLoss grpo_gradients(GptStage& model, PassBuffers& buffers, const Batch& batch,
                        std::span<const double> advantages, std::span<const double> old,
                        std::span<const double> reference, const GrpoOptions& grpo,
                        const ForwardOptions& options = {});

}  // namespace llm
