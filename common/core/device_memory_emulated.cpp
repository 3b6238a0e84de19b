// Device memory of the software GPU: one large range of addresses, of which the part in use grows.
//
// That all of it lies in one range lets the checker keep notes about every byte at a fixed distance, lets a
// fault be told from an ordinary crash, and lets the whole be locked against the host with one system call.
#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <limits>
#include <mutex>
#include <string>

#include "common/core/device_backend.h"
#include "common/core/device_memory.h"
#include "common/core/device_report.h"
#include "common/core/error.h"
#include "common/core/threads.h"

namespace llm {

namespace device_backend {

namespace {

constexpr std::size_t kStep = std::size_t{16} << 20;  // the part in use grows by this much at least
constexpr std::size_t kGap = 256;  // between blocks, so that one cannot run into the next unseen

struct Arena {
  std::mutex mutex;
  std::byte* begin = nullptr;
  std::size_t reserved = 0;
  std::atomic<std::size_t> mapped = 0;  // bytes that can be touched when unlocked
  std::size_t top = 0;                  // bytes handed out
  bool locked = false;                  // whenever nobody holds an Unlocked
  int holders = 0;

  Arena() {
    for (std::size_t size = std::size_t{256} << 30; size >= (std::size_t{1} << 30); size /= 2) {
      void* memory = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) continue;
      begin = static_cast<std::byte*>(memory);
      reserved = size;
      break;
    }
    check(begin != nullptr, "the system gives no addresses for the memory of the software GPU");
  }
  void protect(int how) { mprotect(begin, mapped, how); }
};

/// Bytes that the system could still give us; all there are where it does not say.
std::size_t available_memory() {
  std::ifstream info("/proc/meminfo");
  std::string line;
  while (std::getline(info, line))
    if (line.starts_with("MemAvailable:")) return std::stoull(line.substr(13)) * 1024;
  return std::numeric_limits<std::size_t>::max();
}

Arena& arena() {
  static auto* instance = new Arena;  // outlives all tensors
  return *instance;
}

}  // namespace

void* allocate(std::size_t bytes) {
  auto& a = arena();
  const std::lock_guard lock(a.mutex);
  const std::size_t size = (bytes + kGap + 255) / 256 * 256;
  if (size > a.reserved - a.top) return nullptr;
  // The system promises more than it has, and kills whoever then takes it. A tenth is left to the others.
  if (size >= kStep && size > available_memory() / 10 * 9) return nullptr;
  if (a.top + size > a.mapped) {
    const std::size_t grown = std::min(a.reserved, (a.top + size + kStep - 1) / kStep * kStep);
    const int how = a.locked && a.holders == 0 ? PROT_NONE : PROT_READ | PROT_WRITE;
    // Mapped anew rather than mprotect: this also counts the memory as ours, so that a lack of it shows here.
    void* part =
        mmap(a.begin + a.mapped, grown - a.mapped, how, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (part == MAP_FAILED) return nullptr;
    a.mapped = grown;
  }
  std::byte* block = a.begin + a.top;
  a.top += size;
  return block;
}

// Addresses are not used twice, but the memory goes back to the system.
void release(void* block, std::size_t bytes) noexcept {
  constexpr std::uintptr_t kPage = 4096;
  const auto first = (reinterpret_cast<std::uintptr_t>(block) + kPage - 1) / kPage * kPage;
  const auto last = (reinterpret_cast<std::uintptr_t>(block) + bytes) / kPage * kPage;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

const char* memory_left() {
  static thread_local std::string text;
  text = fmt::format(" ({:.1f} GB are free)", static_cast<double>(available_memory()) * 1e-9);
  return text.c_str();
}

Range emulated_range() {
  auto& a = arena();
  return {a.begin, a.reserved, a.mapped};
}

void* allocate_shared_with_host(std::size_t bytes) {
  void* block = device_allocate(bytes);
  device_zero(block, bytes);
  return block;
}

Unlocked::Unlocked() {
  auto& a = arena();
  const std::lock_guard lock(a.mutex);
  if (a.holders++ == 0 && a.locked) a.protect(PROT_READ | PROT_WRITE);
}

Unlocked::~Unlocked() {
  auto& a = arena();
  const std::lock_guard lock(a.mutex);
  if (--a.holders == 0 && a.locked) a.protect(PROT_NONE);
}

void lock_emulated_memory() {
  auto& a = arena();
  const std::lock_guard lock(a.mutex);
  a.locked = true;
  if (a.holders == 0) a.protect(PROT_NONE);
}

namespace {

/// Error unless [address, address + bytes) lies in one live block.
void check_range(const void* address, std::size_t bytes, const char* what) {
  const Block block = block_of(address);
  const auto* begin = static_cast<const std::byte*>(address);
  check(block.begin != nullptr, "{}: address {} is not in device memory", what, address);
  check(begin + bytes <= block.begin + block.bytes, "{}: {} bytes at byte {} of a block of {} bytes", what,
        bytes, begin - block.begin, block.bytes);
}

}  // namespace

}  // namespace device_backend

using namespace device_backend;

void copy_to_device(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  check_range(to, bytes, "copy to the device");
  const Unlocked unlocked;
  std::memcpy(to, from, bytes);
  if (watcher != nullptr) watcher->written(to, bytes);
}

void copy_to_host(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  check_range(from, bytes, "copy to the host");
  {
    const Unlocked unlocked;
    std::memcpy(to, from, bytes);
  }
  raise_device_report();
}

void copy_on_device(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  check_range(to, bytes, "copy on the device");
  check_range(from, bytes, "copy on the device");
  const Unlocked unlocked;
  std::memmove(to, from, bytes);
  if (watcher != nullptr) watcher->copied(to, from, bytes);
}

void device_zero(void* to, std::size_t bytes) {
  if (bytes == 0) return;
  check_range(to, bytes, "zeroing on the device");
  const Unlocked unlocked;
  std::memset(to, 0, bytes);
  if (watcher != nullptr) watcher->written(to, bytes);
}

void device_synchronize() {
  raise_device_report();
}

DeviceStream device_stream() {
  return nullptr;
}

std::string describe_device() {
  return fmt::format("cuda: emulated in software on {} thread{} (no GPU in this build)", thread_count(),
                     thread_count() == 1 ? "" : "s");
}

}  // namespace llm
