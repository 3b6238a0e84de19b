#include "common/parallel/schedule_timing.h"

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>

#include "common/core/error.h"

namespace llm {

namespace {

using Kind = Instruction::Kind;

/// A message by what it carries: to which stage, which micro-batch, and whether it is a gradient.
using Message = std::tuple<int, int, bool>;

class Simulation {
 public:
  Simulation(const PipelineSchedule& schedule, const PipelineCosts& costs)
      : schedule_(schedule), costs_(costs), next_(schedule.instructions.size(), 0), clock_(next_.size(), 0) {
    timeline_.ranks.resize(next_.size());
    timeline_.busy.resize(next_.size(), 0);
  }

  Timeline run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (int rank = 0; rank < schedule_.ranks; ++rank)
        while (step(rank)) moved = true;
    }
    for (std::size_t r = 0; r < next_.size(); ++r) {
      const auto& list = schedule_.instructions[r];
      if (next_[r] < list.size())
        fail("the schedule cannot be played: rank {} waits to {}", r, to_string(list[next_[r]]));
    }
    return std::move(timeline_);
  }

 private:
  /// The rank's next pass or group of transfers, if what it waits for has a time already.
  bool step(int rank) {
    const auto r = static_cast<std::size_t>(rank);
    const auto& list = schedule_.instructions[r];
    if (next_[r] == list.size()) return false;
    if (list[next_[r]].computes()) return compute(rank, list[next_[r]]);
    std::size_t end = next_[r];
    while (end < list.size() && !list[end].computes() && list[end].group == list[next_[r]].group) ++end;
    return transfer(rank, next_[r], end);
  }

  bool compute(int rank, const Instruction& i) {
    const auto r = static_cast<std::size_t>(rank);
    const int stage = schedule_.stage(rank, i.chunk);
    const bool backward = i.kind == Kind::backward;
    const bool first = backward ? stage + 1 == schedule_.stages() : stage == 0;
    double start = clock_[r];
    if (!first) {
      const auto arrival = arrivals_.find({stage, i.micro_batch, backward});
      if (arrival == arrivals_.end()) return false;
      start = std::max(start, arrival->second);
    }
    const double took = (backward ? costs_.backward : costs_.forward)[static_cast<std::size_t>(stage)];
    const double end = start + took;
    clock_[r] = end;
    timeline_.busy[r] += took;
    timeline_.total = std::max(timeline_.total, end);
    timeline_.ranks[r].push_back({i, start, end});
    const int to = backward ? stage - 1 : stage + 1;
    // A stage of the same rank needs no message.
    if (schedule_.ranks == 1 && to >= 0 && to < schedule_.stages())
      arrivals_[{to, i.micro_batch, backward}] = end;
    ++next_[r];
    return true;
  }

  /// The message that this side sends or receives.
  Message message(int rank, const Instruction& i) const {
    const bool gradient = i.kind == Kind::send_gradient || i.kind == Kind::recv_gradient;
    const int stage = schedule_.stage(rank, i.chunk);
    return {i.receives() ? stage : gradient ? stage - 1 : stage + 1, i.micro_batch, gradient};
  }

  bool transfer(int rank, std::size_t begin, std::size_t end) {
    const auto r = static_cast<std::size_t>(rank);
    const auto& list = schedule_.instructions[r];
    // When this rank came to its group; a message leaves when both sides have.
    for (std::size_t i = begin; i < end; ++i) {
      const Message key = message(rank, list[i]);
      (list[i].sends() ? sent_ : posted_).try_emplace(key, clock_[r]);
      if (costs_.overlap && list[i].sends()) arrivals_.try_emplace(key, clock_[r] + costs_.transfer);
    }
    double done = clock_[r];
    if (!costs_.overlap)
      for (std::size_t i = begin; i < end; ++i) {
        const Message key = message(rank, list[i]);
        const auto sent = sent_.find(key), posted = posted_.find(key);
        if (sent == sent_.end() || posted == posted_.end()) return false;
        const double arrival = std::max(sent->second, posted->second) + costs_.transfer;
        arrivals_[key] = arrival;
        done = std::max(done, arrival);
      }
    for (std::size_t i = begin; i < end; ++i) timeline_.ranks[r].push_back({list[i], clock_[r], done});
    clock_[r] = done;
    next_[r] = end;
    return true;
  }

  const PipelineSchedule& schedule_;
  const PipelineCosts& costs_;
  std::vector<std::size_t> next_;
  std::vector<double> clock_;
  std::map<Message, double> arrivals_, sent_, posted_;
  Timeline timeline_;
};

}  // namespace

double Timeline::bubble() const {
  const double most = *std::max_element(busy.begin(), busy.end());
  return (total - most) / most;
}

Timeline simulate(const PipelineSchedule& schedule, const PipelineCosts& costs) {
  const auto stages = static_cast<std::size_t>(schedule.stages());
  check(costs.forward.size() == stages && costs.backward.size() == stages,
        "the schedule has {} stages, the costs are for {} and {}", stages, costs.forward.size(),
        costs.backward.size());
  return Simulation(schedule, costs).run();
}

}  // namespace llm
