// The parts of a launch under CUDA that need no kernel language: limits and errors as sentences.
#include <cuda_runtime_api.h>

#include "common/core/error.h"
#include "common/simt/launch.h"
#include "common/simt/report.h"

namespace llm::simt {

namespace {

std::string kernel_name(const void* kernel) {
  const char* name = nullptr;
  return cudaFuncGetName(&name, kernel) == cudaSuccess ? name : "?";
}

}  // namespace

void prepare_launch(const void* kernel, const LaunchConfig& config) {
  constexpr std::size_t kWithoutAsking = 48 * 1024;
  if (config.shared_bytes <= kWithoutAsking) return;
  const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                  static_cast<int>(config.shared_bytes));
  if (status == cudaSuccess) return;
  cudaGetLastError();  // forget it
  int device = 0, most = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  fail("kernel '{}' cannot be launched: it asks for {} bytes of shared memory; a block has at most {}",
       kernel_name(kernel), config.shared_bytes, most);
}

void check_launch(const void* kernel, const LaunchConfig& config) {
  const cudaError_t status = cudaGetLastError();
  check(
      status == cudaSuccess,
      "kernel '{}' cannot be launched: {} (grid ({}, {}, {}), block ({}, {}, {}), {} bytes of shared memory)",
      kernel_name(kernel), cudaGetErrorString(status), config.grid.x, config.grid.y, config.grid.z,
      config.block.x, config.block.y, config.block.z, config.shared_bytes);
}

// What only the software GPU has (report.h).

Fault last_fault() {
  return {};
}

std::vector<Counts> counted_launches() {
  return {};
}

void clear_counts() {}

bool checked() {
  return false;
}

void set_schedule_seed(std::uint64_t /*seed*/) {}

void set_shared_memory_limit(std::size_t /*bytes*/) {}

}  // namespace llm::simt
