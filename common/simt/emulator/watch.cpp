#include "common/simt/emulator/watch.h"

#include <sys/mman.h>

#include <algorithm>

#include "common/core/error.h"
#include "common/simt/emulator/crash.h"
#include "common/simt/emulator/symbols.h"

namespace llm::simt {

constinit thread_local bool watching = false;

namespace {

constexpr std::size_t kWatched = std::size_t{16} << 30;  // of device memory
constexpr std::size_t kShared = 512 * 1024;              // a multiprocessor's, with gaps

Watch* watch = nullptr;

}  // namespace

Watch::Watch()
    : global_("global memory", device_backend::emulated_range().begin,
              std::min(kWatched, device_backend::emulated_range().reserved)) {}

// ---- Accesses ----

void Watch::access(const void* address, std::size_t bytes, bool write, bool atomic, const void* where) {
  const Fiber& fiber = mp_->running_fiber();
  if (static_cast<std::size_t>(static_cast<const std::byte*>(address) - fiber.stack) < fiber.stack_bytes)
    return;
  if (shared_->contains(address))
    in_region(*shared_, offset(*shared_, address), bytes, write, atomic, where);
  else if (global_.contains(address))
    in_region(global_, offset(global_, address), bytes, write, atomic, where);
  else
    elsewhere(address, write, where);
}

void Watch::in_region(Region& region, std::size_t offset, std::size_t bytes, bool write, bool atomic,
                      const void* where) {
  if (!region.addressable.all(offset, bytes)) [[unlikely]]
    report_bounds(region, offset, bytes, write, where);
  const unsigned me = mp_->thread().number;
  const Site site = sites_.number(where);
  const bool shared = &region == shared_.get();
  if (shared) {
    if (const Cell* cell = find_pending(region, offset, bytes, clock_); cell != nullptr) [[unlikely]] {
      RawFault fault;
      fault.kind = FaultKind::early_read;
      fault.memory = region.name;
      fault.text = fmt::format("{} {}", write ? "writes" : "reads", name(region, offset).what);
      fault.where = where;
      fault.other_text = fmt::format(", before thread {} waited for its asynchronous copy",
                                     spell_thread(cell->writer, ::blockDim));
      fault.other_where = sites_.where(cell->write_site);
      mp_->fail(std::move(fault));
    }
  }
  if ((!write || atomic) && !region.initialised.all(offset, bytes)) [[unlikely]]
    suspect(region, offset, where);
  const Access access{offset, bytes, me, site, write, atomic};
  const Conflict conflict = note(region, access, clock_, between_blocks_ && !shared);
  if (conflict.found) [[unlikely]]
    mp_->fail(describe_race(region, access, conflict));
  if (write) region.initialised.set(offset, bytes, true);
  if (!atomic) tally_.add(me, site, shared, write, offset, bytes);
}

// ---- What happens in a launch ----

void Watch::launch_begins(const Kernel& kernel, const LaunchConfig& config) {
  if (clock_.now > 1u << 30) {  // long before it overflows, forget all times
    const auto forget = [](const Region& region) {
      madvise(region.cells, region.bytes / 2 * sizeof(Cell), MADV_DONTNEED);
    };
    forget(global_);
    if (shared_) forget(*shared_);
    clock_.now = 1;
  }
  kernel_ = &kernel;
  config_ = config;
  clock_.launch = ++clock_.now;
  starts_.clear();
  tally_.counts = {};
  tally_.counts.kernel = function_name(kernel.function);
  const auto fill = [](unsigned(&to)[3], dim3 from) { to[0] = from.x, to[1] = from.y, to[2] = from.z; };
  fill(tally_.counts.grid, config.grid);
  fill(tally_.counts.block, config.block);
}

void Watch::launch_ends() {
  watching = false;
  kernel_ = nullptr;
  tally_.drop();  // nothing is left of a launch that went well
  const std::lock_guard lock(mutex_);
  counted_.push_back(tally_.counts);
}

void Watch::block_begins(Multiprocessor& mp, std::uint64_t block) {
  mp_ = &mp;
  if (!shared_) shared_ = std::make_unique<Region>("shared memory", mp.shared_memory(), kShared);
  shared_->begin = mp.shared_memory();
  clock_.block = clock_.barrier = ++clock_.now;
  for (auto& syncs : clock_.syncs) syncs.clear();
  starts_.push_back({clock_.now, block});
  shared_->addressable.set(0, kShared, false);
  shared_->initialised.set(0, kShared, false);
  shared_->addressable.set(0, mp.dynamic_bytes(), true);
  between_blocks_ = true;
  suspect_ = {};
  watching = true;
}

void Watch::block_ends(Multiprocessor& mp) {
  for (unsigned warp = 0; warp * kWarp < mp.thread_count(); ++warp) tally_.close(warp);
}

void Watch::thread_ended(Multiprocessor& mp, const Thread& thread) {
  if (mp.warp(thread.number / kWarp).gone == ~0u) tally_.close(thread.number / kWarp);
  if (mp.all_done()) judge_suspect();
}

void Watch::shared_object_made(const SharedObject& object) {
  shared_->addressable.set(object.offset, object.bytes, true);
}

void Watch::barrier_passed(Multiprocessor& mp) {
  judge_suspect();
  const Thread* first = nullptr;
  for (unsigned i = 0; i < mp.thread_count(); ++i) {
    const Thread& thread = mp.thread(i);
    if (thread.waits != Thread::Waits::at_barrier) continue;
    if (first == nullptr) first = &thread;
    if (thread.where == first->where) continue;
    const Place here = place_before(thread.where), there = place_before(first->where);
    if (here.line == there.line && here.file == there.file) continue;  // one barrier that was compiled twice
    RawFault fault;
    fault.kind = FaultKind::divergent_barrier;
    fault.thread = static_cast<int>(i);
    fault.text = "waits at __syncthreads";
    fault.where = thread.where;
    fault.other_text =
        fmt::format(", while thread {} waits at __syncthreads", spell_thread(first->number, ::blockDim));
    fault.other_where = first->where;
    mp.fail(std::move(fault));
  }
  clock_.barrier = ++clock_.now;
  ++tally_.counts.barriers;
  for (unsigned warp = 0; warp * kWarp < mp.thread_count(); ++warp) tally_.close(warp);
}

void Watch::warp_synchronised(unsigned warp, std::uint32_t mask) {
  ++clock_.now;
  for (auto& sync : clock_.syncs[warp])
    if (sync.mask == mask) {
      sync.time = clock_.now;
      return;
    }
  clock_.syncs[warp].push_back({mask, clock_.now});
}

void Watch::copy_begun(Multiprocessor& mp, const AsyncCopy& copy) {
  ++tally_.counts.async_copies;
  if (!shared_->contains(copy.to)) {
    RawFault fault;
    fault.kind = FaultKind::out_of_bounds;
    fault.text = "copies asynchronously to what is not shared memory";
    fault.where = copy.where;
    mp.fail(std::move(fault));
  }
  if (copy.bytes > copy.zeros) access(copy.from, copy.bytes - copy.zeros, false, false, copy.where);
  access(copy.to, copy.bytes, true, false, copy.where);
  set_pending(*shared_, offset(*shared_, copy.to), copy.bytes, true);
}

void Watch::copy_done(Multiprocessor& mp, const Thread& thread, const AsyncCopy& copy) {
  const std::size_t at = offset(*shared_, copy.to);
  set_pending(*shared_, at, copy.bytes, false);
  // It counts as written now: what others did in between conflicts with it.
  const Access access{at, copy.bytes, thread.number, sites_.number(copy.where), true, false};
  const Conflict conflict = note(*shared_, access, clock_, false);
  if (conflict.found) mp.fail(describe_race(*shared_, access, conflict));
}

void Watch::matrix_loaded(Multiprocessor&, const void* row, const void* where) {
  access(row, 16, false, false, where);
}

std::vector<Counts> Watch::counted() {
  const std::lock_guard lock(mutex_);
  return counted_;
}

void Watch::clear_counts() {
  const std::lock_guard lock(mutex_);
  counted_.clear();
}

// ---- What happens to device memory ----

void Watch::allocated(void* block, std::size_t bytes) {
  const std::size_t at = offset(global_, block);
  check(at + bytes <= global_.bytes, "the checked software GPU has {} GB of memory", kWatched >> 30);
  global_.addressable.set(at, bytes, true);
  global_.initialised.set(at, bytes, false);
  const std::lock_guard lock(mutex_);
  blocks_[at] = {bytes, true};
}

void Watch::freed(void* block, std::size_t bytes) {
  global_.addressable.set(offset(global_, block), bytes, false);
  const std::lock_guard lock(mutex_);
  blocks_[offset(global_, block)].live = false;
}

void Watch::written(void* to, std::size_t bytes) {
  global_.initialised.set(offset(global_, to), bytes, true);
}

void Watch::copied(void* to, const void* from, std::size_t bytes) {
  global_.initialised.copy(offset(global_, to), offset(global_, from), bytes);
}

// ---- How it hears ----

void start_watching() {
  if (watch != nullptr) return;
  watch = new Watch;  // until the program ends
  checker = watch;
  device_backend::watcher = watch;
  device_backend::lock_emulated_memory();
  catch_crashes();
}

void saw_access(const void* address, std::size_t bytes, bool write, bool atomic, const void* where) {
  watch->access(address, bytes, write, atomic, where);
}

void saw_atomic() {
  ++watch->tally().counts.atomics;
  watch->block_uses_atomics();
}

}  // namespace llm::simt
