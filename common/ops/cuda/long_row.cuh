// Rows too long for registers (a vocabulary of 50257 logits): a block goes over them, 16 bytes per thread at
// a time, and reads them again for the next pass. Chapter 4.
//
// A row of an odd number of elements leaves the next one unaligned; so each row is visited in three parts:
// single elements up to the first multiple of 16 bytes, packs, single elements at the end.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <type_traits>

#include "common/ops/cuda/pack.cuh"
#include "common/simt/warp.cuh"

namespace llm::cuda {

/// Where a running maximum starts. Finite, so that the difference of two is never that of two infinities: a
/// row of -inf only ends with a sum of 0, and 0 / 0 makes it NaN as it should.
inline constexpr float kLeast = -3.402823466e38F;

/// f(index, values) for all elements of a row, shared by the Threads threads of the block; `values` is an
/// array of N or of 1 floats. Backwards, a pass begins with what the last one has left in the caches.
template <int N, int Threads, bool Backwards = false, typename T, typename F>
__device__ __forceinline__ void visit_row(const T* row, std::int64_t count, const F& f) {
  const int thread = threadIdx.x;
  const auto single = [&](std::int64_t at) {
    float v[1];
    load(v, row + at);
    f(at, v);
  };
  if constexpr (N == 1) {
    for (std::int64_t i = thread; i < count; i += Threads) single(i);
  } else {
    const auto misaligned = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(row) / sizeof(T) % N);
    const std::int64_t head = min(count, (N - misaligned) % N), packs = (count - head) / N;
    if (thread < head) single(thread);
#pragma unroll 4
    for (std::int64_t pack = thread; pack < packs; pack += Threads) {
      float v[N];
      const std::int64_t at = head + (Backwards ? packs - 1 - pack : pack) * N;
      load(v, row + at);
      f(at, v);
    }
    if (const std::int64_t at = head + packs * N + thread; at < count) single(at);
  }
}

/// sum over some elements of exp(x - most), `most` being the largest of them.
struct RunningSum {
  float most = kLeast, total = 0;
};
/// The sum over both; which of them comes first does not matter to a bit.
__device__ __forceinline__ RunningSum merged(RunningSum a, RunningSum b) {
  const RunningSum& more = a.most >= b.most ? a : b;
  const RunningSum& less = a.most >= b.most ? b : a;
  return {more.most, fmaf(less.total, __expf(less.most - more.most), more.total)};
}
__device__ __forceinline__ RunningSum warp_merged(RunningSum a) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2)
    a = merged(a, {__shfl_xor_sync(0xffffffffu, a.most, step), __shfl_xor_sync(0xffffffffu, a.total, step)});
  return a;
}

/// One RunningSum per warp.
struct WarpRunningSums {
  float most[32], total[32];
};

/// The softmax's maximum and sum of a row in one pass ("online": Milakov and Gimelshein 2018): when a larger
/// maximum turns up, the sum so far is scaled to it. NaN is passed over by the maximum and makes the sum NaN.
template <int N, int Threads, typename T>
__device__ __forceinline__ RunningSum long_row_sum(const T* row, std::int64_t count) {
  RunningSum mine;
  visit_row<N, Threads>(row, count, [&](std::int64_t, const auto& v) {
    float most = mine.most;
    for (const float value : v) most = fmaxf(most, value);
    float total = mine.total * __expf(mine.most - most);
    for (const float value : v) total += __expf(value - most);
    mine = {most, total};
  });
  mine = warp_merged(mine);
  auto& warps = block_shared<WarpRunningSums>();
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (lane == 0) warps.most[warp] = mine.most, warps.total[warp] = mine.total;
  __syncthreads();
  return warp_merged(lane < Threads / 32 ? RunningSum{warps.most[lane], warps.total[lane]} : RunningSum{});
}

// ---- for the host ---------------------------------------------------------------------------------

/// Whether the addresses are equally far from a multiple of 16 bytes, so that visit_row's packs suit all of
/// them.
template <typename... P>
bool aligned_alike(const P*... addresses) {
  const std::uintptr_t all[] = {reinterpret_cast<std::uintptr_t>(addresses) % 16 ...};
  return std::all_of(std::begin(all), std::end(all), [&](std::uintptr_t a) { return a == all[0]; });
}

}  // namespace llm::cuda
