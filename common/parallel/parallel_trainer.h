// The training step of chapter 5, on a grid of ranks.
//
// A step takes the same micro-batches whatever the layout: `TrainerOptions::accumulate` of them, of `batch`
// rows each, shared out over the data-parallel ranks. So do initialisation and dropout, which are functions
// of global places; a run can be compared with one on a single rank, and go on under another layout. Chapter
// 6 explains it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/parallel/parallel_model.h"
#include "common/training/trainer.h"

namespace llm {

/// UsageError, one sentence, unless model, run and layout go together.
void validate(const ParallelOptions& options, const GptConfig& config, const TrainerOptions& run);

class ParallelTrainer : public ParallelModel {
 public:
  /// All ranks of `world` make one together, with the same arguments; UsageError on all of them if one has
  /// others. `world` and the memory behind `tokens` must outlive it.
  ParallelTrainer(Communicator& world, const GptConfig& config, const Placement& placement,
                  const TokenView& tokens, std::int32_t separator, const TrainerOptions& run,
                  const ParallelOptions& options);

  std::int64_t steps_total() const { return run_.schedule.steps; }
  const TrainingSampler& sampler() const { return sampler_; }
  const TrainerOptions& run() const { return run_; }

  /// The next step; all ranks report the same loss and norm. Error on all of them, and parameters untouched,
  /// if they are no longer finite.
  StepReport step();

  /// The mean loss over the given batches, shared out over the data-parallel ranks.
  double evaluate(const std::vector<Batch>& batches);

  /// All settings that decide the run's numbers, the layout not among them.
  std::map<std::string, std::string> settings(const std::map<std::string, std::string>& extra = {}) const;
  /// Writes a checkpoint folder (sharded_checkpoint.h). All ranks call it together.
  void save(const std::filesystem::path& folder, const std::map<std::string, std::string>& extra = {}) const;
  /// Goes on from a checkpoint made under any layout. Error, and nothing changed, if it is damaged or was
  /// made with other settings.
  void resume(const std::filesystem::path& folder, const std::map<std::string, std::string>& extra = {});

 private:
  TrainerOptions run_;
  TrainingSampler sampler_;
};

}  // namespace llm
