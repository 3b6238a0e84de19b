#include "common/parallel/schedule_check.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "common/core/error.h"

namespace llm {

namespace {

using Kind = Instruction::Kind;
using Unit = std::pair<int, int>;  // stage, micro-batch

/// What a rank has, while it goes through its list.
struct RankState {
  std::size_t next = 0;       // the instruction it is at
  std::size_t group_end = 0;  // while in a group: the instruction behind it
  std::vector<bool> met;      // of the group: the messages that have met their partners
  std::set<Unit> forward, backward, inputs, gradients;
};

class Player {
 public:
  explicit Player(const PipelineSchedule& schedule)
      : schedule_(schedule), ranks_(schedule.instructions.size()) {
    check(static_cast<int>(ranks_.size()) == schedule.ranks,
          "the schedule has lists for {} ranks, expected {}", ranks_.size(), schedule.ranks);
  }

  void play() {
    for (bool moved = true; moved;) {
      moved = false;
      for (int rank = 0; rank < schedule_.ranks; ++rank) moved = advance(rank) || moved;
      moved = meet() || moved;
    }
    std::string stuck;
    for (int rank = 0; rank < schedule_.ranks; ++rank)
      if (!finished(rank)) stuck += fmt::format("; rank {} waits to {}", rank, to_string(waiting_for(rank)));
    if (!stuck.empty()) fail("the schedule deadlocks: {}", stuck.substr(2));
    for (int rank = 0; rank < schedule_.ranks; ++rank) check_complete(rank);
  }

 private:
  const std::vector<Instruction>& list(int rank) const {
    return schedule_.instructions[static_cast<std::size_t>(rank)];
  }
  RankState& state(int rank) { return ranks_[static_cast<std::size_t>(rank)]; }
  bool finished(int rank) { return state(rank).next == list(rank).size(); }
  bool in_group(int rank) { return state(rank).group_end > state(rank).next; }

  const Instruction& waiting_for(int rank) {
    const RankState& s = state(rank);
    std::size_t i = s.next;
    while (in_group(rank) && s.met[i - s.next]) ++i;
    return list(rank)[i];
  }

  [[noreturn]] void wrong(int rank, const Instruction& at, std::string_view why) const {
    fail("rank {}, {}: {}", rank, to_string(at), why);
  }

  /// Goes on until the rank is in a group that has not been taken, or at its end.
  bool advance(int rank) {
    RankState& s = state(rank);
    bool moved = false;
    while (!finished(rank)) {
      if (in_group(rank)) {
        if (std::find(s.met.begin(), s.met.end(), false) != s.met.end()) return moved;
        for (; s.next < s.group_end; ++s.next) take(rank, list(rank)[s.next]);
      } else if (list(rank)[s.next].computes()) {
        compute(rank, list(rank)[s.next++]);
      } else {
        s.group_end = s.next;
        while (s.group_end < list(rank).size() && !list(rank)[s.group_end].computes() &&
               list(rank)[s.group_end].group == list(rank)[s.next].group)
          check_transfer(rank, list(rank)[s.group_end++]);
        s.met.assign(s.group_end - s.next, false);
      }
      moved = true;
    }
    return moved;
  }

  void check_range(int rank, const Instruction& i) const {
    if (i.micro_batch < 0 || i.micro_batch >= schedule_.micro_batches || i.chunk < 0 ||
        i.chunk >= schedule_.chunks)
      wrong(rank, i, "there is no such micro-batch or chunk");
  }

  void compute(int rank, const Instruction& i) {
    check_range(rank, i);
    RankState& s = state(rank);
    const int stage = schedule_.stage(rank, i.chunk), last = schedule_.stages() - 1;
    const Unit unit{stage, i.micro_batch};
    if (i.kind == Kind::forward) {
      if (stage > 0 && !arrived(rank, stage - 1, i, s.inputs, &RankState::forward))
        wrong(rank, i, "its input is not there yet");
      if (!s.forward.insert(unit).second) wrong(rank, i, "it was done before");
    } else {
      if (!s.forward.count(unit)) wrong(rank, i, "its forward pass was not done yet");
      if (stage < last && !arrived(rank, stage + 1, i, s.gradients, &RankState::backward))
        wrong(rank, i, "the gradient of its output is not there yet");
      if (!s.backward.insert(unit).second) wrong(rank, i, "it was done before");
    }
  }

  /// Whether what the pass needs came by message or, from a stage of this very rank, without one.
  bool arrived(int rank, int from_stage, const Instruction& i, const std::set<Unit>& received,
               std::set<Unit> RankState::*own) {
    if (from_stage % schedule_.ranks == rank)
      return (state(rank).*own).count({from_stage, i.micro_batch}) > 0;
    return received.count({schedule_.stage(rank, i.chunk), i.micro_batch}) > 0;
  }

  /// The stage on the other side of a transfer.
  int other_stage(int rank, const Instruction& i) const {
    const bool downstream = i.kind == Kind::send_activation || i.kind == Kind::recv_gradient;
    return schedule_.stage(rank, i.chunk) + (downstream ? 1 : -1);
  }

  void check_transfer(int rank, const Instruction& i) {
    check_range(rank, i);
    const int other = other_stage(rank, i);
    if (other < 0 || other >= schedule_.stages()) wrong(rank, i, "there is no stage on the other side");
    if (other % schedule_.ranks != i.peer || i.peer == rank) wrong(rank, i, "that stage is not on this rank");
    const Unit unit{schedule_.stage(rank, i.chunk), i.micro_batch};
    if (i.kind == Kind::send_activation && !state(rank).forward.count(unit))
      wrong(rank, i, "it was not computed yet");
    if (i.kind == Kind::send_gradient && !state(rank).backward.count(unit))
      wrong(rank, i, "it was not computed yet");
  }

  void take(int rank, const Instruction& i) {
    if (!i.receives()) return;
    auto& received = i.kind == Kind::recv_activation ? state(rank).inputs : state(rank).gradients;
    if (!received.insert({schedule_.stage(rank, i.chunk), i.micro_batch}).second)
      wrong(rank, i, "it was received before");
  }

  /// Messages of groups that are open on both sides meet: from each rank to each other rank in order.
  bool meet() {
    bool moved = false;
    for (int from = 0; from < schedule_.ranks; ++from)
      for (std::size_t send = state(from).next; send < state(from).group_end; ++send) {
        const Instruction& s = list(from)[send];
        if (!s.sends() || first_open(from, s.peer, true) != send) continue;
        const std::size_t recv = first_open(s.peer, from, false);
        if (recv == kNone) continue;
        const Instruction& r = list(s.peer)[recv];
        const bool same = (s.kind == Kind::send_activation) == (r.kind == Kind::recv_activation) &&
                          s.micro_batch == r.micro_batch &&
                          other_stage(from, s) == schedule_.stage(s.peer, r.chunk);
        if (!same)
          fail("messages cross: rank {} wants to {}, rank {} to {}", from, to_string(s), s.peer,
               to_string(r));
        state(from).met[send - state(from).next] = true;
        state(s.peer).met[recv - state(s.peer).next] = true;
        moved = true;
      }
    return moved;
  }

  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  /// The first transfer with `peer` in the rank's open group that has not met its partner.
  std::size_t first_open(int rank, int peer, bool sends) {
    const RankState& s = state(rank);
    for (std::size_t i = s.next; i < s.group_end; ++i) {
      const Instruction& at = list(rank)[i];
      if (at.peer == peer && at.sends() == sends && !s.met[i - s.next]) return i;
    }
    return kNone;
  }

  void check_complete(int rank) {
    const RankState& s = state(rank);
    const auto expected = static_cast<std::size_t>(schedule_.chunks * schedule_.micro_batches);
    check(s.forward.size() == expected && s.backward.size() == expected,
          "rank {} does {} forward and {} backward passes, expected {} of each", rank, s.forward.size(),
          s.backward.size(), expected);
    std::size_t needed = 0, needed_gradients = 0;
    for (int chunk = 0; chunk < schedule_.chunks; ++chunk) {
      const int stage = schedule_.stage(rank, chunk), m = schedule_.micro_batches;
      if (schedule_.ranks > 1 && stage > 0) needed += static_cast<std::size_t>(m);
      if (schedule_.ranks > 1 && stage + 1 < schedule_.stages())
        needed_gradients += static_cast<std::size_t>(m);
    }
    check(s.inputs.size() == needed && s.gradients.size() == needed_gradients,
          "rank {} receives {} activations and {} gradients, expected {} and {}", rank, s.inputs.size(),
          s.gradients.size(), needed, needed_gradients);
  }

  const PipelineSchedule& schedule_;
  std::vector<RankState> ranks_;
};

}  // namespace

void check_schedule(const PipelineSchedule& schedule) {
  Player(schedule).play();
}

std::vector<int> peak_in_flight(const PipelineSchedule& schedule) {
  std::vector<int> peaks;
  for (const auto& list : schedule.instructions) {
    int alive = 0, peak = 0;
    for (const Instruction& i : list) {
      if (i.kind == Kind::forward) peak = std::max(peak, ++alive);
      if (i.kind == Kind::backward) --alive;
    }
    peaks.push_back(peak);
  }
  return peaks;
}

}  // namespace llm
