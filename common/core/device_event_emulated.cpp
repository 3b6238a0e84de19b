// Events of the software GPU: times on the host's clock.
#include <chrono>
#include <optional>

#include "common/core/device_event.h"
#include "common/core/error.h"

namespace llm {

using Clock = std::chrono::steady_clock;

struct DeviceEvent::State {
  std::optional<Clock::time_point> time;
};

DeviceEvent::DeviceEvent() : state_(std::make_unique<State>()) {}
DeviceEvent::~DeviceEvent() = default;
DeviceEvent::DeviceEvent(DeviceEvent&&) noexcept = default;
DeviceEvent& DeviceEvent::operator=(DeviceEvent&&) noexcept = default;

void DeviceEvent::record() {
  state_->time = Clock::now();
}

bool DeviceEvent::reached() const {
  wait();
  return true;
}

void DeviceEvent::wait() const {
  check(state_->time.has_value(), "an event was asked for that has not been recorded");
}

double DeviceEvent::seconds_since(const DeviceEvent& earlier) const {
  wait();
  earlier.wait();
  return std::chrono::duration<double>(*state_->time - *earlier.state_->time).count();
}

}  // namespace llm
