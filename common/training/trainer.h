// The training step, and the state that makes a run resumable.
//
// A step: gradients of one or more micro-batches add up, are clipped, and AdamW moves the parameters at the
// rate that the schedule gives for this step. What a step computes depends on (parameters, moments, settings,
// step number) alone, so a checkpoint of these continues to the same bits. Chapter 5 explains it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "common/model/gpt.h"
#include "common/training/adamw.h"
#include "common/training/sampler.h"
#include "common/training/schedule.h"

namespace llm {

struct TrainerOptions {
  Schedule schedule;
  AdamWOptions adamw;
  double clip = 1;              // largest norm of the gradients; 0: no clipping
  std::int64_t batch = 12;      // rows of a micro-batch
  std::int64_t accumulate = 1;  // micro-batches of a step
  std::uint64_t seed = 42;      // of the batches and of the dropout
  SampleKind samples = SampleKind::windows;
};

struct StepReport {
  std::int64_t step = 0;  // number of this step, from 1
  double loss = 0;        // nats per token, before the update
  double learning_rate = 0;
  double gradient_norm = 0;  // before clipping; not computed where nothing is clipped
  std::int64_t tokens = 0;   // targets that counted
  // Seconds of the parts: the batch and zeroing, forward, head and loss, backward, clipping and AdamW.
  double prepare_s = 0, forward_s = 0, loss_s = 0, backward_s = 0, update_s = 0;
  double seconds() const { return prepare_s + forward_s + loss_s + backward_s + update_s; }
};

/// All settings that decide a run's numbers, by name.
std::map<std::string, std::string> run_settings(const GptConfig& config, const TrainerOptions& options,
                                                DType dtype);

class Trainer {
 public:
  /// `model` and the memory behind `tokens` must outlive the trainer. `separator` is the end-of-text token
  /// (needed for documents only). Error if model, tokens and options do not go together.
  Trainer(GptStage& model, const TokenView& tokens, std::int32_t separator, const TrainerOptions& options);

  std::int64_t steps_done() const { return optimizer_.steps_taken; }
  std::int64_t steps_total() const { return options_.schedule.steps; }
  const TrainerOptions& options() const { return options_; }
  const TrainingSampler& sampler() const { return sampler_; }

  /// The next step. Error, one sentence, and parameters untouched, if loss or gradients are no longer finite.
  StepReport step();

  /// Writes step number, parameters and moments, with all settings that decide the run's numbers; `extra` are
  /// settings of the caller's (which data).
  void save(const std::filesystem::path& path, const std::map<std::string, std::string>& extra = {}) const;

  /// Goes on from a checkpoint. Error, and nothing changed, if it is damaged or was made with other settings.
  void resume(const std::filesystem::path& path, const std::map<std::string, std::string>& extra = {});

  /// Activations and scratch of one micro-batch, in bytes, as they stand after a step.
  std::int64_t activation_bytes() const { return saved_.bytes() + scratch_.bytes(); }

 private:
  std::map<std::string, std::string> settings(const std::map<std::string, std::string>& extra) const;

  GptStage& model_;
  TrainerOptions options_;
  TrainingSampler sampler_;
  AdamW optimizer_;
  StageActivations saved_;
  StageScratch scratch_;
};

}  // namespace llm
