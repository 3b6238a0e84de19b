// A multiprocessor in software: runs the threads of one block, each as a fiber, on one thread of the host.
//
// How the threads take turns. A thread runs until it must wait: at a barrier, or at a collective of its warp.
// Then the next thread goes on that can. The last to arrive at a collective does the work for all its lanes
// and makes them ready; the last to arrive at a barrier does so for the block. So nothing waits in a loop,
// and if nobody can go on although some are not done, that is a deadlock and can be said with all that is
// known about it.
//
// A thread gets a fiber only when it starts, and when it returns without having waited, the next thread
// starts in the same fiber: a kernel without barriers is a plain loop over its threads.
//
// Threads that have returned count as arrived everywhere, as on GPUs since Volta. Chapter 3 explains it.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "common/simt/emulator/cuda_types.h"
#include "common/simt/emulator/fiber.h"
#include "common/simt/emulator/machine.h"
#include "common/simt/launch.h"
#include "common/simt/report.h"

// What position.h shows to kernels.
extern constinit thread_local uint3 threadIdx;
extern constinit thread_local uint3 blockIdx;
extern constinit thread_local uint3 blockDim;
extern constinit thread_local uint3 gridDim;

namespace llm::simt {

extern constinit thread_local std::byte* dynamic_shared_memory;

inline constexpr unsigned kMaxThreads = 1024;             // of a block
inline constexpr std::size_t kStaticShared = 48 * 1024;   // bytes of static shared memory
inline constexpr std::size_t kSharedMemory = 227 * 1024;  // static and dynamic together (H100)
inline constexpr std::size_t kSharedGap = 256;            // between shared objects, so that overruns are seen

/// One asynchronous copy that has begun.
struct AsyncCopy {
  void* to;
  const void* from;
  std::uint32_t bytes, zeros;
  const void* where;  // the call
  int group;
};

struct Thread {
  enum class Waits : std::uint8_t { no, at_barrier, in_warp };

  unsigned number = 0;  // in its block, x fastest
  uint3 index{};
  Fiber* fiber = nullptr;  // from its start to its end
  bool done = false;
  Waits waits = Waits::no;
  const void* where = nullptr;  // the call that it waits in
  // Of the collective it waits in:
  const char* name = nullptr;
  std::uint32_t mask = 0;
  Lane* lane = nullptr;
  // Asynchronous copies:
  std::vector<AsyncCopy> copies;
  int open_group = 0;         // number of the group that copies go into now
  std::uint32_t atomics = 0;  // that it has done
  double alone_since = 0;     // it does atomic operations and nobody else can run; seconds, 0 for not so
};

struct Warp {
  /// Lanes that wait for each other.
  struct Group {
    Collective what;
    std::uint32_t mask, arrived;
  };
  std::uint32_t gone = 0;  // lanes that have returned, or that the block is too small to have
  std::vector<Group> groups;
};

/// A fault as it is found; the sentence is made later, on the host's stack (report.cpp).
struct RawFault {
  FaultKind kind = FaultKind::trap;
  const char* memory = nullptr;       // "shared memory", "global memory" or null
  int thread = -1;                    // its number
  std::string text;                   // "reads Tiles[+20]"
  const void* where = nullptr;        // the instruction; becomes " at exercises.cu:88"
  std::string other_text;             // ", written by thread 4"
  const void* other_where = nullptr;  // becomes " at exercises.cu:85"
  std::string end;                    // " with no barrier between"
};

struct SharedObject {
  const char* type_name;
  std::size_t offset, bytes;
};

class Multiprocessor {
 public:
  Multiprocessor();
  ~Multiprocessor();
  Multiprocessor(const Multiprocessor&) = delete;
  Multiprocessor& operator=(const Multiprocessor&) = delete;

  /// The one of this thread of the host.
  static Multiprocessor& of_this_thread();

  /// Runs block `block` of a grid. False if a thread failed: fault() says how.
  bool run_block(const Kernel& kernel, const LaunchConfig& config, dim3 block, std::uint64_t seed);
  const RawFault& fault() const { return fault_; }

  // What the running thread calls; `where` is the address after the call in the kernel.
  struct Arrived {
    int threads = 0, predicates = 0;
  };
  Arrived barrier(const void* where, int predicate);
  void join(Collective what, const char* name, std::uint32_t mask, Lane& lane, const void* where);
  void* shared_object(const char* type_name, std::size_t bytes, std::size_t alignment);
  void spin();
  /// Ends the launch.
  [[noreturn]] void fail(RawFault fault);

  Thread& thread() { return *running_; }
  Thread& thread(unsigned number) { return threads_[number]; }
  unsigned thread_count() const { return count_; }
  bool all_done() const { return done_ == count_; }
  Warp& warp(unsigned number) { return warps_[number]; }
  std::byte* shared_memory() { return shared_; }
  std::size_t dynamic_bytes() const { return dynamic_bytes_; }
  const std::vector<SharedObject>& shared_objects() const { return objects_; }
  const Fiber& running_fiber() const { return *running_->fiber; }

  /// For the signal handler: whether this thread of the host runs a kernel's thread now.
  bool runs_kernel() const { return running_ != nullptr; }

 private:
  static void fiber_entry(boost::context::detail::transfer_t transfer);
  void fiber_loop(Fiber& self);
  void run(Thread& thread);
  void end(Thread& thread);
  Thread* next();
  void make_ready(Thread& thread);
  void wake(Fiber& from, Thread& thread);
  void suspend(Thread& me);
  void switch_to(Thread& me, Thread& other);
  void release_barrier();
  bool complete(unsigned warp_number, std::size_t group);
  [[noreturn]] void stuck();
  void prepare(const Kernel& kernel, const LaunchConfig& config, dim3 block, std::uint64_t seed);

  const Kernel* kernel_ = nullptr;
  unsigned count_ = 0;  // threads of the block
  unsigned done_ = 0;
  unsigned at_barrier_ = 0;
  int predicates_ = 0;      // true ones among those at the barrier
  Arrived last_barrier_;    // how the one before went
  unsigned unstarted_ = 0;  // number of the first thread not started (when in order)
  std::vector<Thread> threads_;
  std::array<Warp, kMaxThreads / kWarp> warps_;
  Thread* running_ = nullptr;

  std::array<Thread*, kMaxThreads>
      ready_{};  // a ring when in order, a heap of cards to draw from when shuffled
  unsigned ready_begin_ = 0, ready_count_ = 0;
  bool shuffled_ = false;
  std::uint64_t random_ = 0;

  std::deque<Fiber> fibers_;
  std::vector<Fiber*> idle_;
  Fiber host_;           // the host's own stack
  Fiber* now_ = &host_;  // who runs

  std::byte* shared_ = nullptr;
  std::size_t dynamic_bytes_ = 0;
  std::size_t static_begin_ = 0, shared_used_ = 0;
  std::vector<SharedObject> objects_;

  bool failed_ = false;
  RawFault fault_;
};

/// Watches the checked build's kernels (checker.h); null in the plain build.
class Checker;
extern Checker* checker;

/// Completes the copies of the running thread's groups before `group`. (async_copy.cpp)
void finish_copies(Thread& thread, int group);

}  // namespace llm::simt
