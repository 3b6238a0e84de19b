#include "common/core/memory_meter.h"

#include <utility>

namespace llm {

namespace {
thread_local std::shared_ptr<MemoryMeter> meter_of_thread;
}

MemoryScope::MemoryScope(std::shared_ptr<MemoryMeter> meter)
    : outer_(std::exchange(meter_of_thread, std::move(meter))) {}

MemoryScope::~MemoryScope() {
  meter_of_thread = std::move(outer_);
}

const std::shared_ptr<MemoryMeter>& current_memory_meter() {
  return meter_of_thread;
}

}  // namespace llm
