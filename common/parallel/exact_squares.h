// A sum of squares without any rounding: the norm of a gradient that is spread over ranks.
//
// Clipping needs the norm of all gradients as one vector. Added up in floating point, its last bits would
// depend on which rank holds what. Here the square of each float, an integer of 48 bits times a power of two,
// is added to an integer wide enough for all of them (a Kulisch accumulator: Kulisch 2013, "Computer
// arithmetic and validity", section 8), so that every order and every layout gives the same bits. Chapter 6
// explains it.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace llm {

class ExactSquares {
 public:
  /// The sum as digits of base 2^20, low to high, and behind them the number of addends that were NaN or
  /// infinite. Digits of up to 2,000 ranks may be added as i32, without carrying.
  static constexpr std::size_t kDigits = 32;
  using Digits = std::array<std::int32_t, kDigits>;

  void add(std::span<const float> x);
  Digits digits() const;
  /// The sum as a double; NaN if an addend was not finite.
  static double value(std::span<const std::int32_t, kDigits> digits);
  double value() const { return value(digits()); }

 private:
  std::array<unsigned __int128, 256> bins_{};  // by the exponent of x: sums of squared mantissas
};

}  // namespace llm
