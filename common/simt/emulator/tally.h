// Counts what a launch moves, as a GPU's memory system sees it: by warp accesses.
//
// When a warp loads, the GPU takes the 32 addresses of its lanes together: it fetches each 32-byte sector
// they fall into once, and in shared memory, whose 32 banks deliver one 4-byte word each per turn, it takes
// as many turns as the busiest bank has different words. Here the lanes run one after the other, so the
// addresses are written down, and the n-th access of each lane at one instruction are put together at the
// next barrier or when the warp ends. (CUDA Best Practices Guide, "Coalesced access to global memory" and
// "Shared memory".) Chapter 3 explains it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/simt/emulator/shadow.h"
#include "common/simt/report.h"

namespace llm::simt {

class Tally {
 public:
  Counts counts;  // of the launch under way

  void add(unsigned thread, Site site, bool shared, bool write, std::size_t offset, std::size_t bytes) {
    if (!shared)
      (write ? counts.global_store_bytes : counts.global_load_bytes) += static_cast<std::int64_t>(bytes);
    Warp& warp = warps_[thread / 32];
    const std::size_t slot = site * std::size_t{2} + (shared ? 1 : 0);
    if (slot >= warp.logs.size()) warp.logs.resize(slot + 64);
    auto& log = warp.logs[slot];
    if (!log) log = std::make_unique<Log>();
    if (!log->used) {
      log->used = true;
      log->shared = shared;
      log->write = write;
      log->bytes = static_cast<std::uint32_t>(bytes);
      warp.used.push_back(log.get());
    }
    log->words[thread % 32].push_back(static_cast<std::uint32_t>(offset / 4));
  }
  /// All lanes of the warp have come to a barrier, or returned.
  void close(unsigned warp);
  /// Forgets what is open: the launch failed.
  void drop();

 private:
  struct Log {
    std::array<std::vector<std::uint32_t>, 32> words;  // by lane: the offsets it touched, in words
    std::uint32_t bytes = 0;                           // of an access
    bool used = false, shared = false, write = false;
    void clear();
  };
  struct Warp {
    std::vector<std::unique_ptr<Log>> logs;  // by site and kind of memory
    std::vector<Log*> used;
  };
  void count_global(const std::uint32_t* words, const std::uint8_t* lanes, int n, const Log& log);
  void count_shared(const std::uint32_t* words, const std::uint8_t* lanes, int n, const Log& log);

  std::array<Warp, 32> warps_;
};

}  // namespace llm::simt
