// Data parallelism and ZeRO: n ranks hold the same layers, see different micro-batches, and keep one model.
//
//   zero 0  every rank has everything; gradients are all-reduced.
//   zero 1  each rank has the moments of its shard and updates it; gradients are reduce-scattered, values
//           all-gathered.
//   zero 2  ... and keeps gradients of its shard only: a unit's are reduced as soon as it is complete.
//   zero 3  ... and values of its shard only: a unit's are gathered before use and let go after it.
//
// Rajbhandari et al. 2020, "ZeRO: Memory optimizations toward training trillion parameter models", section 5;
// gathering unit by unit with the next one fetched ahead: Zhao et al. 2023, "PyTorch FSDP", section 3. Sums
// are taken in rank order, so that all four give the same bits where a rank has one micro-batch per step.
//
// With several, 0 and 1 add up a rank's micro-batches first and the ranks then. 2 and 3 have no room for
// that: they add up the ranks after every pass. With `no_sync` (PyTorch FSDP's word) they do as 0 and 1 do:
// the same bits as those and one reduction per step, for the room of a whole gradient between the passes.
// Chapter 6 explains it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/model/gpt.h"
#include "common/parallel/communicator.h"
#include "common/parallel/exact_squares.h"
#include "common/parallel/partition.h"
#include "common/training/adamw.h"

namespace llm {

enum class OptimizerKind {
  adamw,
  sgd
};  // sgd: value -= learning rate * gradient, on the CPU; to compare with

class ShardedStage final : public PassListener {
 public:
  /// `stage` was built with the buffers that `stage_buffers(zero)` says; `dp` are the ranks that hold the
  /// same layers. Both the stage's numbers and the moments are zeros until `initialize` or a checkpoint. What
  /// is frozen now stays so: it has no moments. `no_sync` changes nothing with zero 0 and 1.
  ShardedStage(GptStage stage, Communicator& dp, int zero, OptimizerKind kind, const AdamWOptions& options,
               bool no_sync = false);
  ShardedStage(const ShardedStage&) = delete;
  ShardedStage& operator=(const ShardedStage&) = delete;

  static FlatBuffers stage_buffers(int zero) { return {.values = zero < 3, .gradients = zero < 2}; }

  GptStage& stage() { return stage_; }
  const GptStage& stage() const { return stage_; }
  int zero() const { return zero_; }
  /// Or once per step, when its last pass is over.
  bool reduces_every_pass() const { return zero_ >= 2 && !no_sync_; }
  const Partition& partition() const { return partition_; }

  /// First values. `fill` writes those of one unit at a time, of parameters [first, last) into `flat` (f32 on
  /// the CPU), on rank 0 of the data-parallel group; the others receive them.
  void initialize(const std::function<void(const ParameterUnit&, const Tensor& flat)>& fill);

  /// Parameters that train beside the stage's own (chapter 7: adapters, another head). Every data-parallel
  /// rank has all of them, whatever `zero` is. The store must outlive this.
  void train_also(ParameterStore& store);

  // ---- a step ----

  void zero_gradients();
  /// Whether the pass that follows completes the step's gradients, so that they are to be reduced.
  void set_last_pass(bool last) { last_pass_ = last; }

  // The listener of the stage's passes; the head's are called by whoever calls `loss`, around it.
  void before_forward(std::size_t unit) override;
  void after_forward(std::size_t unit) override;
  void before_backward(std::size_t unit) override;
  void after_backward(std::size_t unit) override;
  void before_head(bool training);
  void after_head(bool training);

  /// Starts to reduce a unit's gradients, which are complete. after_backward does it where it may.
  void reduce(std::size_t unit);
  /// Units whose reduction waits for somebody to call `reduce`: those with the shared embedding.
  void hold_back(std::size_t unit) { held_ = unit; }
  /// Waits until all gradients are reduced.
  void finish_gradients();
  /// Adds the squares of those reduced gradients that this rank counts: each element of the model once over
  /// all ranks.
  void add_squares(ExactSquares& squares) const;
  /// Their sum where this rank is alone, in double, made where the gradients are.
  double squares_alone() const;
  /// Elements that train and that this rank's tensor-parallel place counts, those beside the stage among
  /// them.
  std::int64_t trained_count() const;
  /// Updates this rank's shard and brings the values of the others.
  void update(double learning_rate, double gradient_scale);

  std::int64_t steps_taken = 0;

  // ---- state, for checkpoints ----

  /// A piece of the training state that this rank has: of one parameter, elements [begin, begin + count) of
  /// the part that stands here.
  struct StatePiece {
    const Parameter* parameter;
    std::int64_t begin;
    Tensor value, first_moment, second_moment;  // (count) f32; views
  };
  /// All that this rank has: what it must load.
  std::vector<StatePiece> state() const { return pieces_of(partition_); }
  /// This rank's part of what all ranks have together, each element of the model once: what it saves.
  std::vector<StatePiece> state_to_save() const;
  /// After values were written through `state`: the others' values, and rounded copies.
  void refresh_values();

  /// Calls `use` with each unit's parameters, all of whose values are there, f32. All ranks call it together.
  void visit_values(const std::function<void(const Parameter&)>& use);

 private:
  std::vector<StatePiece> pieces_of(const Partition& partition) const;
  Tensor owned_values(const OwnedRange& range) const;
  Tensor owned_gradients(const OwnedRange& range) const;
  bool tied() const;  // the head reads the embedding's matrix
  std::size_t head_unit() const { return partition_.units.size() - 1; }
  Tensor unit_range(const Tensor& flat, std::size_t unit) const;

  // Gradients (sharded_gradients.cpp)
  void sum_partial(const Parameter& parameter) const;
  void bring_gradients(std::size_t unit);
  void finish_reduction(std::size_t index);

  // Values (sharded_values.cpp)
  void start_gather(std::size_t unit);
  void fetch(std::size_t unit);
  void release(std::size_t unit);
  void gather_updated();

  struct Reduction {
    std::size_t unit;
    Tensor whole, part;  // what is reduced; where this rank's piece of the sum goes
    Work work;
  };
  struct Beside {
    ParameterStore* store;
    AdamW optimizer;
  };
  struct Gathered {
    Tensor values, part;
    std::optional<Work> work;  // under way
  };

  GptStage stage_;
  Communicator& dp_;
  int zero_;
  bool no_sync_;
  OptimizerKind kind_;
  AdamWOptions options_;
  Partition partition_;                  // over one rank with zero 0
  Partition norm_partition_;             // over all ranks: who counts what in the norm
  Tensor first_moment_, second_moment_;  // of the owned ranges
  std::vector<Beside> beside_;
  Tensor gradient_shard_;  // zero 2 and 3
  Tensor value_shard_;     // zero 3
  bool last_pass_ = true;
  std::size_t held_ = static_cast<std::size_t>(-1);
  std::vector<Tensor> unit_gradients_;  // zero 2 and 3: those that exist now
  std::vector<bool> shard_has_sum_;    // zero 2 and 3: whether the unit's shard holds this step's sum already
  std::vector<Gathered> gathered_;     // zero 3
  std::vector<Reduction> reductions_;  // under way
};

}  // namespace llm
