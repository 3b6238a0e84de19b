// Ids outside their range, as a kernel meets them. Chapter 3.
//
// The host would have to wait for the device to look at the ids of a batch, so nobody looks until they are
// used. A kernel that meets a token id outside the vocabulary writes NaN where its result would have been,
// leaves a note (core/device_report.h), and goes on; the next copy to the host, or device_synchronize(),
// turns the note into an Error.
#pragma once

#include "common/core/device_report.h"
#include "common/simt/kernel.h"

namespace llm::cuda {

/// Leaves a note unless there is one already.
__device__ __forceinline__ void leave_note(DeviceReport* report, DeviceComplaint complaint, int value,
                                           int limit) {
  if (atomicCAS(&report->complaint, 0, static_cast<int>(complaint)) != 0) return;
  report->value = value;
  report->limit = limit;
}

}  // namespace llm::cuda
