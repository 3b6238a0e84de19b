// Element types of a tensor: f32, bf16 and i32.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/core/error.h"

namespace llm {

enum class DType { f32, bf16, i32 };

/// bfloat16: the upper half of a float (1 sign, 8 exponent, 7 mantissa bits), rounded to nearest even.
/// A NaN stays a NaN (its quiet bit is set so that dropping the low half cannot make an infinity).
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  explicit BFloat16(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u)
      bits = static_cast<std::uint16_t>((u >> 16) | 0x40u);
    else
      bits = static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

inline std::size_t size_of(DType dtype) {
  return dtype == DType::bf16 ? 2 : 4;
}

inline std::string_view name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::i32:
      return "i32";
  }
  fail("there is no dtype number {}", static_cast<int>(dtype));
}

/// Parses "f32" or "bf16", what a model can compute in; anything else is a UsageError.
inline DType parse_dtype(const std::string& text) {
  if (text == "f32") return DType::f32;
  if (text == "bf16") return DType::bf16;
  fail_usage("a model computes in f32 or bf16, not in '{}'", text);
}

/// The DType of a C++ type: dtype_of<float> is DType::f32.
template <typename T>
inline constexpr DType dtype_of = [] { static_assert(sizeof(T) == 0, "no DType for this type"); }();
template <>
inline constexpr DType dtype_of<float> = DType::f32;
template <>
inline constexpr DType dtype_of<BFloat16> = DType::bf16;
template <>
inline constexpr DType dtype_of<std::int32_t> = DType::i32;

}  // namespace llm
