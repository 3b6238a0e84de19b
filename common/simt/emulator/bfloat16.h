// CUDA's __nv_bfloat16 for compilers that are not nvcc (cuda_bf16.h): a 16-bit float that is the upper half
// of a 32-bit one. Rounding is to nearest even, as the hardware's; the arithmetic is llm::BFloat16's.
//
// It is a type of its own because CUDA's converts by itself to and from float, and holds anything when it is
// not initialised, so that it can live in shared memory; BFloat16 does neither.
#pragma once

#include <cstdint>

#include "common/core/dtype.h"
#include "common/simt/emulator/cuda_types.h"

struct alignas(2) __nv_bfloat16 {
  std::uint16_t bits;

  __nv_bfloat16() = default;
  __nv_bfloat16(float value) : bits(llm::BFloat16(value).bits) {}            // NOLINT: implicit, as in CUDA
  __nv_bfloat16(double value) : __nv_bfloat16(static_cast<float>(value)) {}  // NOLINT
  __nv_bfloat16(int value) : __nv_bfloat16(static_cast<float>(value)) {}     // NOLINT
  __nv_bfloat16(llm::BFloat16 value) : bits(value.bits) {}                   // NOLINT
  operator float() const {                                                   // NOLINT
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;

  __nv_bfloat162() = default;
  __nv_bfloat162(__nv_bfloat16 x_, __nv_bfloat16 y_) : x(x_), y(y_) {}
};

inline __nv_bfloat16 __float2bfloat16(float value) {
  return value;
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  return value;
}
inline float __bfloat162float(__nv_bfloat16 value) {
  return value;
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {x, y};
}
inline __nv_bfloat162 __float22bfloat162_rn(float2 value) {
  return {value.x, value.y};
}
inline __nv_bfloat162 __float2bfloat162_rn(float value) {
  return {value, value};
}
inline float2 __bfloat1622float2(__nv_bfloat162 value) {
  return {value.x, value.y};
}
inline float __low2float(__nv_bfloat162 value) {
  return value.x;
}
inline float __high2float(__nv_bfloat162 value) {
  return value.y;
}
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) {
  return {x, y};
}
inline __nv_bfloat162 make_bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) {
  return {x, y};
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) {
  return value.bits;
}
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  __nv_bfloat16 value;
  value.bits = bits;
  return value;
}
