// Launches on the software GPU: the limits of a device, blocks spread over the host's threads, faults as
// Errors.
#include <algorithm>
#include <atomic>
#include <mutex>
#include <numeric>
#include <vector>

#include "common/core/device_backend.h"
#include "common/core/error.h"
#include "common/core/threads.h"
#include "common/simt/emulator/checker.h"
#include "common/simt/emulator/crash.h"
#include "common/simt/emulator/launch_bounds.h"
#include "common/simt/emulator/symbols.h"

namespace llm::simt {

namespace {

struct Settings {
  std::atomic<std::uint64_t> seed = 0;
  std::atomic<std::size_t> shared_limit = kSharedMemory;
  std::mutex mutex;  // over the last fault
  Fault fault;
};

Settings& settings() {
  static Settings instance;
  return instance;
}

std::string_view kind_name(FaultKind kind) {
  switch (kind) {
    case FaultKind::race:
      return "race";
    case FaultKind::divergent_barrier:
      return "divergent barrier";
    case FaultKind::missing_lane:
      return "missing lane";
    case FaultKind::out_of_bounds:
      return "access out of bounds";
    case FaultKind::uninitialised:
      return "uninitialised read";
    case FaultKind::early_read:
      return "asynchronous copy used before its wait";
    case FaultKind::deadlock:
      return "deadlock";
    case FaultKind::trap:
      break;
  }
  return "trap";
}

/// The sentence of a fault in thread `raw.thread` of block `block`.
Fault describe(const RawFault& raw, const Kernel& kernel, const LaunchConfig& config, dim3 block) {
  Fault fault;
  fault.kind = raw.kind;
  fault.kernel = function_name(kernel.function);
  fault.block = spell({block.x, block.y, block.z}, config.grid);
  fault.thread = spell_thread(static_cast<unsigned>(std::max(0, raw.thread)), config.block);
  if (raw.where != nullptr) {
    const Place place = place_before(raw.where);
    fault.file = place.file;
    fault.line = place.line;
  }
  std::string other;
  if (!raw.other_text.empty())
    other = raw.other_text + (raw.other_where != nullptr ? at(place_before(raw.other_where)) : "");
  fault.sentence =
      fmt::format("{} in kernel '{}'{}: thread {} of block {} {}{}{}{}", kind_name(raw.kind), fault.kernel,
                  raw.memory != nullptr ? fmt::format(" ({})", raw.memory) : "", fault.thread, fault.block,
                  raw.text, at({fault.file, fault.line}), other, raw.end);
  return fault;
}

/// Error unless a device could run it so. The numbers are those of all GPUs since 2010 but for shared memory.
void check_limits(const Kernel& kernel, const LaunchConfig& config) {
  const auto refuse = [&](const std::string& why) {
    fail("kernel '{}' cannot be launched: {}", function_name(kernel.function), why);
  };
  const dim3 g = config.grid, b = config.block;
  const std::uint64_t threads = std::uint64_t{b.x} * b.y * b.z;
  if (g.x == 0 || g.y == 0 || g.z == 0) refuse(fmt::format("its grid is empty ({}, {}, {})", g.x, g.y, g.z));
  if (threads == 0) refuse(fmt::format("its blocks are empty ({}, {}, {})", b.x, b.y, b.z));
  if (b.x > 1024 || b.y > 1024 || b.z > 64 || threads > kMaxThreads)
    refuse(fmt::format("its blocks have {} threads ({}, {}, {}); a block has at most {} (1024, 1024, 64)",
                       threads, b.x, b.y, b.z, kMaxThreads));
  if (const unsigned bound = launch_bound(kernel.function); bound != 0 && threads > bound)
    refuse(fmt::format("its blocks have {} threads, but it was compiled for at most {} (__launch_bounds__)",
                       threads, bound));
  if (g.x > 2147483647U || g.y > 65535 || g.z > 65535)
    refuse(fmt::format("its grid is ({}, {}, {}); a grid has at most (2147483647, 65535, 65535)", g.x, g.y,
                       g.z));
  if (const std::size_t limit = settings().shared_limit; config.shared_bytes > limit)
    refuse(fmt::format("it asks for {} bytes of shared memory; a block has at most {}", config.shared_bytes,
                       limit));
}

/// The blocks of a grid in the order of `seed`.
std::vector<std::uint64_t> shuffled_blocks(std::uint64_t count, std::uint64_t seed) {
  std::vector<std::uint64_t> order(count);
  std::iota(order.begin(), order.end(), std::uint64_t{0});
  std::uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (std::uint64_t i = count; i > 1; --i) {
    state = state * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX
    std::swap(order[i - 1], order[(state >> 33) % i]);
  }
  return order;
}

}  // namespace

void run_grid(const Kernel& kernel, const LaunchConfig& config) {
  check_limits(kernel, config);
  check(!Multiprocessor::of_this_thread().runs_kernel(), "a kernel cannot launch another");
  catch_crashes();

  // The checked build runs one launch at a time and its blocks one after the other: what it says is then the
  // same every time.
  static std::mutex one_checked_launch;
  std::unique_lock<std::mutex> checked_lock;
  if (checker != nullptr) {
    checked_lock = std::unique_lock(one_checked_launch);
    checker->launch_begins(kernel, config);
  }
  const device_backend::Unlocked unlocked;

  const std::uint64_t seed = settings().seed;
  const dim3 g = config.grid;
  const std::uint64_t blocks = std::uint64_t{g.x} * g.y * g.z;
  const std::vector<std::uint64_t> order =
      seed != 0 ? shuffled_blocks(blocks, seed) : std::vector<std::uint64_t>{};
  std::atomic<std::uint64_t> taken = 0;
  std::atomic<bool> failed = false;
  Fault fault;
  const auto work = [&](std::int64_t, std::int64_t) {
    auto& mp = Multiprocessor::of_this_thread();
    give_handler_stack();
    while (!failed.load(std::memory_order_relaxed)) {
      const std::uint64_t i = taken.fetch_add(1, std::memory_order_relaxed);
      if (i >= blocks) return;
      const std::uint64_t n = order.empty() ? i : order[i];
      const dim3 block(static_cast<unsigned>(n % g.x), static_cast<unsigned>(n / g.x % g.y),
                       static_cast<unsigned>(n / g.x / g.y));
      if (mp.run_block(kernel, config, block, seed)) continue;
      if (!failed.exchange(true)) fault = describe(mp.fault(), kernel, config, block);  // the first to fail
    }
  };
  const auto workers =
      static_cast<std::int64_t>(std::min<std::uint64_t>(blocks, static_cast<std::uint64_t>(thread_count())));
  if (checker != nullptr || workers == 1)
    work(0, 1);
  else
    parallel_for(workers, 1, work);

  if (checker != nullptr) checker->launch_ends();
  if (failed) {
    const std::lock_guard lock(settings().mutex);
    settings().fault = fault;
    throw Error(fault.sentence);
  }
}

Fault last_fault() {
  const std::lock_guard lock(settings().mutex);
  return settings().fault;
}

void set_schedule_seed(std::uint64_t seed) {
  settings().seed = seed;
}

void set_shared_memory_limit(std::size_t bytes) {
  settings().shared_limit = std::min(bytes, kSharedMemory);
}

std::vector<Counts> counted_launches() {
  return checker != nullptr ? checker->counted() : std::vector<Counts>{};
}

void clear_counts() {
  if (checker != nullptr) checker->clear_counts();
}

bool checked() {
  return checker != nullptr;
}

}  // namespace llm::simt
