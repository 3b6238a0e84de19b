// Device memory on a GPU: thin over the CUDA runtime, whose error codes become sentences here.
#include <cstring>

#include "common/core/cuda_call.h"
#include "common/core/device_backend.h"
#include "common/core/device_memory.h"
#include "common/core/device_report.h"
#include "common/core/error.h"

namespace llm {

namespace {

/// Error with one sentence unless there is a GPU; asked once.
void need_device() {
  static const cudaError_t status = [] {
    int count = 0;
    const cudaError_t answer = cudaGetDeviceCount(&count);
    return answer == cudaSuccess && count == 0 ? cudaErrorNoDevice : answer;
  }();
  check(status == cudaSuccess,
        "there is no GPU to compute with: {}; use --device cpu, or a build without CUDA",
        cudaGetErrorString(status));
}

}  // namespace

namespace device_backend {

void* allocate(std::size_t bytes) {
  need_device();
  void* block = nullptr;
  const cudaError_t status = cudaMalloc(&block, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // forget it: the caller tries again or says so
    return nullptr;
  }
  check_cuda(status, "allocating memory");
  return block;
}

void release(void* block, std::size_t /*bytes*/) noexcept {
  cudaFree(block);
}

// Pinned memory of the host, which kernels reach over the bus at the same address: looking at it costs the
// host nothing.
void* allocate_shared_with_host(std::size_t bytes) {
  need_device();
  void* block = nullptr;
  check_cuda(cudaHostAlloc(&block, bytes, cudaHostAllocMapped), "allocating memory shared with the host");
  std::memset(block, 0, bytes);
  return block;
}

const char* memory_left() {
  static thread_local std::string text;
  std::size_t left = 0, total = 0;
  if (cudaMemGetInfo(&left, &total) != cudaSuccess) return "";
  text = fmt::format(" ({:.1f} of {:.1f} GB are free)", static_cast<double>(left) * 1e-9,
                     static_cast<double>(total) * 1e-9);
  return text.c_str();
}

}  // namespace device_backend

DeviceStream device_stream() {
  static const DeviceStream stream = [] {
    need_device();
    cudaStream_t created = nullptr;
    check_cuda(cudaStreamCreateWithFlags(&created, cudaStreamNonBlocking), "creating a stream");
    return created;
  }();
  return stream;
}

void copy_to_device(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, device_stream()),
             "copying to the device");
}

void copy_to_host(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, device_stream()),
             "copying to the host");
  device_synchronize();
}

void copy_on_device(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, device_stream()),
             "copying on the device");
}

void device_zero(void* to, std::size_t bytes) {
  if (bytes == 0) return;
  check_cuda(cudaMemsetAsync(to, 0, bytes, device_stream()), "zeroing");
}

void device_synchronize() {
  check_cuda(cudaStreamSynchronize(device_stream()), "a kernel or copy");
  raise_device_report();
}

std::string describe_device() {
  need_device();
  int device = 0;
  check_cuda(cudaGetDevice(&device), "asking for the device");
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, device), "asking for the device's properties");
  return fmt::format("cuda: {}, {} SMs, {:.0f} GB", properties.name, properties.multiProcessorCount,
                     static_cast<double>(properties.totalGlobalMem) * 1e-9);
}

}  // namespace llm
