#include "common/parallel/schedule.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "common/core/error.h"

namespace llm {

namespace {

using Kind = Instruction::Kind;

Instruction pass(Kind kind, int micro_batch, int chunk) {
  return {kind, micro_batch, chunk};
}

/// All forward passes, then all backward passes.
std::vector<Instruction> gpipe_passes(int micro_batches) {
  std::vector<Instruction> passes;
  for (int i = 0; i < micro_batches; ++i) passes.push_back(pass(Kind::forward, i, 0));
  for (int i = 0; i < micro_batches; ++i) passes.push_back(pass(Kind::backward, i, 0));
  return passes;
}

/// As many forward passes as there are stages behind this one, then one forward, one backward, and the
/// backward passes that are left.
std::vector<Instruction> one_f_one_b_passes(int rank, int ranks, int micro_batches) {
  std::vector<Instruction> passes;
  const int warmup = std::min(ranks - 1 - rank, micro_batches);
  for (int i = 0; i < warmup; ++i) passes.push_back(pass(Kind::forward, i, 0));
  for (int i = warmup; i < micro_batches; ++i) {
    passes.push_back(pass(Kind::forward, i, 0));
    passes.push_back(pass(Kind::backward, i - warmup, 0));
  }
  for (int i = micro_batches - warmup; i < micro_batches; ++i) passes.push_back(pass(Kind::backward, i, 0));
  return passes;
}

/// The same over micro-batches times chunks: `ranks` micro-batches go through the first chunk, then through
/// the second, and so on; then the next `ranks` micro-batches. Backward begins with the last chunk.
std::vector<Instruction> interleaved_passes(int rank, int ranks, int micro_batches, int chunks) {
  const auto nth = [&](Kind kind, int n) {
    const int round = n / (ranks * chunks), within = n % (ranks * chunks);
    const int chunk = within / ranks;
    return pass(kind, round * ranks + within % ranks, kind == Kind::forward ? chunk : chunks - 1 - chunk);
  };
  std::vector<Instruction> passes;
  const int total = micro_batches * chunks;
  const int warmup = std::min(2 * (ranks - 1 - rank) + (chunks - 1) * ranks, total);
  for (int n = 0; n < warmup; ++n) passes.push_back(nth(Kind::forward, n));
  for (int n = warmup; n < total; ++n) {
    passes.push_back(nth(Kind::forward, n));
    passes.push_back(nth(Kind::backward, n - warmup));
  }
  for (int n = total - warmup; n < total; ++n) passes.push_back(nth(Kind::backward, n));
  return passes;
}

/// The clock at which each pass ends, if every pass takes one tick and messages none: [rank][pass].
std::vector<std::vector<int>> end_ticks(const PipelineSchedule& schedule) {
  const int never = std::numeric_limits<int>::max();
  const std::size_t micro_batches = static_cast<std::size_t>(schedule.micro_batches);
  const std::size_t stages = static_cast<std::size_t>(schedule.stages());
  std::vector<int> forward(stages * micro_batches, never), backward = forward;  // [stage][micro-batch]
  std::vector<std::vector<int>> ends(schedule.instructions.size());
  bool finished = false;
  for (int tick = 0; !finished; ++tick) {
    finished = true;
    for (std::size_t rank = 0; rank < ends.size(); ++rank) {
      if (ends[rank].size() == schedule.instructions[rank].size()) continue;
      finished = false;
      const Instruction& next = schedule.instructions[rank][ends[rank].size()];
      const auto stage = static_cast<std::size_t>(schedule.stage(static_cast<int>(rank), next.chunk));
      const std::size_t i = stage * micro_batches + static_cast<std::size_t>(next.micro_batch);
      const bool is_forward = next.kind == Kind::forward;
      const bool first = is_forward ? stage == 0 : stage + 1 == stages;  // nobody has to be waited for
      const int ready = first ? 0 : is_forward ? forward[i - micro_batches] : backward[i + micro_batches];
      if (ready > tick) continue;
      (is_forward ? forward : backward)[i] = tick + 1;
      ends[rank].push_back(tick + 1);
    }
  }
  return ends;
}

/// Puts the transfers between the passes. A message belongs to the tick at which its pass ends, on the
/// sender's and on the receiver's side, and all of a rank's messages of one tick are one group. As every rank
/// goes through the ticks in order, the groups of the earliest tick find their partners, whatever blocks.
void add_transfers(PipelineSchedule& schedule) {
  struct Placed {
    int tick;   // a pass: its end
    int order;  // at the same tick: the pass (0) before the transfers (1)
    int peer;   // -1 of a pass
    Instruction instruction;
  };
  std::vector<std::vector<Placed>> placed(schedule.instructions.size());
  const auto ends = end_ticks(schedule);
  for (std::size_t r = 0; r < placed.size(); ++r) {
    for (std::size_t i = 0; i < ends[r].size(); ++i) {
      const Instruction& made = schedule.instructions[r][i];
      const int tick = ends[r][i], rank = static_cast<int>(r);
      placed[r].push_back({tick, 0, -1, made});
      const bool is_forward = made.kind == Kind::forward;
      const int stage = schedule.stage(rank, made.chunk), to = is_forward ? stage + 1 : stage - 1;
      if (to < 0 || to >= schedule.stages()) continue;
      const int peer = to % schedule.ranks;
      const Kind send = is_forward ? Kind::send_activation : Kind::send_gradient;
      const Kind recv = is_forward ? Kind::recv_activation : Kind::recv_gradient;
      placed[r].push_back({tick, 1, peer, {send, made.micro_batch, made.chunk, peer}});
      placed[static_cast<std::size_t>(peer)].push_back(
          {tick, 1, rank, {recv, made.micro_batch, to / schedule.ranks, rank}});
    }
  }
  for (std::size_t r = 0; r < placed.size(); ++r) {
    std::stable_sort(placed[r].begin(), placed[r].end(), [](const Placed& a, const Placed& b) {
      return std::tuple(a.tick, a.order, a.peer) < std::tuple(b.tick, b.order, b.peer);
    });
    auto& list = schedule.instructions[r];
    list.clear();
    for (const Placed& p : placed[r]) {
      list.push_back(p.instruction);
      if (!p.instruction.computes()) list.back().group = p.tick;
    }
  }
}

}  // namespace

std::string_view pipeline_kind_name(PipelineKind kind) {
  switch (kind) {
    case PipelineKind::gpipe:
      return "gpipe";
    case PipelineKind::one_f_one_b:
      return "1f1b";
    case PipelineKind::interleaved:
      return "interleaved";
  }
  return "?";
}

PipelineKind parse_pipeline_kind(std::string_view name) {
  for (const PipelineKind kind : {PipelineKind::gpipe, PipelineKind::one_f_one_b, PipelineKind::interleaved})
    if (name == pipeline_kind_name(kind)) return kind;
  fail_usage("there is no pipeline schedule '{}'; there are gpipe, 1f1b and interleaved", name);
}

std::string to_string(const Instruction& instruction) {
  const auto what = fmt::format("micro-batch {}, chunk {}", instruction.micro_batch, instruction.chunk);
  switch (instruction.kind) {
    case Kind::forward:
      return "forward of " + what;
    case Kind::backward:
      return "backward of " + what;
    case Kind::send_activation:
      return fmt::format("send the activation of {}, to rank {}", what, instruction.peer);
    case Kind::recv_activation:
      return fmt::format("receive the activation for {}, from rank {}", what, instruction.peer);
    case Kind::send_gradient:
      return fmt::format("send the gradient of {}, to rank {}", what, instruction.peer);
    case Kind::recv_gradient:
      return fmt::format("receive the gradient for {}, from rank {}", what, instruction.peer);
  }
  return "?";
}

PipelineSchedule make_schedule(PipelineKind kind, int ranks, int micro_batches, int chunks) {
  if (ranks < 1 || micro_batches < 1 || chunks < 1)
    fail_usage("a pipeline needs at least 1 rank, 1 micro-batch and 1 chunk per rank, got {}, {} and {}",
               ranks, micro_batches, chunks);
  if (chunks > 1 && kind != PipelineKind::interleaved)
    fail_usage("{} chunks per rank need the interleaved schedule; {} has one", chunks,
               pipeline_kind_name(kind));
  if (kind == PipelineKind::interleaved && chunks > 1 && ranks == 1)
    fail_usage("{} chunks per rank need at least 2 ranks to interleave over", chunks);
  if (kind == PipelineKind::interleaved && micro_batches % ranks != 0)
    fail_usage("the interleaved schedule needs a multiple of its {} ranks as micro-batches, got {}", ranks,
               micro_batches);
  PipelineSchedule schedule{kind, ranks, micro_batches, chunks};
  for (int rank = 0; rank < ranks; ++rank) switch (kind) {
      case PipelineKind::gpipe:
        schedule.instructions.push_back(gpipe_passes(micro_batches));
        break;
      case PipelineKind::one_f_one_b:
        schedule.instructions.push_back(one_f_one_b_passes(rank, ranks, micro_batches));
        break;
      case PipelineKind::interleaved:
        schedule.instructions.push_back(interleaved_passes(rank, ranks, micro_batches, chunks));
        break;
    }
  add_transfers(schedule);
  return schedule;
}

std::vector<LayerRange> split_layers(std::int64_t layers, int stages, double embedding_cost,
                                     double head_cost) {
  if (stages < 1) fail_usage("a model is cut into at least 1 stage, not {}", stages);
  if (layers < stages) fail_usage("{} layers cannot be cut into {} stages of at least one", layers, stages);
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(stages), 1);
  std::vector<double> costs(sizes.size(), 1);
  costs.front() += embedding_cost;
  costs.back() += head_cost;
  for (std::int64_t left = layers - stages; left > 0; --left) {
    const auto least = std::min_element(costs.begin(), costs.end());
    *least += 1;
    ++sizes[static_cast<std::size_t>(least - costs.begin())];
  }
  std::vector<LayerRange> ranges;
  std::int64_t first = 0;
  for (const std::int64_t size : sizes) {
    ranges.push_back({first, first + size});
    first += size;
  }
  return ranges;
}

}  // namespace llm
