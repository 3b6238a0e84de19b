// How the tests of exercises with kernels run them: numbers go to the device and come back, what the software
// GPU reports becomes the failure, with a hint of the kind, and what it counted can be held against a limit.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "common/core/tensor.h"

namespace llm::exercises {

/// An array on the device.
Tensor on_device(std::span<const float> numbers);
/// `count` NaNs on the device: what a kernel forgets to write is seen.
Tensor rubbish_on_device(std::size_t count);
/// The numbers of an array on the device.
std::vector<float> from_device(const Tensor& array);

/// Whether the software GPU watches this program's kernels: it reports and counts.
bool kernels_watched();

/// What launches did, summed up. `known` is false where nothing counts: on a GPU, and in builds without the
/// checks.
struct Work {
  bool known = false;
  int launches = 0;
  std::int64_t loaded = 0, stored = 0;                  // bytes of global memory, asked for by all threads
  std::int64_t loaded_sectors = 0, stored_sectors = 0;  // of 32 bytes
  std::int64_t shared = 0;                              // warps' accesses to shared memory
  std::int64_t atomics = 0;
};

/// Runs `body`, which launches kernels, and adds what they did to `work`. What the device reports is a
/// failure of the test; then the result is false and the test should end.
bool kernels_run(const std::function<void()>& body, Work* work = nullptr);

/// A failure with `hint` if `got` is above `limit`: "bytes read from global memory: 2048, expected at most
/// 1024".
void expect_at_most(std::int64_t got, std::int64_t limit, std::string_view what, std::string_view hint);

}  // namespace llm::exercises
