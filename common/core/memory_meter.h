// How much tensor memory a thread's work holds, now and at most: for showing that ZeRO's formulas hold.
//
// While a MemoryScope lives, every block that a tensor allocates on this thread counts on its meter, and is
// taken off when it is freed, on whatever thread. Chapter 6 uses it: a rank is a thread with a meter of its
// own.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace llm {

class MemoryMeter {
 public:
  std::int64_t current() const { return current_.load(); }
  std::int64_t peak() const { return peak_.load(); }
  /// From now on the peak is that of what comes.
  void reset_peak() { peak_.store(current_.load()); }
  void add(std::int64_t bytes) {
    const std::int64_t now = current_.fetch_add(bytes) + bytes;
    std::int64_t seen = peak_.load();
    while (now > seen && !peak_.compare_exchange_weak(seen, now)) {
    }
  }

 private:
  std::atomic<std::int64_t> current_{0}, peak_{0};
};

/// Counts this thread's allocations on `meter`; scopes nest.
class MemoryScope {
 public:
  explicit MemoryScope(std::shared_ptr<MemoryMeter> meter);
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;

 private:
  std::shared_ptr<MemoryMeter> outer_;
};

/// The meter that counts this thread's allocations; null if there is none.
const std::shared_ptr<MemoryMeter>& current_memory_meter();

}  // namespace llm
