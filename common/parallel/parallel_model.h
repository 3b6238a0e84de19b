// A model on a grid of ranks: its stages, what a step does with them, and the whole model again.
//
// What the step is about (which batches, which loss, which rate) is the caller's: chapter 6 pretrains
// (parallel_trainer.h), chapter 7 fine-tunes (common/finetuning/parallel_tuner.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "common/parallel/grid.h"
#include "common/parallel/pipeline_runner.h"
#include "common/parallel/schedule.h"
#include "common/parallel/sharded_stage.h"

namespace llm {

struct ParallelOptions {
  Layout layout;
  int zero = 0;          // 2 and 3 need pp = 1
  bool no_sync = false;  // zero 2 and 3: add up a rank's micro-batches before they are reduced (ShardedStage)
  PipelineKind schedule = PipelineKind::one_f_one_b;
  int chunks = 1;                    // per rank, of the interleaved schedule
  std::vector<LayerRange> stages{};  // layers of each stage; empty: split_layers
  OptimizerKind optimizer = OptimizerKind::adamw;
  bool sequence_parallel = false;
  bool recompute = false;
};

/// UsageError, one sentence, unless model, layout and a step of so many micro-batches go together.
void validate(const ParallelOptions& options, const GptConfig& config, std::int64_t micro_batches);

/// A step: micro-batches are numbered over all data-parallel ranks.
struct ModelStep {
  StepInput passes = {};
  double divisor = 1;  // the loss is the sum of the micro-batches' first numbers over this
  double learning_rate = 0;
  double clip = 0;  // largest norm of the gradients; 0: no clipping, and no norm is computed
};

/// All ranks get the same.
struct ModelStepReport {
  double loss = 0, gradient_norm = 0;
  std::vector<double> sums;                          // of each of the head's numbers over the micro-batches
  double waiting_s = 0, passes_s = 0, update_s = 0;  // of this rank
};

class ParallelModel {
 public:
  /// All ranks of `world`, which must outlive it, make one together with the same arguments; UsageError on
  /// all of them if one has others. `trains` says which parameters do; empty: all. All numbers are zeros
  /// until `initialize`.
  ParallelModel(Communicator& world, const GptConfig& config, const Placement& placement,
                const ParallelOptions& options, const AdamWOptions& adamw, std::int64_t micro_batches,
                const std::function<bool(const Parameter&)>& trains = {});

  /// GPT-2's first weights, by seed; the same numbers under every layout.
  void initialize(std::uint64_t seed);
  /// The weights of a whole model, which each rank has at hand on the CPU.
  void initialize(const GptStage& whole);

  std::int64_t steps_done() const { return stages_.front()->steps_taken; }
  const ParallelOptions& options() const { return options_; }
  const Placement& placement() const { return placement_; }
  const Grid& grid() const { return grid_; }
  const GptConfig& config() const { return config_; }
  const PipelineRunner& runner() const { return *runner_; }
  const std::vector<std::unique_ptr<ShardedStage>>& stages() const { return stages_; }
  /// The layers of each stage here.
  const std::vector<LayerRange>& layers() const { return layers_; }
  /// The stage with the head, if it is here.
  ShardedStage* last_stage() const;

  /// Passes, reduction, clipping, update. Error on all ranks, and parameters untouched, if loss or gradients
  /// are no longer finite.
  ModelStepReport step(const ModelStep& step);

  /// Forward passes of the batches, shared out over the data-parallel ranks; counts[i] numbers of batch i.
  /// All ranks get all numbers, one batch's after the other's. An empty head gives one: the sum of the
  /// losses.
  std::vector<double> evaluate(const std::vector<Batch>& batches, const std::vector<int>& counts,
                               const HeadPass& head = {});

  /// Elements that train, beside the stages too, over all ranks. All ranks call it together.
  std::int64_t trained_count();

  /// The whole model, f32 on the CPU, on rank 0; an empty pointer on the others. All ranks call it together.
  std::unique_ptr<GptStage> gather_model();
  /// The same for what trains beside the stages: `parts` are this rank's stores; `whole`, which every rank
  /// declared alike, gets its values on rank 0.
  void gather(const ParameterStore& whole, const std::vector<const ParameterStore*>& parts);

 protected:
  GptConfig config_;
  Placement placement_;
  ParallelOptions options_;
  Grid grid_;
  std::vector<LayerRange> layers_;  // of each stage here
  std::vector<std::unique_ptr<ShardedStage>> stages_;
  std::unique_ptr<PipelineRunner> runner_;

 private:
  /// Sums over all ranks, to the last bit the same everywhere: of each of the numbers one rank's part may be
  /// other than 0.
  struct Totals {
    std::vector<double> numbers;
    double squares = 0;
  };
  Totals exchange(const std::vector<double>& numbers, const ExactSquares& squares);
  Tensor gather_values(const Shape& whole, const Parameter* part);
};

}  // namespace llm
