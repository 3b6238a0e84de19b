// What the benchmarks on a GPU share (chNN/bench_cuda.cpp).
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "common/core/device_memory.h"
#include "common/ops/measuring.h"

namespace llm::cuda {

#ifdef LLM_CUDA
constexpr bool kGpu = true;
#else
constexpr bool kGpu = false;
#endif

/// Whether there is anything to measure on: the software GPU counts, it is not fast.
inline bool bench_ready(benchmark::State& state) {
  if (!kGpu) state.SkipWithError("no GPU in this build; use the preset cuda");
  return kGpu;
}

/// Seconds per call: several calls, then one wait, so that neither launch nor wait counts.
template <typename Call>
double seconds_per_call(int calls, const Call& call) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  for (int i = 0; i < calls; ++i) call();
  device_synchronize();
  return std::chrono::duration<double>(Clock::now() - start).count() / calls;
}

/// Times `call` as the benchmark's iterations, after a few calls that do not count; returns the mean in
/// seconds. An iteration is a pause and then calls for some 30 ms, as in tools/gpu/peers/peers.py: without
/// pauses products took 15% longer on an H100, probably because it lowers its clocks at the power that it may
/// take.
template <typename Call>
double measure_calls(benchmark::State& state, const Call& call) {
  seconds_per_call(3, call);
  const int calls = static_cast<int>(std::clamp(0.03 / seconds_per_call(3, call), 3.0, 200.0));
  double total = 0;
  for (auto _ : state) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const double each = seconds_per_call(calls, call);
    state.SetIterationTime(each);
    total += each;
  }
  return total / static_cast<double>(state.iterations());
}

/// Seven iterations, timed by measure_calls.
inline void by_measured_calls(benchmark::internal::Benchmark* b) {
  b->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(7);
}

}  // namespace llm::cuda
