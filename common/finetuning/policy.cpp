// Log-probabilities and their gradients. See policy.h.
#include "common/finetuning/policy.h"

#include "common/core/error.h"

namespace llm {

namespace {

/// Calls `each(position, row)` for every target that counts.
template <typename Each>
void for_each_target(const Batch& batch, const Each& each) {
  const std::int64_t length = batch.targets.dim(1);
  const auto targets = batch.targets.span<std::int32_t>();
  for (std::size_t i = 0; i < targets.size(); ++i)
    if (targets[i] >= 0) each(static_cast<std::int64_t>(i), static_cast<std::int64_t>(i) / length);
}

/// -gradient[r] at every target of row r: the gradient of log p is minus that of the cross-entropy.
Tensor answer_weights(const Batch& batch, std::span<const float> gradient) {
  check(static_cast<std::int64_t>(gradient.size()) == batch.targets.dim(0),
        "{} gradients were given for {} rows", gradient.size(), batch.targets.dim(0));
  const Tensor weights(batch.targets.shape());
  for_each_target(batch, [&](std::int64_t i, std::int64_t row) {
    weights.data()[i] = -gradient[static_cast<std::size_t>(row)];
  });
  return weights;
}

}  // namespace

std::vector<double> token_log_probabilities(GptStage& last, StageActivations& saved, StageScratch& scratch,
                                            const Batch& batch) {
  last.loss(saved, scratch, batch.targets, std::nullopt);  // a target's loss is -log p
  const Tensor losses = saved.losses.to(Device::cpu);
  std::vector<double> result;
  for_each_target(batch, [&](std::int64_t i, std::int64_t) { result.push_back(-losses.data()[i]); });
  return result;
}

std::vector<double> answer_log_probabilities(GptStage& last, StageActivations& saved, StageScratch& scratch,
                                             const Batch& batch) {
  const std::vector<double> tokens = token_log_probabilities(last, saved, scratch, batch);
  std::vector<double> sums(static_cast<std::size_t>(batch.targets.dim(0)));
  std::size_t next = 0;
  for_each_target(
      batch, [&](std::int64_t, std::int64_t row) { sums[static_cast<std::size_t>(row)] += tokens[next++]; });
  return sums;
}

DpoLoss dpo_head(GptStage& last, StageActivations& saved, StageScratch& scratch, const Batch& batch,
                 std::span<const double> reference, double beta, float share) {
  const std::vector<double> now = answer_log_probabilities(last, saved, scratch, batch);
  check(now.size() % 2 == 0 && reference.size() == now.size(),
        "a batch of {} answers needs as many log-probabilities of the reference, and pairs; got {}",
        now.size(), reference.size());
  const std::size_t n = now.size() / 2;
  const std::span all(now);
  DpoLoss loss = dpo_loss(all.first(n), all.last(n), reference.first(n), reference.last(n), beta);
  std::vector<float> gradient = loss.dchosen;
  gradient.insert(gradient.end(), loss.drejected.begin(), loss.drejected.end());
  last.loss(saved, scratch, batch.targets, share, answer_weights(batch, gradient));
  return loss;
}

std::vector<double> token_log_probabilities(GptStage& model, PassBuffers& buffers, const Batch& batch,
                                            const ForwardOptions& options) {
  model.forward(buffers.saved, batch.inputs, options);
  return token_log_probabilities(model, buffers.saved, buffers.scratch, batch);
}

std::vector<double> answer_log_probabilities(GptStage& model, PassBuffers& buffers, const Batch& batch,
                                             const ForwardOptions& options) {
  model.forward(buffers.saved, batch.inputs, options);
  return answer_log_probabilities(model, buffers.saved, buffers.scratch, batch);
}

void backpropagate_tokens(GptStage& model, PassBuffers& buffers, const Batch& batch,
                          std::span<const float> gradient, const ForwardOptions& options) {
  const Tensor weights(batch.targets.shape());
  std::size_t next = 0;
  for_each_target(batch, [&](std::int64_t i, std::int64_t) {
    check(next < gradient.size(), "there are more targets than the {} gradients given", gradient.size());
    weights.data()[i] = -gradient[next++];
  });
  check(next == gradient.size(), "{} gradients were given for {} targets", gradient.size(), next);
  model.loss(buffers.saved, buffers.scratch, batch.targets, 1.0F, weights);
  model.backward(buffers.saved, buffers.scratch, batch.inputs, options);
}

DpoLoss dpo_gradients(GptStage& model, PassBuffers& buffers, const Batch& batch,
                      std::span<const double> reference, double beta, const ForwardOptions& options) {
  model.forward(buffers.saved, batch.inputs, options);
  DpoLoss loss = dpo_head(model, buffers.saved, buffers.scratch, batch, reference, beta);
  model.backward(buffers.saved, buffers.scratch, batch.inputs, options);
  return loss;
}

GrpoLoss grpo_gradients(GptStage& model, PassBuffers& buffers, const Batch& batch,
                        std::span<const double> advantages, std::span<const double> old,
                        std::span<const double> reference, const GrpoOptions& grpo,
                        const ForwardOptions& options) {
  const std::vector<double> now = token_log_probabilities(model, buffers, batch, options);
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(batch.targets.dim(0)));
  for_each_target(batch, [&](std::int64_t, std::int64_t row) { ++lengths[static_cast<std::size_t>(row)]; });
  check(!reference.empty() || grpo.kl == 0, "a divergence from a reference needs its log-probabilities");
  GrpoLoss loss =
      grpo_loss(now, old.empty() ? now : old, reference.empty() ? now : reference, lengths, advantages, grpo);
  backpropagate_tokens(model, buffers, batch, loss.gradient, options);
  return loss;
}

}  // namespace llm
