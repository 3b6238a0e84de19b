// What the attention kernels share: where a head lies within (B, T, 3C), and the dropout's mask. Chapter 3.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "common/core/philox.h"
#include "common/ops/attention_checks.h"
#include "common/ops/cuda/attention.h"
#include "common/simt/kernel.h"
#include "common/simt/warp.cuh"

namespace llm::cuda {

constexpr float kInfinity = HUGE_VALF;

/// Rows of one head: row t begins at data + t * stride, and its first D elements belong to the head.
template <typename T>
struct Rows {
  T* data;
  int stride;
  __device__ T* row(int t) const { return data + static_cast<std::int64_t>(t) * stride; }
};

/// All heads of one part of a tensor: q, k or v within (B, T, 3C), or the whole of (B, T, C). A head is
/// numbered b H + h.
template <typename T>
struct Heads {
  T* data;
  int heads, time, size;  // H, T, D
  int stride;             // from one position to the next
  __device__ Rows<T> operator[](int head) const {
    return {data + static_cast<std::int64_t>(head / heads) * time * stride + head % heads * size, stride};
  }
};

/// Part 0, 1 or 2 (queries, keys, values) of qkv (B, T, 3C).
template <typename T>
Heads<T> part(T* qkv, int number, const AttentionSize& s) {
  const auto channels = static_cast<int>(s.channels());
  return {qkv + number * channels, static_cast<int>(s.heads), static_cast<int>(s.time),
          static_cast<int>(s.head_size), 3 * channels};
}
/// y (B, T, C).
template <typename T>
Heads<T> output(T* y, const AttentionSize& s) {
  return {y, static_cast<int>(s.heads), static_cast<int>(s.time), static_cast<int>(s.head_size),
          static_cast<int>(s.channels())};
}

/// What scores are multiplied with: 1 / sqrt(D).
inline float score_scale(const AttentionSize& s) {
  return 1.0F / std::sqrt(static_cast<float>(s.head_size));
}

/// The dropout's mask on the weights: element ((b H + h) T + i) T + j draws that number of the stream, on any
/// device. A number is kept if its 24 bits reach the threshold, which is the CPU's `uniform >= p` exactly.
struct WeightDropout {
  std::uint32_t threshold;
  float scale;  // of what is kept: 1 / (1 - p)
  Philox rng;
  std::uint64_t first_index;
  int heads, other_heads;  // per sequence: here, and elsewhere (AttentionOptions::all_heads)

  explicit WeightDropout(const AttentionOptions& options)
      : threshold(static_cast<std::uint32_t>(std::ceil(options.dropout * 0x1p24F))),
        scale(1.0F / (1.0F - options.dropout)),
        rng(options.rng),
        first_index(options.first_index),
        heads(static_cast<int>(options.heads)),
        other_heads(options.all_heads == 0 ? 0 : static_cast<int>(options.all_heads - options.heads)) {}

  /// The number of weight (query, 0) of a head.
  __device__ std::uint64_t row_index(int head, int query, int time) const {
    const int number = head + head / heads * other_heads;
    return first_index + (static_cast<std::uint64_t>(number) * time + query) * time;
  }
  /// 0 or `scale`.
  __device__ float factor(std::uint64_t index) const { return factor(rng.block(index / 4), index % 4); }
  /// ... for two neighbours.
  __device__ float2 pair(std::uint64_t index) const {
    const auto words = rng.block(index / 4);  // makes four numbers
    const float first = factor(words, index % 4);
    return make_float2(first, index % 4 < 3 ? factor(words, index % 4 + 1) : factor(index + 1));
  }

 private:
  __device__ float factor(const std::array<std::uint32_t, 4>& words, std::uint64_t lane) const {
    // Chosen without an index, which would send the four words through memory.
    const std::uint32_t low = lane % 2 == 0 ? words[0] : words[1];
    const std::uint32_t high = lane % 2 == 0 ? words[2] : words[3];
    return ((lane < 2 ? low : high) >> 8) >= threshold ? scale : 0.0F;
  }
};

/// Four elements, aligned to their size, as floats.
__device__ __forceinline__ float4 load4(const float* from) {
  return *reinterpret_cast<const float4*>(from);
}
__device__ __forceinline__ float4 load4(const __nv_bfloat16* from) {
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(from);
  const float2 low = __bfloat1622float2(pairs[0]), high = __bfloat1622float2(pairs[1]);
  return make_float4(low.x, low.y, high.x, high.y);
}

inline unsigned blocks_for(std::int64_t count, std::int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

/// Kernels are compiled for some head sizes; others are filled up with zeros to the next of them.
/// Calls `call` with that size as a constant: for_padded_size<32, 64, 128>(80, [](auto size) { ... }).
template <int kSize, int... kLarger, typename Call>
void for_padded_size(std::int64_t head_size, const Call& call) {
  if constexpr (sizeof...(kLarger) > 0)
    if (head_size > kSize) return for_padded_size<kLarger...>(head_size, call);
  call(std::integral_constant<int, kSize>());
}

}  // namespace llm::cuda
