// Where the threads of a block wait for each other: barriers, collectives of a warp, loops over atomics; and
// what can be said when nobody can go on.
#include <time.h>

#include <algorithm>
#include <array>
#include <bit>

#include "common/core/error.h"
#include "common/simt/emulator/checker.h"
#include "common/simt/emulator/multiprocessor.h"

namespace llm::simt {

namespace {

constexpr std::uint32_t kAtomicsPerTurn = 1024;
constexpr double kForever = 1.0;  // seconds of computing

double seconds_computed() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

}  // namespace

// ---- Barriers ----

Multiprocessor::Arrived Multiprocessor::barrier(const void* where, int predicate) {
  Thread& me = *running_;
  me.where = where;
  me.waits = Thread::Waits::at_barrier;
  ++at_barrier_;
  predicates_ += predicate != 0 ? 1 : 0;
  if (at_barrier_ + done_ == count_) {
    release_barrier();
    if (!shuffled_) return last_barrier_;
    make_ready(me);
  }
  suspend(me);
  return last_barrier_;
}

void Multiprocessor::release_barrier() {
  if (checker != nullptr) checker->barrier_passed(*this);
  last_barrier_ = {static_cast<int>(at_barrier_), predicates_};
  at_barrier_ = 0;
  predicates_ = 0;
  for (unsigned i = 0; i < count_; ++i) {
    if (threads_[i].waits != Thread::Waits::at_barrier) continue;
    threads_[i].waits = Thread::Waits::no;
    if (&threads_[i] != running_) make_ready(threads_[i]);
  }
}

// ---- Collectives of a warp ----

void Multiprocessor::join(Collective what, const char* name, std::uint32_t mask, Lane& lane,
                          const void* where) {
  Thread& me = *running_;
  const unsigned number = me.number / kWarp;
  const std::uint32_t my_bit = 1u << (me.number % kWarp);
  me.where = where;
  me.name = name;
  me.mask = mask;
  me.lane = &lane;
  if ((mask & my_bit) == 0) [[unlikely]] {
    RawFault fault;
    fault.kind = FaultKind::missing_lane;
    fault.text = fmt::format("calls {} with mask {:#010x}", name, mask);
    fault.where = where;
    fault.end = fmt::format(", which does not name its own lane {}", me.number % kWarp);
    fail(std::move(fault));
  }
  auto& groups = warps_[number].groups;
  std::size_t i = 0;
  while (i < groups.size() && (groups[i].what != what || groups[i].mask != mask)) ++i;
  if (i == groups.size()) groups.push_back({what, mask, 0});
  groups[i].arrived |= my_bit;
  if (complete(number, i)) {
    if (!shuffled_) return;
    make_ready(me);
  } else {
    me.waits = Thread::Waits::in_warp;
  }
  suspend(me);
}

/// Does the work of a group if all its lanes are there or gone; false if not.
bool Multiprocessor::complete(unsigned warp_number, std::size_t group_number) {
  Warp& warp = warps_[warp_number];
  const Warp::Group group = warp.groups[group_number];
  if ((group.mask & ~(group.arrived | warp.gone)) != 0) return false;
  std::array<Lane*, kWarp> lanes{};
  Thread* first = &threads_[warp_number * kWarp];
  for (std::uint32_t left = group.arrived; left != 0; left &= left - 1) {
    const int i = std::countr_zero(left);
    lanes[static_cast<std::size_t>(i)] = first[i].lane;
  }
  group.what(lanes.data(), group.arrived);
  if (checker != nullptr && group.what == wait_only) checker->warp_synchronised(warp_number, group.arrived);
  for (std::uint32_t left = group.arrived; left != 0; left &= left - 1) {
    Thread& thread = first[std::countr_zero(left)];
    if (thread.waits != Thread::Waits::in_warp) continue;  // the one that came last
    thread.waits = Thread::Waits::no;
    make_ready(thread);
  }
  warp.groups[group_number] = warp.groups.back();
  warp.groups.pop_back();
  return true;
}

/// Nobody can go on, and somebody is not done. All wait, and not all at the barrier, or it would have opened:
/// so a lane waits in a collective for another that waits elsewhere.
void Multiprocessor::stuck() {
  RawFault fault;
  fault.kind = FaultKind::deadlock;
  fault.text = "waits for what cannot come";
  for (unsigned i = 0; i < count_; ++i) {
    const Thread& thread = threads_[i];
    if (thread.waits != Thread::Waits::in_warp) continue;
    const Warp& warp = warps_[i / kWarp];
    std::uint32_t arrived = 0;
    for (const auto& group : warp.groups)
      if ((group.arrived >> (i % kWarp) & 1u) != 0) arrived = group.arrived;
    const std::uint32_t missing = thread.mask & ~(arrived | warp.gone);
    const auto lane = static_cast<unsigned>(std::countr_zero(missing));
    const Thread& other = threads_[i / kWarp * kWarp + lane];
    fault.kind = FaultKind::missing_lane;
    fault.thread = static_cast<int>(i);
    fault.text =
        fmt::format("waits at {} with mask {:#010x} for lane {} of its warp", thread.name, thread.mask, lane);
    fault.where = thread.where;
    fault.other_text = fmt::format(", which waits at {}",
                                   other.waits == Thread::Waits::at_barrier ? "__syncthreads" : other.name);
    if (other.waits == Thread::Waits::in_warp && other.mask != thread.mask)
      fault.other_text += fmt::format(" with mask {:#010x}", other.mask);
    fault.other_where = other.where;
    break;
  }
  fail(std::move(fault));
}

// ---- Loops over atomics ----

void Multiprocessor::spin() {
  Thread& me = *running_;
  if (++me.atomics % kAtomicsPerTurn != 0) return;
  if (ready_count_ == 0 && unstarted_ == count_) {
    if (me.alone_since == 0) me.alone_since = seconds_computed();
    if (seconds_computed() - me.alone_since < kForever) return;
    RawFault fault;
    fault.kind = FaultKind::deadlock;
    fault.text = "does atomic operations in a loop";
    fault.where = me.where;
    fault.end = ", and nobody else can go on to change what it waits for";
    fail(std::move(fault));
  }
  me.alone_since = 0;
  // Those that have not begun come first: ready ones may be spinning too.
  Thread* other = unstarted_ < count_ ? &threads_[unstarted_++] : next();
  make_ready(me);
  switch_to(me, *other);
}

}  // namespace llm::simt
