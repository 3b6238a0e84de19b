// Sums and maxima over a warp and over a block, in a fixed order, so that they give the same bits every time.
//
// In a warp the lanes exchange values in a butterfly: after the exchange with the lane 16 away, then 8, 4, 2
// and 1, every lane holds the result (5 steps instead of 31; Harris, "Optimizing parallel reduction in CUDA",
// with the warp shuffles that came after it). A block sums its warps' results the same way. Chapter 3
// explains it.
#pragma once

#include "common/simt/kernel.h"

namespace llm {

/// The sum of the warp's 32 values, in every lane. All lanes must call it.
__device__ __forceinline__ float warp_sum(float value) {
  for (int away = 16; away > 0; away /= 2) value += __shfl_xor_sync(0xffffffffu, value, away);
  return value;
}

/// The largest of the warp's 32 values, in every lane.
__device__ __forceinline__ float warp_max(float value) {
  for (int away = 16; away > 0; away /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, away));
  return value;
}

/// Room for the results of a block's warps.
template <int Threads>
struct WarpResults {
  float of_warp[Threads / 32];
};

/// The sum of the values of the block's `Threads` threads (a multiple of 32, one-dimensional), in every
/// thread. All threads must call it. It can be called again at once.
template <int Threads>
__device__ __forceinline__ float block_sum(float value) {
  static_assert(Threads % 32 == 0 && Threads <= 1024);
  value = warp_sum(value);
  if constexpr (Threads > 32) {
    auto& results = block_shared<WarpResults<Threads>>();
    if (threadIdx.x % 32 == 0) results.of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    const int lane = static_cast<int>(threadIdx.x % 32);
    value = warp_sum(lane < Threads / 32 ? results.of_warp[lane] : 0.0F);
    __syncthreads();  // before the next call writes
  }
  return value;
}

/// The largest of the values of the block's threads, likewise.
template <int Threads>
__device__ __forceinline__ float block_max(float value) {
  static_assert(Threads % 32 == 0 && Threads <= 1024);
  value = warp_max(value);
  if constexpr (Threads > 32) {
    auto& results = block_shared<WarpResults<Threads>>();
    if (threadIdx.x % 32 == 0) results.of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    const int lane = static_cast<int>(threadIdx.x % 32);
    value = warp_max(lane < Threads / 32 ? results.of_warp[lane] : results.of_warp[0]);
    __syncthreads();
  }
  return value;
}

}  // namespace llm
