// Fine-tuning on chapter 6's grid of ranks: data, tensor and pipeline parallel.
//
// Frozen parameters are neither reduced nor have moments; adapters stand beside the stage whose layers they
// adapt, a classifier's head beside the last. A step's examples fall into micro-batches, the same under every
// layout, so that a run can be compared with one on a single rank. Chapter 7 explains it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/finetuning/classifier.h"
#include "common/finetuning/examples.h"
#include "common/finetuning/lora.h"
#include "common/finetuning/tuner.h"
#include "common/parallel/parallel_model.h"

namespace llm {

struct ParallelTunerOptions {
  TunerOptions tuner = {};
  ParallelOptions parallel = {};
  std::int64_t micro_batches = 1;                     // of a step, over all data-parallel ranks
  std::function<bool(const Parameter&)> trains = {};  // of the model's own; empty: all, with LoRA none
  std::optional<LoraOptions> lora = {};
  std::uint64_t seed = 0;  // of the adapters
};

class ParallelTuner {
 public:
  /// All ranks of `world`, which must outlive it, make one together from the same model.
  ParallelTuner(Communicator& world, const GptStage& start, const Placement& placement,
                const ParallelTunerOptions& options);

  ParallelModel& model() { return model_; }
  std::int64_t steps_done() const { return model_.steps_done(); }
  std::int64_t steps_total() const { return options_.tuner.schedule.steps; }
  /// Gives the stage with the last layer a head for so many classes. Every rank calls it; it is made where
  /// that stage is. With LoRA it may have an adapter.
  void add_head(std::int64_t classes);
  /// The head, where it is; nullptr elsewhere.
  ClassifierHead* head() { return head_.get(); }

  /// The next step. `passes` number the micro-batches over all data-parallel ranks; the loss is the sum of
  /// their first numbers over `divisor`. `sums`, if given, gets the sums of all numbers.
  TunerReport step(const StepInput& passes, double divisor, std::vector<double>* sums = nullptr);

  /// What the run has made, on the CPU, on rank 0; empty pointers on the others and where there is none.
  struct Result {
    std::unique_ptr<GptStage> model;
    std::unique_ptr<LoraAdapters> adapters;  // of that model, neither attached nor merged
    std::unique_ptr<ClassifierHead> head;
  };
  Result gather();

 private:
  ParallelTunerOptions options_;
  ParallelModel model_;
  std::vector<std::unique_ptr<LoraAdapters>> adapters_;  // of each stage here
  std::int64_t classes_ = 0;
  std::unique_ptr<ClassifierHead> head_;
};

// ---- what a step trains on -----------------------------------------------------------------------
// The spans must outlive the passes. `options` are those of the step's first row.

/// Answers: the cross-entropy of all targets. The divisor is `targets`, the number of them.
StepInput answer_passes(std::span<const PackedBatch> micro_batches, double targets,
                        const ForwardOptions& options);
/// Classes: `tuner.head()` on the last token. The divisor is `texts`, the number of them.
StepInput class_passes(ParallelTuner& tuner, std::span<const TextBatch> micro_batches, double texts,
                       const ForwardOptions& options);
/// Preferences: chosen answers, then rejected ones, in each micro-batch; `references` their
/// log-probabilities. The divisor is `pairs`, the number of them. Three numbers: loss, margin and accuracy,
/// summed over pairs.
StepInput pair_passes(std::span<const Batch> micro_batches, std::span<const std::vector<double>> references,
                      double pairs, double beta, const ForwardOptions& options);

/// The same without training: the classes that `tuner` finds for the texts, ...
std::vector<std::int64_t> predict(ParallelTuner& tuner, std::span<const TextBatch> batches);
/// ... log p(answer | prompt) of each row, ...
std::vector<double> answer_log_probabilities(ParallelTuner& tuner, const std::vector<Batch>& batches);
/// ... and the mean loss of all targets.
double mean_loss(ParallelTuner& tuner, const std::vector<Batch>& batches);

}  // namespace llm
