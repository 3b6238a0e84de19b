// A GPT that reads a text and names its class: a new head on the last token.
//
// The last position is the only one that has seen the whole text. Its final norm (C) goes through a new
// linear layer (K, C) to K logits; the loss is the cross-entropy of the right class. Chapter 7 explains it.
#pragma once

#include <cstdint>
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

class Classifier {
 public:
  /// `model` must outlive the classifier, which freezes and adapts it. The head is drawn from (seed, name).
  /// With LoRA the head is frozen too and has an adapter if `lora.targets` names "score".
  Classifier(GptStage& model, std::int64_t classes, TrainedPart part, std::uint64_t seed,
             const LoraOptions& lora = {});
  ~Classifier();
  Classifier(const Classifier&) = delete;
  Classifier& operator=(const Classifier&) = delete;

  std::int64_t classes() const { return classes_; }
  /// All stores, for a Tuner.
  std::vector<ParameterStore*> stores();
  /// Parameters without adapters, and how many train.
  std::int64_t parameter_count() const;
  std::int64_t trained_count() const;

  /// Logits (B, K), f32 on the CPU.
  Tensor logits(const TextBatch& batch);
  /// The mean loss of the batch; its gradients accumulate.
  double train(const TextBatch& batch, const ForwardOptions& options = {});
  /// The most probable class of each text.
  std::vector<std::int64_t> predict(const TextBatch& batch);

  /// Merges all adapters, for saving.
  void merge();
  const Tensor& head_weight() const;
  const Tensor& head_bias() const;

 private:
  Tensor forward(const TextBatch& batch, const ForwardOptions& options);  // logits on the model's device

  GptStage& model_;
  std::int64_t classes_;
  ParameterStore head_;
  std::size_t weight_ = 0, bias_ = 0;
  std::optional<std::size_t> lora_a_, lora_b_;
  float head_scale_ = 0;
  std::unique_ptr<LoraAdapters> adapters_;
  StageActivations saved_;
  StageScratch scratch_;
  Tensor last_;  // (B, C) the last positions
};

}  // namespace llm
