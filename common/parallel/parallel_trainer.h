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
#include <memory>
#include <string>
#include <vector>

#include "common/parallel/grid.h"
#include "common/parallel/pipeline_runner.h"
#include "common/parallel/schedule.h"
#include "common/parallel/sharded_stage.h"
#include "common/training/trainer.h"

namespace llm {

struct ParallelOptions {
  Layout layout;
  int zero = 0;  // 2 and 3 need pp = 1: their gradients are gone after every pass
  PipelineKind schedule = PipelineKind::one_f_one_b;
  int chunks = 1;                    // per rank, of the interleaved schedule
  std::vector<LayerRange> stages{};  // layers of each stage; empty: split_layers
  OptimizerKind optimizer = OptimizerKind::adamw;
  bool sequence_parallel = false;
  bool recompute = false;
};

/// UsageError, one sentence, unless model, run and layout go together.
void validate(const ParallelOptions& options, const GptConfig& config, const TrainerOptions& run);

class ParallelTrainer {
 public:
  /// All ranks of `world` make one together, with the same arguments; UsageError on all of them if one has
  /// others. `world` and the memory behind `tokens` must outlive it.
  ParallelTrainer(Communicator& world, const GptConfig& config, const Placement& placement,
                  const TokenView& tokens, std::int32_t separator, const TrainerOptions& run,
                  const ParallelOptions& options);

  /// GPT-2's first weights, by seed; the same numbers under every layout.
  void initialize(std::uint64_t seed);
  /// The weights of a whole model, which each rank has at hand on the CPU.
  void initialize(const GptStage& whole);

  std::int64_t steps_done() const { return stages_.front()->steps_taken; }
  std::int64_t steps_total() const { return run_.schedule.steps; }
  const TrainingSampler& sampler() const { return sampler_; }
  const TrainerOptions& run() const { return run_; }
  const ParallelOptions& options() const { return options_; }
  const Grid& grid() const { return grid_; }
  const GptConfig& config() const { return config_; }
  const PipelineRunner& runner() const { return *runner_; }
  const std::vector<std::unique_ptr<ShardedStage>>& stages() const { return stages_; }
  /// The layers of each stage here.
  const std::vector<LayerRange>& layers() const { return layers_; }

  /// The next step; all ranks report the same loss and norm. Error on all of them, and parameters untouched,
  /// if they are no longer finite.
  StepReport step();

  /// The mean loss over the given batches, shared out over the data-parallel ranks.
  double evaluate(const std::vector<Batch>& batches);

  /// The whole model, f32 on the CPU, on rank 0; an empty pointer on the others. All ranks call it together.
  std::unique_ptr<GptStage> gather_model();

  /// All settings that decide the run's numbers, the layout not among them.
  std::map<std::string, std::string> settings(const std::map<std::string, std::string>& extra = {}) const;
  /// Writes a checkpoint folder (sharded_checkpoint.h). All ranks call it together.
  void save(const std::filesystem::path& folder, const std::map<std::string, std::string>& extra = {}) const;
  /// Goes on from a checkpoint made under any layout. Error, and nothing changed, if it is damaged or was
  /// made with other settings.
  void resume(const std::filesystem::path& folder, const std::map<std::string, std::string>& extra = {});

 private:
  /// What all ranks must have been given alike.
  std::map<std::string, std::string> arguments(const TokenView& tokens) const;
  /// Sums over all ranks, to the last bit the same everywhere: `losses` are this rank's contributions.
  struct Totals {
    std::vector<double> losses;
    double squares = 0;
  };
  Totals exchange(const std::vector<double>& losses, const ExactSquares& squares);

  GptConfig config_;
  TrainerOptions run_;
  ParallelOptions options_;
  Placement placement_;
  Grid grid_;
  TrainingSampler sampler_;
  std::vector<LayerRange> layers_;  // of each stage here
  std::vector<std::unique_ptr<ShardedStage>> stages_;
  std::unique_ptr<PipelineRunner> runner_;
};

}  // namespace llm
