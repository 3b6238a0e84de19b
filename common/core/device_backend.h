// What device_memory.cpp needs of the real GPU (device_memory_cuda.cpp) or of the software one
// (device_memory_emulated.cpp): one of the two files is compiled. For common/core only, but for the last
// part.
#pragma once

#include <cstddef>
#include <cstdint>

namespace llm::device_backend {

/// A new block, or null if there is no memory left.
void* allocate(std::size_t bytes);
void release(void* block, std::size_t bytes) noexcept;
/// Zeroed memory that kernels and the host may both touch (the host of a software GPU while it holds an
/// Unlocked); never given back.
void* allocate_shared_with_host(std::size_t bytes);
/// " (3.1 of 80.0 GB are free)", or nothing: ends the sentence about missing memory.
const char* memory_left();

/// The software GPU tells its checker (common/simt/emulator) what happens to device memory; without one all
/// of these are empty. On a GPU there is none: compute-sanitizer does that.
struct Watcher {
  virtual ~Watcher() = default;
  virtual void allocated(void* block, std::size_t bytes) = 0;
  virtual void freed(void* block, std::size_t bytes) = 0;
  virtual void written(void* to, std::size_t bytes) = 0;                   // by the host
  virtual void copied(void* to, const void* from, std::size_t bytes) = 0;  // device to device
};
inline Watcher* watcher = nullptr;

/// The block that holds `address`, and what was asked for; `begin` is null if there is none.
struct Block {
  std::byte* begin = nullptr;
  std::size_t bytes = 0;
};
Block block_of(const void* address);

#ifndef LLM_CUDA
/// The address range that all device memory of the software GPU lies in, and how much of it is in use.
struct Range {
  std::byte* begin = nullptr;
  std::size_t reserved = 0;
  std::size_t used = 0;
};
Range emulated_range();

/// While at least one of these lives the emulated memory can be touched. The checker keeps it locked
/// otherwise
/// (`lock_emulated_memory`), so that a host that touches it is stopped where it does.
struct Unlocked {
  Unlocked();
  ~Unlocked();
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;
};
void lock_emulated_memory();
#endif

}  // namespace llm::device_backend
