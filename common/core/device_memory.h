// Memory of the device `cuda`: allocate, free, copy, wait.
//
// In a build with the CUDA Toolkit this is the GPU's memory (device_memory_cuda.cpp); in every other build it
// is a range of host memory kept for the software GPU (device_memory_emulated.cpp), which the host must not
// touch either. Freed blocks are kept and handed out again by size, so that a training step, which asks for
// the same blocks every time, allocates nothing. Everything is ordered on one stream. Chapter 3 explains it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

struct CUstream_st;  // what a cudaStream_t points to

namespace llm {

using DeviceStream = CUstream_st*;

/// `bytes` of device memory, aligned to 256 bytes, holding anything; a block even for zero bytes. Error if
/// there is no device or not enough memory.
void* device_allocate(std::size_t bytes);
/// Gives a block back; later work on the stream may reuse it. Null is nothing.
void device_free(void* block) noexcept;

/// Each is ordered after all earlier work on the stream. `copy_to_host` returns when the bytes are there;
/// `copy_to_device` when `from` may change again. Error if a kernel has left a note (device_report.h).
void copy_to_device(void* to, const void* from, std::size_t bytes);
void copy_to_host(void* to, const void* from, std::size_t bytes);
void copy_on_device(void* to, const void* from, std::size_t bytes);
void device_zero(void* to, std::size_t bytes);

/// Waits for all work on the stream. Error if some of it failed, or has left a note.
void device_synchronize();
/// The stream that kernels run on (the software GPU has none: null).
DeviceStream device_stream();

/// "cuda: NVIDIA H100 80GB HBM3, 132 SMs, 80 GB" or
/// "cuda: emulated in software on 2 threads (no GPU in this build)".
std::string describe_device();

/// Blocks asked of the system so far; blocks that were handed out again do not count.
std::uint64_t device_allocations();
/// Gives all kept blocks back to the system.
void release_kept_device_memory();

}  // namespace llm
