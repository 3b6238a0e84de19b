// Where the running thread is, as a kernel sees it.
//
// These change only when the machine switches from one thread to another, so for a thread they are constants,
// and `const` lets the compiler keep them in registers (and, in the checked build, leave them unobserved).
// The machine, which sets them, sees them without `const` (multiprocessor.h).
#pragma once

#include <cstddef>

#include "common/simt/emulator/cuda_types.h"

extern constinit thread_local const uint3 threadIdx;
extern constinit thread_local const uint3 blockIdx;
extern constinit thread_local const uint3 blockDim;
extern constinit thread_local const uint3 gridDim;
inline constexpr int warpSize = 32;

namespace llm::simt {
/// The block's dynamic shared memory.
extern constinit thread_local std::byte* const dynamic_shared_memory;
}  // namespace llm::simt
