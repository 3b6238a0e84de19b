// A note that a kernel leaves for the host when it is given numbers it cannot work with, such as a token id
// outside the vocabulary. The host cannot look at such numbers beforehand without waiting for the device; so
// the kernel goes on (its result is NaN there), and copy_to_host() and device_synchronize(), which wait
// anyway, turn the note into an Error. Chapter 3 explains it.
#pragma once

namespace llm {

enum class DeviceComplaint { none, token_id, target };

struct DeviceReport {
  int complaint;     // a DeviceComplaint; the kernel that changes it from 0 fills in the rest
  int value, limit;  // the id met, and the size of the vocabulary
};

/// Where kernels leave their notes.
DeviceReport* device_report();

/// Throws what was noted since the last call, if anything. All work on the stream must be done.
void raise_device_report();

}  // namespace llm
