// The checked build's checker: hears of every load and store (from tsan.cpp), judges them with the notes in
// shadow.h, counts them with tally.h, and ends the launch with a sentence where something is wrong
// (watch_report.cpp).
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/core/device_backend.h"
#include "common/simt/emulator/checker.h"
#include "common/simt/emulator/shadow.h"
#include "common/simt/emulator/sites.h"
#include "common/simt/emulator/tally.h"

namespace llm::simt {

/// Starts watching, once, before main; from then on the host must not touch device memory.
void start_watching();

/// True on the thread of the host that runs a checked kernel.
extern constinit thread_local bool watching;

/// The running thread loads or stores; `where` is the address after the call that says so.
void saw_access(const void* address, std::size_t bytes, bool write, bool atomic, const void* where);
/// An atomic operation took effect.
void saw_atomic();

class Watch final : public Checker, public device_backend::Watcher {
 public:
  Watch();

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

}  // namespace llm::simt
