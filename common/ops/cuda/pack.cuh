// Reading and writing 16 bytes at once, whatever the element type; arithmetic is always in f32. Chapter 3.
//
// A GPU moves memory in sectors of 32 bytes. A warp whose lanes read 16 neighbouring bytes each asks for 16
// whole sectors with one instruction, and a thread that has 16 bytes under way instead of 4 needs a quarter
// of the threads to keep the memory busy.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/core/tensor.h"
#include "common/simt/kernel.h"

namespace llm::cuda {

/// Elements in 16 bytes: 4 floats or 8 bf16.
template <typename T>
inline constexpr int kPack = 16 / static_cast<int>(sizeof(T));

__device__ __forceinline__ float to_float(float value) {
  return value;
}
__device__ __forceinline__ float to_float(__nv_bfloat16 value) {
  return __bfloat162float(value);
}
template <typename T>
__device__ __forceinline__ T from_float(float value) {
  if constexpr (std::is_same_v<T, float>)
    return value;
  else
    return __float2bfloat16(value);
}

/// A bf16 is the upper half of a float, so two of them unpack by a shift and a mask.
__device__ __forceinline__ void unpack(float& low, float& high, std::uint32_t word) {
  low = __uint_as_float(word << 16);
  high = __uint_as_float(word & 0xffff0000u);
}
__device__ __forceinline__ std::uint32_t packed(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  std::uint32_t word;
  __builtin_memcpy(&word, &pair, sizeof word);
  return word;
}

/// v = N elements from `from`, which is aligned to their size (at most 16 bytes).
template <int N>
__device__ __forceinline__ void load(float (&v)[N], const float* from) {
  if constexpr (N == 1) {
    v[0] = *from;
  } else {
    static_assert(N % 4 == 0);
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
    }
  }
}
template <int N>
__device__ __forceinline__ void load(float (&v)[N], const __nv_bfloat16* from) {
  if constexpr (N == 1) {
    v[0] = to_float(*from);
  } else if constexpr (N == 4) {
    const uint2 words = *reinterpret_cast<const uint2*>(from);
    unpack(v[0], v[1], words.x), unpack(v[2], v[3], words.y);
  } else {
    static_assert(N == 8);
    const uint4 words = *reinterpret_cast<const uint4*>(from);
    unpack(v[0], v[1], words.x), unpack(v[2], v[3], words.y);
    unpack(v[4], v[5], words.z), unpack(v[6], v[7], words.w);
  }
}

template <int N>
__device__ __forceinline__ void store(float* to, const float (&v)[N]) {
  if constexpr (N == 1) {
    *to = v[0];
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4)
      *reinterpret_cast<float4*>(to + i) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
  }
}
template <int N>
__device__ __forceinline__ void store(__nv_bfloat16* to, const float (&v)[N]) {
  if constexpr (N == 1) {
    *to = __float2bfloat16(v[0]);
  } else if constexpr (N == 4) {
    *reinterpret_cast<uint2*>(to) = make_uint2(packed(v[0], v[1]), packed(v[2], v[3]));
  } else {
    static_assert(N == 8);
    *reinterpret_cast<uint4*>(to) =
        make_uint4(packed(v[0], v[1]), packed(v[2], v[3]), packed(v[4], v[5]), packed(v[6], v[7]));
  }
}

// ---- for the host ---------------------------------------------------------------------------------

/// Whether all addresses are multiples of 16 bytes (null is).
template <typename... P>
bool aligned(const P*... addresses) {
  return ((reinterpret_cast<std::uintptr_t>(addresses) % 16 == 0) && ...);
}

/// The elements of a tensor as the kernels see them; null if it is undefined.
template <typename T>
T* device_data(const Tensor& t) {
  return static_cast<T*>(t.raw());
}

/// Calls f.operator()<float>() or f.operator()<__nv_bfloat16>(), as the tensor's dtype says.
template <typename F>
void by_type(const Tensor& t, const F& f) {
  if (t.dtype() == DType::bf16)
    f.template operator()<__nv_bfloat16>();
  else
    f.template operator()<float>();
}

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}
inline unsigned blocks(std::int64_t count) {
  return static_cast<unsigned>(count);
}

}  // namespace llm::cuda
