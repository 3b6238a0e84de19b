// Events of a GPU.
#include "common/core/cuda_call.h"
#include "common/core/device_event.h"
#include "common/core/device_memory.h"
#include "common/core/error.h"

namespace llm {

struct DeviceEvent::State {
  cudaEvent_t event = nullptr;
  bool recorded = false;
  ~State() {
    if (event != nullptr) cudaEventDestroy(event);
  }
};

DeviceEvent::DeviceEvent() : state_(std::make_unique<State>()) {
  device_stream();  // says so if there is no device
  check_cuda(cudaEventCreate(&state_->event), "creating an event");
}
DeviceEvent::~DeviceEvent() = default;
DeviceEvent::DeviceEvent(DeviceEvent&&) noexcept = default;
DeviceEvent& DeviceEvent::operator=(DeviceEvent&&) noexcept = default;

void DeviceEvent::record() {
  check_cuda(cudaEventRecord(state_->event, device_stream()), "recording an event");
  state_->recorded = true;
}

bool DeviceEvent::reached() const {
  check(state_->recorded, "an event was asked for that has not been recorded");
  const cudaError_t status = query_event(state_->event);
  if (status == cudaErrorNotReady) return false;
  check_cuda(status, "the work before an event");
  return true;
}

void DeviceEvent::wait() const {
  check(state_->recorded, "an event was asked for that has not been recorded");
  check_cuda(cudaEventSynchronize(state_->event), "the work before an event");
}

double DeviceEvent::seconds_since(const DeviceEvent& earlier) const {
  wait();
  earlier.wait();
  float milliseconds = 0;
  check_cuda(cudaEventElapsedTime(&milliseconds, earlier.state_->event, state_->event),
             "comparing two events");
  return 1e-3 * static_cast<double>(milliseconds);
}

}  // namespace llm
