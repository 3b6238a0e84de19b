#include "common/parallel/exact_squares.h"

#include <bit>
#include <cmath>
#include <limits>
#include <mutex>

#include "common/core/error.h"
#include "common/core/threads.h"

namespace llm {

namespace {

constexpr int kBase = 20;               // bits of a digit
constexpr std::int64_t kChunk = 32768;  // squares below 2^48: so many fit into 64 bits
constexpr std::size_t kSpecial = 255;   // the exponent of NaN and infinity

}  // namespace

void ExactSquares::add(std::span<const float> x) {
  std::mutex mutex;
  const auto count = static_cast<std::int64_t>(x.size());
  parallel_for((count + kChunk - 1) / kChunk, 4, [&](std::int64_t begin, std::int64_t end) {
    std::array<unsigned __int128, 256> sums{};
    for (std::int64_t chunk = begin; chunk < end; ++chunk) {
      // Neighbours often have the same exponent: two tables, so that an addition need not wait for the last.
      std::array<std::array<std::uint64_t, 256>, 2> table{};
      const std::int64_t last = std::min(count, (chunk + 1) * kChunk);
      for (std::int64_t i = chunk * kChunk; i < last; ++i) {
        const std::uint32_t bits = std::bit_cast<std::uint32_t>(x[static_cast<std::size_t>(i)]) & 0x7FFFFFFFu;
        const std::uint32_t exponent = bits >> 23;
        const std::uint64_t mantissa = (bits & 0x7FFFFFu) | (exponent != 0 ? 0x800000u : 0u);
        table[static_cast<std::size_t>(i & 1)][exponent] += exponent == kSpecial ? 1 : mantissa * mantissa;
      }
      for (std::size_t e = 0; e < sums.size(); ++e) {
        sums[e] += table[0][e];
        sums[e] += table[1][e];
      }
    }
    const std::lock_guard lock(mutex);
    for (std::size_t e = 0; e < sums.size(); ++e) bins_[e] += sums[e];
  });
}

// x = mantissa * 2^(e - 150) with e the biased exponent, 1 for subnormal numbers too; so its square counts
// in units of 2^(2 e - 300), which stands at bit 2 e - 2 of an integer that counts in 2^-298.
ExactSquares::Digits ExactSquares::digits() const {
  std::array<std::uint64_t, kDigits + 8> wide{};
  for (std::size_t e = 0; e < kSpecial; ++e) {
    const std::size_t bit = 2 * std::max<std::size_t>(e, 1) - 2;
    std::size_t digit = bit / kBase;
    const std::size_t shift = bit % kBase;
    for (unsigned __int128 rest = bins_[e]; rest != 0; rest >>= kBase, ++digit) {
      const std::uint64_t part = static_cast<std::uint64_t>(rest & ((1u << kBase) - 1)) << shift;
      wide[digit] += part & ((1u << kBase) - 1);
      wide[digit + 1] += part >> kBase;
    }
  }
  Digits out{};
  std::uint64_t carry = 0;
  for (std::size_t i = 0; i + 1 < kDigits; ++i) {
    const std::uint64_t sum = wide[i] + carry;
    out[i] = static_cast<std::int32_t>(sum & ((1u << kBase) - 1));
    carry = sum >> kBase;
  }
  check(carry == 0, "a sum of squares has become too large");
  out[kDigits - 1] = bins_[kSpecial] == 0 ? 0 : 1;
  return out;
}

double ExactSquares::value(std::span<const std::int32_t, kDigits> digits) {
  if (digits[kDigits - 1] != 0) return std::numeric_limits<double>::quiet_NaN();
  double sum = 0;
  for (std::size_t i = 0; i + 1 < kDigits; ++i)
    sum += std::ldexp(static_cast<double>(digits[i]), static_cast<int>(i) * kBase - 298);
  return sum;
}

}  // namespace llm
