// What the multiprocessor tells whoever watches the kernels: the checked build's checker (watch.h).
#pragma once

#include "common/simt/emulator/multiprocessor.h"

namespace llm::simt {

class Checker {
 public:
  virtual ~Checker() = default;

  virtual void launch_begins(const Kernel& kernel, const LaunchConfig& config) = 0;
  virtual void launch_ends() = 0;
  virtual void block_begins(Multiprocessor& mp, std::uint64_t block) = 0;
  virtual void block_ends(Multiprocessor& mp) = 0;
  virtual void thread_ended(Multiprocessor& mp, const Thread& thread) = 0;
  virtual void shared_object_made(const SharedObject& object) = 0;
  /// All threads that have not returned are at a barrier, and go on after this.
  virtual void barrier_passed(Multiprocessor& mp) = 0;
  /// The lanes `mask` of a warp have met at __syncwarp.
  virtual void warp_synchronised(unsigned warp, std::uint32_t mask) = 0;
  virtual void copy_begun(Multiprocessor& mp, const AsyncCopy& copy) = 0;
  virtual void copy_done(Multiprocessor& mp, const Thread& thread, const AsyncCopy& copy) = 0;
  virtual void matrix_loaded(Multiprocessor& mp, const void* row, const void* where) = 0;
  virtual void tile_multiplied() = 0;

  /// The launch ends with `fault`; the checker may know what led to it.
  virtual void reconsider(Multiprocessor& mp, RawFault& fault) = 0;

  virtual std::vector<Counts> counted() = 0;
  virtual void clear_counts() = 0;
};

}  // namespace llm::simt
