// Launching a kernel: `launch(kernel, {grid, block, shared_bytes}, arguments...)`.
//
// With nvcc this is CUDA's kernel<<<grid, block, shared_bytes, stream>>>(arguments...); with g++ the software
// GPU runs the same function. Either way a launch that cannot be is an Error with one sentence. Chapter 3
// explains it.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "common/core/device_memory.h"

#ifdef LLM_CUDA
#include <cuda_runtime_api.h>
#else
#include "common/simt/emulator/cuda_types.h"
#endif

namespace llm {

struct LaunchConfig {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;  // dynamic shared memory of each block
};

namespace simt {

/// Error unless the device can run `kernel` so; allows it its shared memory beyond 48 KB. (CUDA)
void prepare_launch(const void* kernel, const LaunchConfig& config);
/// Error if the launch just made failed. (CUDA)
void check_launch(const void* kernel, const LaunchConfig& config);

/// A kernel with its arguments. (software GPU)
struct Kernel {
  const void* function;
  void (*call)(const void* arguments);
  const void* arguments;
  std::size_t argument_bytes;
};
/// Runs it; returns when it is done. Error if it cannot be run, or if a thread of it failed. (software GPU)
void run_grid(const Kernel& kernel, const LaunchConfig& config);

}  // namespace simt

/// Runs `kernel` on device_stream(). Arguments are converted to the kernel's parameters.
template <typename... P, typename... A>
void launch(void (*kernel)(P...), LaunchConfig config, A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "the kernel takes another number of arguments");
#ifdef __CUDACC__
  simt::prepare_launch(reinterpret_cast<const void*>(kernel), config);
  kernel<<<config.grid, config.block, config.shared_bytes, device_stream()>>>(std::forward<A>(arguments)...);
  simt::check_launch(reinterpret_cast<const void*>(kernel), config);
#else
  using Packed = std::tuple<void (*)(P...), std::remove_cv_t<P>...>;
  const Packed packed(kernel, static_cast<std::remove_cv_t<P>>(std::forward<A>(arguments))...);
  const auto call = [](const void* all) {
    std::apply([](auto function, const auto&... each) { function(each...); },
               *static_cast<const Packed*>(all));
  };
  simt::run_grid({reinterpret_cast<const void*>(kernel), call, &packed, sizeof packed}, config);
#endif
}

}  // namespace llm
