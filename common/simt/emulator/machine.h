// What a kernel that g++ compiled calls: the software GPU as seen from within a kernel.
//
// The names of CUDA (__shfl_sync, atomicAdd, ...) are thin inline functions over these (intrinsics.h). How
// the threads of a block take turns is explained in multiprocessor.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/simt/emulator/cuda_types.h"

void __syncthreads();
int __syncthreads_count(int predicate);
int __syncthreads_and(int predicate);
int __syncthreads_or(int predicate);

namespace llm::simt {

inline constexpr int kWarp = 32;

/// The block's static shared object of the type with this (mangled) name; the same one for all its threads.
void* shared_object(const char* type_name, std::size_t bytes, std::size_t alignment);

/// What one lane brings to a collective of its warp (a shuffle, a vote, a matrix product), and what it takes
/// away.
struct Lane {
  std::uint64_t value = 0;       // in: the lane's value; out: the result
  int source = 0;                // in: the lane to read from (shuffles)
  const void* memory = nullptr;  // in: an address (ldmatrix)
  void* registers[3] = {};       // in and out: the lane's registers (ldmatrix, mma)
};

/// Does the work of a collective for all lanes of `mask` at once; `lanes[i]` is null for lanes outside of it.
/// It runs when the last lane has arrived, so that nobody reads what another has not written yet.
using Collective = void (*)(Lane* const* lanes, std::uint32_t mask);

/// The running thread joins the collective `what` of the lanes in `mask` and returns when all of them have.
/// `name` is what reports call it.
void join(Collective what, const char* name, std::uint32_t mask, Lane& lane);

/// The collectives behind the intrinsics, in collectives.cpp.
void exchange(Lane* const* lanes, std::uint32_t mask);  // shuffles: the value of the lane `source`
void wait_only(Lane* const* lanes, std::uint32_t mask);
void ballot(Lane* const* lanes, std::uint32_t mask);
void sum(Lane* const* lanes, std::uint32_t mask);
void minimum(Lane* const* lanes, std::uint32_t mask);
void maximum(Lane* const* lanes, std::uint32_t mask);
void bitwise_and(Lane* const* lanes, std::uint32_t mask);
void bitwise_or(Lane* const* lanes, std::uint32_t mask);
void bitwise_xor(Lane* const* lanes, std::uint32_t mask);

/// Tensor cores (mma.cuh), in tensor_core.cpp.
void load_matrices(std::uint32_t* registers, const void* row, int count, bool transposed);
void multiply_tile(float* d, const std::uint32_t* a, const std::uint32_t* b);

/// The running thread's lane, 0 to 31.
int lane_index();
/// The lanes of the running thread's warp that have not returned yet.
std::uint32_t active_mask();

/// Asynchronous copies (cuda_pipeline.h): begun, closed into a group, and done when waited for.
void begin_copy(void* to, const void* from, std::size_t bytes, std::size_t zeros);
void close_copies();
void wait_copies(int open_groups);

/// Called with every atomic operation: a thread that spins on one lets others run now and then.
void on_atomic();

/// Ends the launch: __trap().
[[noreturn]] void trap();

}  // namespace llm::simt
