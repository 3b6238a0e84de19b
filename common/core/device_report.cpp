#include "common/core/device_report.h"

#include <atomic>

#include "common/core/device_backend.h"
#include "common/core/error.h"

namespace llm {

namespace {

// Made when the first kernel asks for it; never given back.
std::atomic<DeviceReport*> report = nullptr;

}  // namespace

DeviceReport* device_report() {
  static DeviceReport* const made = [] {
    report = static_cast<DeviceReport*>(device_backend::allocate_shared_with_host(sizeof(DeviceReport)));
    return report.load();
  }();
  return made;
}

void raise_device_report() {
  if (report == nullptr) return;
  DeviceReport found;
  {
#ifndef LLM_CUDA
    const device_backend::Unlocked unlocked;
#endif
    found = *report;
    if (found.complaint == 0) return;
    *report = {};
  }
  switch (static_cast<DeviceComplaint>(found.complaint)) {
    case DeviceComplaint::token_id:
      fail("token id {} is not within the vocabulary of {}", found.value, found.limit);
    case DeviceComplaint::target:
      fail("target {} is neither within the vocabulary of {} nor -1 (ignored)", found.value, found.limit);
    case DeviceComplaint::none:
      break;
  }
}

}  // namespace llm
