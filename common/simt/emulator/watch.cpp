#include "common/simt/emulator/watch.h"

#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <unordered_map>

#include "common/core/device_backend.h"
#include "common/core/error.h"
#include "common/simt/emulator/checker.h"
#include "common/simt/emulator/crash.h"
#include "common/simt/emulator/shadow.h"
#include "common/simt/emulator/symbols.h"
#include "common/simt/emulator/tally.h"

namespace llm::simt {

constinit thread_local bool watching = false;

namespace {

constexpr std::size_t kWatched = std::size_t{16} << 30;  // of device memory
constexpr std::size_t kShared = 512 * 1024;              // a multiprocessor's, with gaps

/// Numbers for the instructions that touch memory.
class Sites {
 public:
  Site number(const void* where) {
    const auto key = reinterpret_cast<std::uintptr_t>(where);
    auto& slot = recent_[key / 2 % kRecent];
    if (slot.where == where) [[likely]]
      return slot.site;
    auto [it, fresh] = numbers_.try_emplace(where, static_cast<Site>(places_.size()));
    if (fresh) {
      check(places_.size() < 65535, "the kernels of this program have too many loads and stores to number");
      places_.push_back(where);
    }
    slot = {where, it->second};
    return it->second;
  }
  const void* where(Site site) const { return places_[site]; }

 private:
  static constexpr std::size_t kRecent = 4096;
  struct Recent {
    const void* where = nullptr;
    Site site = 0;
  };
  std::vector<Recent> recent_ = std::vector<Recent>(kRecent);
  std::unordered_map<const void*, Site> numbers_;
  std::vector<const void*> places_;
};

/// The program's own data, which kernels may read (constants) like memory of the device.
struct ProgramData {
  struct Part {
    std::uintptr_t begin, end;
  };
  std::vector<Part> parts;

  ProgramData() {
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* data) {
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const auto& part = info->dlpi_phdr[i];
            const std::uintptr_t begin = info->dlpi_addr + part.p_vaddr;
            if (part.p_type == PT_LOAD)
              static_cast<ProgramData*>(data)->parts.push_back({begin, begin + part.p_memsz});
          }
          return 0;
        },
        this);
  }
  bool contains(const void* address) const {
    const auto a = reinterpret_cast<std::uintptr_t>(address);
    return std::any_of(parts.begin(), parts.end(), [a](const Part& p) { return a >= p.begin && a < p.end; });
  }
};

class Watch final : public Checker, public device_backend::Watcher {
 public:
  Watch()
      : global_("global memory", device_backend::emulated_range().begin,
                std::min(kWatched, device_backend::emulated_range().reserved)) {}

  void access(const void* address, std::size_t bytes, bool write, bool atomic, const void* where);

  // Checker
  void launch_begins(const Kernel& kernel, const LaunchConfig& config) override;
  void launch_ends() override;
  void block_begins(Multiprocessor& mp, std::uint64_t block) override;
  void block_ends(Multiprocessor& mp) override;
  void thread_ended(Multiprocessor& mp, const Thread& thread) override;
  void shared_object_made(const SharedObject& object) override;
  void barrier_passed(Multiprocessor& mp) override;
  void warp_synchronised(unsigned warp, std::uint32_t mask) override;
  void copy_begun(Multiprocessor& mp, const AsyncCopy& copy) override;
  void copy_done(Multiprocessor& mp, const Thread& thread, const AsyncCopy& copy) override;
  void matrix_loaded(Multiprocessor& mp, const void* row, const void* where) override;
  void tile_multiplied() override { ++tally_.counts.mma_operations; }
  void reconsider(Multiprocessor& mp, RawFault& fault) override;
  std::vector<Counts> counted() override;
  void clear_counts() override;

  // Watcher
  void allocated(void* block, std::size_t bytes) override;
  void freed(void* block, std::size_t bytes) override;
  void written(void* to, std::size_t bytes) override;
  void copied(void* to, const void* from, std::size_t bytes) override;

  Tally& tally() { return tally_; }
  void block_uses_atomics() { between_blocks_ = false; }

 private:
  void in_region(Region& region, std::size_t offset, std::size_t bytes, bool write, bool atomic,
                 const void* where);
  void elsewhere(const void* address, bool write, const void* where);
  RawFault describe_race(const Region& region, const Access& access, const Conflict& conflict);
  void suspect(const Region& region, std::size_t offset, const void* where);
  void judge_suspect();
  [[noreturn]] void report_bounds(const Region& region, std::size_t offset, std::size_t bytes, bool write,
                                  const void* where);
  struct Named {
    std::string what;    // "Tiles[+20]"
    std::string remark;  // ", past its 16 bytes", or nothing
  };
  Named name(const Region& region, std::size_t offset);
  Named name_shared(std::size_t offset);
  Named name_global(std::size_t offset);
  std::size_t offset(const Region& region, const void* address) const {
    return static_cast<std::size_t>(static_cast<const std::byte*>(address) - region.begin);
  }

  Region global_;
  std::unique_ptr<Region> shared_;
  Clock clock_;
  Sites sites_;
  Tally tally_;
  ProgramData program_;
  Multiprocessor* mp_ = nullptr;
  const Kernel* kernel_ = nullptr;
  /// The first read in this block of what nobody has written. Until the next barrier it may turn out that
  /// another thread writes there: then it is a race.
  struct Suspect {
    const Region* region = nullptr;
    std::size_t offset = 0;
    unsigned thread = 0;
    const void* where = nullptr;
  };
  Suspect suspect_;
  bool between_blocks_ = true;  // the running block is held to order between blocks
  struct BlockStart {
    std::uint32_t time;
    std::uint64_t block;
  };
  std::vector<BlockStart> starts_;  // of the blocks of this launch
  LaunchConfig config_;

  std::mutex mutex_;  // over what follows
  struct Block {
    std::size_t bytes;
    bool live;
  };
  std::map<std::size_t, Block> blocks_;  // of device memory, by offset; freed ones too
  std::vector<Counts> counted_;
};

Watch* watch = nullptr;

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

/// Neither shared nor global memory: the thread's own stack, the kernel's arguments, constants; or memory of
/// the host.
void Watch::elsewhere(const void* address, bool write, const void* where) {
  const auto* a = static_cast<const std::byte*>(address);
  const Fiber& fiber = mp_->running_fiber();
  const auto* arguments = static_cast<const std::byte*>(kernel_->arguments);
  if (a >= arguments && a < arguments + kernel_->argument_bytes) return;
  if (program_.contains(address)) return;
  RawFault fault;
  fault.kind = FaultKind::out_of_bounds;
  fault.where = where;
  if (constexpr std::size_t kBelow = 1 << 20; a < fiber.stack && a >= fiber.stack - kBelow) {
    fault.text = "uses more stack than a thread has";
    mp_->fail(std::move(fault));
  }
  fault.text = fmt::format("{} address {}", write ? "writes" : "reads", address);
  fault.end = ", which is no memory of the device";
  mp_->fail(std::move(fault));
}

RawFault Watch::describe_race(const Region& region, const Access& access, const Conflict& conflict) {
  RawFault fault;
  fault.kind = FaultKind::race;
  fault.memory = region.name;
  fault.text = fmt::format("{} {}", access.write ? "writes" : "reads", name(region, conflict.offset).what);
  fault.where = sites_.where(access.site);
  fault.other_where = sites_.where(conflict.site);
  const char* did = conflict.wrote ? "written" : "read";
  if (conflict.other_block) {
    auto it = std::upper_bound(starts_.begin(), starts_.end(), conflict.time,
                               [](std::uint32_t time, const BlockStart& start) { return time < start.time; });
    fault.other_text =
        fmt::format(", {} by thread {} of block {}", did, spell_thread(conflict.thread, ::blockDim),
                    spell_thread(static_cast<unsigned>(std::prev(it)->block), ::gridDim));
    fault.end = " in the same launch, and nothing orders blocks";
    return fault;
  }
  fault.other_text = fmt::format(", {} by thread {}", did, spell_thread(conflict.thread, ::blockDim));
  fault.end = conflict.thread / kWarp == access.thread / kWarp ? " with no barrier or __syncwarp between"
                                                               : " with no barrier between";
  // The reader came first and found nothing: it should have come second, and is told so.
  if (access.write && !conflict.wrote && !region.initialised.all(conflict.offset, 1)) {
    fault.thread = static_cast<int>(conflict.thread);
    fault.text = fmt::format("reads {}", name(region, conflict.offset).what);
    std::swap(fault.where, fault.other_where);
    fault.other_text = fmt::format(", written by thread {}", spell_thread(access.thread, ::blockDim));
  }
  return fault;
}

void Watch::report_bounds(const Region& region, std::size_t offset, std::size_t bytes, bool write,
                          const void* where) {
  const Named named = name(region, offset);
  RawFault fault;
  fault.kind = FaultKind::out_of_bounds;
  fault.memory = region.name;
  fault.text =
      fmt::format("{} {} byte{} at {}", write ? "writes" : "reads", bytes, bytes == 1 ? "" : "s", named.what);
  fault.where = where;
  fault.end = named.remark;
  mp_->fail(std::move(fault));
}

void Watch::suspect(const Region& region, std::size_t offset, const void* where) {
  if (suspect_.region == nullptr) suspect_ = {&region, offset, mp_->thread().number, where};
}

/// Nobody came to write what the suspect read.
void Watch::judge_suspect() {
  if (suspect_.region != nullptr) mp_->fail({});
}

void Watch::reconsider(Multiprocessor&, RawFault& fault) {
  // A race may be why nobody had written yet; everything else may come of reading rubbish.
  if (suspect_.region == nullptr || fault.kind == FaultKind::race) return;
  fault = {};
  fault.kind = FaultKind::uninitialised;
  fault.memory = suspect_.region->name;
  fault.thread = static_cast<int>(suspect_.thread);
  fault.text = fmt::format("reads {}", name(*suspect_.region, suspect_.offset).what);
  fault.where = suspect_.where;
  fault.end = ", which nobody has written";
  suspect_ = {};
}

Watch::Named Watch::name(const Region& region, std::size_t offset) {
  return &region == shared_.get() ? name_shared(offset) : name_global(offset);
}

/// "Tiles[+20]": byte 20 of the shared object of type Tiles.
Watch::Named Watch::name_shared(std::size_t offset) {
  const SharedObject* nearest = nullptr;
  for (const auto& object : mp_->shared_objects())
    if (object.offset <= offset) nearest = &object;
  const std::string what = nearest != nullptr ? type_name(nearest->type_name) : "dynamic shared memory";
  const std::size_t at = nearest != nullptr ? offset - nearest->offset : offset;
  const std::size_t bytes = nearest != nullptr ? nearest->bytes : mp_->dynamic_bytes();
  return {fmt::format("{}[+{}]", what, at), at < bytes ? "" : fmt::format(", past its {} bytes", bytes)};
}

/// "byte 20 of a block of 4096".
Watch::Named Watch::name_global(std::size_t offset) {
  const std::lock_guard lock(mutex_);
  const auto after = blocks_.upper_bound(offset);
  const bool has_before = after != blocks_.begin();
  const auto before = has_before ? std::prev(after) : after;
  if (after != blocks_.end() && after->second.live) {  // between two blocks: the nearer one
    const std::size_t end = has_before ? before->first + before->second.bytes : 0;
    if (offset >= end && after->first - offset < offset - end)
      return {fmt::format("byte -{} of a block of {}", after->first - offset, after->second.bytes), ""};
  }
  if (!has_before) return {"no block of device memory", ""};
  return {fmt::format("byte {} of a block of {}", offset - before->first, before->second.bytes),
          before->second.live ? "" : ", which was freed"};
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

}  // namespace

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
