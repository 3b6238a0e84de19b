// A GPT that reads a text and names its class: a new head on the last token.
//
// The last position is the only one that has seen the whole text. Its final norm (C) goes through a new
// linear layer (K, C) to K logits; the loss is the cross-entropy of the right class. Chapter 7 explains it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/finetuning/examples.h"
#include "common/finetuning/lora.h"
#include "common/finetuning/tuner.h"
#include "common/model/gpt.h"

namespace llm {

/// What of the model trains beside the new head.
enum class TrainedPart { head, last_block, everything, lora };
/// "head", "last-block", "everything" or "lora"; anything else is a UsageError.
TrainedPart parse_trained_part(const std::string& name);
/// Which of the model's own parameters that is. (Its own head, where it is not tied, has no part in this.)
std::function<bool(const Parameter&)> trained_by(TrainedPart part, const GptConfig& config);

/// The new head, on the stage with the last layer. The ranks of a tensor-parallel group all have it.
class ClassifierHead {
 public:
  /// Drawn from (seed, name). With `lora` it is frozen and has an adapter, if lora->targets names "score".
  ClassifierHead(const GptStage& last, std::int64_t classes, std::uint64_t seed,
                 const LoraOptions* lora = nullptr);

  ParameterStore& parameters() { return store_; }
  const ParameterStore& parameters() const { return store_; }
  const Tensor& weight() const { return store_[weight_].value; }
  const Tensor& bias() const { return store_[bias_].value; }

  /// Logits (B, K) of the texts whose forward pass `saved` holds, f32 on the CPU.
  Tensor logits(const GptStage& last, StageActivations& saved, const TextBatch& batch);
  /// The sum of their losses. Gradients of scale * sum accumulate, and scratch.dstream holds
  /// d(scale * sum)/d(output), for GptStage::backward.
  double loss(GptStage& last, StageActivations& saved, StageScratch& scratch, const TextBatch& batch,
              float scale);
  /// Adds its adapter's product to the weight.
  void merge();

 private:
  Tensor forward(const GptStage& last, StageActivations& saved, const TextBatch& batch);
  LowRank adapter() const { return {store_[*lora_a_].working, store_[*lora_b_].working, lora_scale_, 1}; }

  ParameterStore store_;
  std::size_t weight_ = 0, bias_ = 0;
  std::optional<std::size_t> lora_a_, lora_b_;
  float lora_scale_ = 0;
  Tensor last_;  // (B, C) the last positions
};

/// The most probable class of each row of logits (B, K).
std::vector<std::int64_t> most_probable(const Tensor& logits);

class Classifier {
 public:
  /// `model` must outlive the classifier, which freezes and adapts it.
  Classifier(GptStage& model, std::int64_t classes, TrainedPart part, std::uint64_t seed,
             const LoraOptions& lora = {});
  ~Classifier();
  Classifier(const Classifier&) = delete;
  Classifier& operator=(const Classifier&) = delete;

  /// All stores, for a Tuner.
  std::vector<ParameterStore*> stores();
  std::int64_t trained_count() const;
  ClassifierHead& head() { return head_; }

  /// Logits (B, K), f32 on the CPU.
  Tensor logits(const TextBatch& batch);
  /// The mean loss of the batch; its gradients accumulate.
  double train(const TextBatch& batch, const ForwardOptions& options = {});
  /// The most probable class of each text.
  std::vector<std::int64_t> predict(const TextBatch& batch) { return most_probable(logits(batch)); }

  /// Merges all adapters, for saving.
  void merge();

 private:
  GptStage& model_;
  std::unique_ptr<LoraAdapters> adapters_;
  ClassifierHead head_;
  StageActivations saved_;
  StageScratch scratch_;
};

/// The targets in the blocks alone.
LoraOptions without_head(LoraOptions lora);
/// Parameters of a model with a head for so many classes in place of its own.
std::int64_t classifier_parameter_count(const GptConfig& config, std::int64_t classes);

}  // namespace llm
