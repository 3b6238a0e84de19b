// A point on the device's stream: whether the work before it is done, and how long work between two of them
// took.
//
// On a GPU it is a CUDA event, so what is timed is the GPU's work alone. The software GPU has done its work
// when a launch returns, so there an event is reached as soon as it is recorded. Chapter 3 uses it.
#pragma once

#include <memory>

namespace llm {

class DeviceEvent {
 public:
  DeviceEvent();  // Error if there is no device
  ~DeviceEvent();
  DeviceEvent(DeviceEvent&&) noexcept;
  DeviceEvent& operator=(DeviceEvent&&) noexcept;

  /// Marks the end of all work on the stream so far; once more marks a later one instead.
  void record();
  /// Whether the work before it is done. Error if it was never recorded.
  bool reached() const;
  /// Returns when the work before it is done. Error if it was never recorded.
  void wait() const;
  /// Seconds between an earlier event and this one; waits for both.
  double seconds_since(const DeviceEvent& earlier) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace llm
