// Calls of the CUDA runtime whose failures become sentences.
#pragma once

#include <cuda_runtime_api.h>

#include "common/core/error.h"

namespace llm {

/// Error with one sentence unless a call of the CUDA runtime succeeded. The runtime keeps a failure for
/// whoever asks for the last error, which is the next launch; here it has been reported, so it is forgotten.
inline void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  fail("{} failed on the GPU: {} ({})", what, cudaGetErrorString(status), cudaGetErrorName(status));
}

/// Whether what stands before a recorded event is done (cudaSuccess), not yet (cudaErrorNotReady), or has
/// failed. "Not yet" is no failure, but the runtime keeps it like one: it is forgotten.
inline cudaError_t query_event(cudaEvent_t event) {
  const cudaError_t status = cudaEventQuery(event);
  if (status == cudaErrorNotReady) cudaGetLastError();
  return status;
}

}  // namespace llm
