// What the software GPU tells about launches: faults, counts, and how threads take turns.
//
// Every build stops a launch that goes wrong with an llm::Error. The *checked* build of a kernel
// (llm_device_sources in cmake/targets.cmake) sees each load and store as well: it reports races,
// uninitialised reads, accesses out of bounds and more with the source line, and counts what a launch moved.
// Under nvcc nothing of this exists; compute-sanitizer and Nsight Compute do it there. Chapter 3 explains it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace llm::simt {

enum class FaultKind {
  race,               // two threads, one place, at least one writes, and nothing orders them
  divergent_barrier,  // threads of a block meet at different barriers
  missing_lane,       // a lane is named in a mask and does not come, or is not named and does
  out_of_bounds,      // an access outside of every block of memory
  uninitialised,      // a read of what nobody wrote
  early_read,         // an asynchronous copy's data used before its wait
  deadlock,           // threads wait for what cannot come
  trap,               // __trap(), or an exception
};

struct Fault {
  FaultKind kind = FaultKind::trap;
  std::string sentence;  // what the Error says
  std::string kernel;
  std::string block, thread;  // "2", or "(2, 0)", "(2, 0, 1)" where the grid or block has more dimensions
  std::string file;           // of the access or call; empty where it is not known (the kernel lacks -g)
  int line = 0;
};

/// The fault of the last launch that failed on any thread; for tests and `./book check`.
Fault last_fault();

/// What a launch did. A warp's n-th load at one place in the code is one warp access, whenever its lanes get
/// there. Only the checked build counts.
struct Counts {
  std::string kernel;
  unsigned grid[3] = {}, block[3] = {};
  std::int64_t global_load_bytes = 0, global_store_bytes = 0;      // asked for by all threads
  std::int64_t global_load_sectors = 0, global_store_sectors = 0;  // of 32 bytes, per warp access
  std::int64_t warp_loads = 0, warp_stores = 0;                    // warp accesses to global memory
  std::int64_t shared_loads = 0, shared_stores = 0;                // warp accesses to shared memory
  std::int64_t shared_turns = 0;                                   // that these took, of 128 bytes at most
  std::int64_t bank_conflicts = 0;                                 // turns beyond those that they needed
  std::int64_t atomics = 0;                                        // by threads
  std::int64_t barriers = 0;                                       // by blocks
  std::int64_t mma_operations = 0;                                 // by warps, each 16 x 8 x 16
  std::int64_t async_copies = 0;                                   // by threads
};

/// The launches since the last clear_counts(), oldest first; empty in the plain build.
std::vector<Counts> counted_launches();
void clear_counts();

/// Whether kernels of this program are watched: true in a checked build.
bool checked();

/// Lets the threads of a block, and the blocks of a grid, run in another order for each seed; 0 means in
/// order. A correct kernel gives the same bits under every seed.
void set_schedule_seed(std::uint64_t seed);

/// Shared memory a block may have, static and dynamic together: 227 KB as on an H100 unless set (99 KB on
/// many others).
void set_shared_memory_limit(std::size_t bytes);

}  // namespace llm::simt
