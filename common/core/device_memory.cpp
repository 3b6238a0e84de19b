#include "common/core/device_memory.h"

#include <bit>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "common/core/device_backend.h"
#include "common/core/error.h"

namespace llm {

namespace {

using device_backend::watcher;

struct Kept {
  std::mutex mutex;
  struct Live {
    std::size_t bytes, size;  // asked for, and the block's real size
  };
  std::map<const std::byte*, Live> live;  // by address, so that a block can be found from within
  std::unordered_map<std::size_t, std::vector<void*>> free;  // by real size
  std::uint64_t allocations = 0;
};

Kept& kept() {
  static auto* instance = new Kept;  // never destroyed: tensors in static storage may be freed after it
  return *instance;
}

/// Sizes are rounded up to an eighth of their power of two, so that similar sizes share blocks and at most an
/// eighth is wasted.
std::size_t real_size(std::size_t bytes) {
  constexpr std::size_t kSmallest = 512;
  if (bytes <= kSmallest) return kSmallest;
  const std::size_t step = std::max<std::size_t>(kSmallest, std::bit_floor(bytes) / 8);
  return (bytes + step - 1) / step * step;
}

void release_all(Kept& k) {
  for (auto& [size, blocks] : k.free) {
    for (void* block : blocks) device_backend::release(block, size);
    blocks.clear();
  }
}

}  // namespace

void* device_allocate(std::size_t bytes) {
  const std::size_t size = real_size(bytes);
  auto& k = kept();
  const std::lock_guard lock(k.mutex);
  void* block = nullptr;
  if (auto& blocks = k.free[size]; !blocks.empty()) {
    block = blocks.back();
    blocks.pop_back();
  } else {
    block = device_backend::allocate(size);
    if (block == nullptr) {  // what is kept for other sizes may make room
      release_all(k);
      block = device_backend::allocate(size);
    }
    check(block != nullptr, "the device has no memory for {} more bytes{}", bytes,
          device_backend::memory_left());
    ++k.allocations;
  }
  k.live[static_cast<std::byte*>(block)] = {bytes, size};
  if (watcher != nullptr) watcher->allocated(block, bytes);
  return block;
}

void device_free(void* block) noexcept {
  if (block == nullptr) return;
  auto& k = kept();
  const std::lock_guard lock(k.mutex);
  const auto it = k.live.find(static_cast<std::byte*>(block));
  if (it == k.live.end()) return;
  if (watcher != nullptr) watcher->freed(block, it->second.bytes);
  k.free[it->second.size].push_back(block);
  k.live.erase(it);
}

std::uint64_t device_allocations() {
  auto& k = kept();
  const std::lock_guard lock(k.mutex);
  return k.allocations;
}

void release_kept_device_memory() {
  auto& k = kept();
  const std::lock_guard lock(k.mutex);
  device_synchronize();
  release_all(k);
}

device_backend::Block device_backend::block_of(const void* address) {
  auto& k = kept();
  const std::lock_guard lock(k.mutex);
  auto it = k.live.upper_bound(static_cast<const std::byte*>(address));
  if (it == k.live.begin()) return {};
  --it;
  if (static_cast<const std::byte*>(address) >= it->first + it->second.size) return {};
  return {const_cast<std::byte*>(it->first), it->second.bytes};
}

}  // namespace llm
