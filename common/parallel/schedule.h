// A pipeline schedule as data: for each rank the list of what it does, in order.
//
// GPipe: Huang et al. 2019 (arXiv:1811.06965), section 2.3. 1F1B: PipeDream-flush, and interleaved 1F1B:
// Narayanan et al. 2021 (arXiv:2104.04473), sections 2.2.1 and 2.2.2. The runner executes these lists, the
// checker looks for broken dependencies and deadlocks (schedule_check.h), the simulator times them
// (schedule_timing.h), and a picture shows them. Chapter 6 explains it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llm {

enum class PipelineKind {
  gpipe,        // all forward passes, then all backward passes
  one_f_one_b,  // a backward pass as soon as there is one to do
  interleaved,  // 1F1B with several chunks of the model on each rank
};

/// "gpipe", "1f1b", "interleaved".
std::string_view pipeline_kind_name(PipelineKind kind);
/// The reverse; UsageError that lists the names.
PipelineKind parse_pipeline_kind(std::string_view name);

struct Instruction {
  enum class Kind { forward, backward, send_activation, recv_activation, send_gradient, recv_gradient };
  Kind kind = Kind::forward;
  int micro_batch = 0;
  int chunk = 0;   // of this rank. A transfer moves the output (or its gradient) or the input of this chunk
  int peer = -1;   // transfers: the other rank
  int group = -1;  // transfers of one rank with the same number are neighbours, and issued as one exchange

  bool computes() const { return kind == Kind::forward || kind == Kind::backward; }
  bool sends() const { return kind == Kind::send_activation || kind == Kind::send_gradient; }
  bool receives() const { return kind == Kind::recv_activation || kind == Kind::recv_gradient; }
};

/// "forward of micro-batch 3, chunk 0", "send the activation of micro-batch 3, chunk 0, to rank 1".
std::string to_string(const Instruction& instruction);

/// The model is cut into ranks * chunks stages; stage s is chunk s / ranks of rank s % ranks.
///
/// A rank takes its instructions in order. Groups of transfers are placed so that nothing deadlocks even if
/// each group blocks until all its messages have been taken (a rendezvous): in the order of one clock that
/// all ranks share. A group may hold a receive that is needed only later, so a faster runner starts a group
/// at its place, and waits for a receive before the pass that needs it. Messages between two ranks are sent
/// and received in the same order. Backward passes of a chunk go through the micro-batches in ascending
/// order, as gradient accumulation on one rank does, so that the sums have the same bits.
struct PipelineSchedule {
  PipelineKind kind = PipelineKind::gpipe;
  int ranks = 1, micro_batches = 1, chunks = 1;          // p, m, v
  std::vector<std::vector<Instruction>> instructions{};  // [ranks]

  int stages() const { return ranks * chunks; }
  int stage(int rank, int chunk) const { return chunk * ranks + rank; }
};

/// UsageError unless 1 <= ranks, micro_batches and chunks; chunks > 1 needs the interleaved kind, at least
/// two ranks, and a multiple of `ranks` as micro_batches (so does the interleaved kind in general).
PipelineSchedule make_schedule(PipelineKind kind, int ranks, int micro_batches, int chunks = 1);

/// The layers [first, last) of a stage.
struct LayerRange {
  std::int64_t first = 0, last = 0;
  std::int64_t size() const { return last - first; }
};

/// `layers` cut into `stages` contiguous ranges, each of at least one layer (UsageError if there are too
/// few), so that the slowest stage is as fast as can be. The embedding adds to the first stage, the head to
/// the last: their costs are in layers. Where stages are equal, the earlier one gets the layer.
std::vector<LayerRange> split_layers(std::int64_t layers, int stages, double embedding_cost = 0,
                                     double head_cost = 0);

}  // namespace llm
