// On a GPU: how long kernels take, and how far that is from the roofline (walk_rungs_counted.cpp: without a
// GPU).
#ifdef LLM_CUDA
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "ch03_attention/walk_rungs.h"
#include "common/cli/table.h"
#include "common/core/device_event.h"
#include "common/core/device_memory.h"
#include "common/core/error.h"
#include "common/core/tensor.h"

namespace llm::ch03 {
namespace {

void must(cudaError_t result, const char* what) {
  check(result == cudaSuccess, "{} failed: {}", what, cudaGetErrorString(result));
}

/// Seconds of one run: the median of five times ten runs, after one to warm up.
double seconds_of(const std::function<void()>& run) {
  constexpr int kRuns = 10;
  run();
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) {
    DeviceEvent begin, end;
    begin.record();
    for (int j = 0; j < kRuns; ++j) run();
    end.record();
    times.push_back(end.seconds_since(begin) / kRuns);
  }
  std::sort(times.begin(), times.end());
  return times[2];
}

int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  must(cudaGetDevice(&device), "cudaGetDevice");
  must(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

/// What this GPU can do at most.
struct Peak {
  double bytes_per_second;   // measured: a copy of 256 MB, read and written
  double f32, tensor_cores;  // operations per second, from multiprocessors and clock
};

Peak peak() {
  const Tensor from({std::int64_t{64} << 20}, DType::f32, Device::cuda),
      to(from.shape(), DType::f32, Device::cuda);
  const double bytes = 2.0 * static_cast<double>(from.bytes());
  const double copy = seconds_of([&] { copy_on_device(to.raw(), from.raw(), from.bytes()); });
  const double cycles = 1e3 * attribute(cudaDevAttrClockRate) * attribute(cudaDevAttrMultiProcessorCount);
  // Per multiprocessor and cycle: 128 f32 lanes; dense bf16 products on tensor cores, 1024 on an A100 (8.0),
  // 2048 on an H100 (9.0), 4096 on a B200 (10.0), 512 on the others. Each is a multiplication and an
  // addition.
  const int major = attribute(cudaDevAttrComputeCapabilityMajor),
            minor = attribute(cudaDevAttrComputeCapabilityMinor);
  const double lanes = major == 8 && minor == 0 ? 64 : 128;
  const double products = major >= 10 && minor == 0  ? 4096
                          : major == 9               ? 2048
                          : major == 8 && minor == 0 ? 1024
                                                     : 512;
  return {bytes / copy, 2 * lanes * cycles, 2 * products * cycles};
}

}  // namespace

bool measured() {
  return true;
}

void show_rungs(const std::vector<Rung>& rungs, MetricsWriter& metrics) {
  static const Peak kPeak = peak();
  Table table({"kernel", "ms", "GB/s", "GFLOP/s", "roofline ms", "factor"});
  for (const Rung& rung : rungs) {
    const double seconds = seconds_of(rung.run);
    const double ideal =
        std::max(rung.cost.bytes / kPeak.bytes_per_second,
                 rung.cost.operations / (rung.tensor_cores ? kPeak.tensor_cores : kPeak.f32));
    table.add({rung.name, fmt::format("{:.3f}", 1e3 * seconds),
               fmt::format("{:.0f}", 1e-9 * rung.cost.bytes / seconds),
               fmt::format("{:.0f}", 1e-9 * rung.cost.operations / seconds),
               fmt::format("{:.3f}", 1e3 * ideal), fmt::format("{:.1f}", seconds / ideal)});
    metrics.write({{"what", "kernel_time"},
                   {"kernel", rung.name},
                   {"device", describe_device()},
                   {"ms", 1e3 * seconds},
                   {"operations", rung.cost.operations},
                   {"bytes", rung.cost.bytes},
                   {"roofline_ms", 1e3 * ideal}});
  }
  table.print();
  fmt::print(
      "\nMeasured on this GPU. Roofline: what is needed once over the bandwidth of a plain copy ({:.0f} "
      "GB/s), or the\n"
      "operations over the peak ({:.1f} TFLOP/s in f32, {:.0f} on tensor cores), whichever takes longer.\n",
      1e-9 * kPeak.bytes_per_second, 1e-12 * kPeak.f32, 1e-12 * kPeak.tensor_cores);
}

// A GPU says nothing; compute-sanitizer does.
void show_report(const std::function<void()>& /*body*/) {
  fmt::print("  (the software GPU says it, in a build without CUDA)\n");
}

}  // namespace llm::ch03
#endif
