// Philox4x32-10, a counter-based random number generator (Salmon et al. 2011, "Parallel random
// numbers: as easy as 1, 2, 3").
//
// There is no state: number `index` of stream `stream` under seed `seed` is a function of the three.
// Whoever computes element 17 of a tensor, on whatever thread, device or rank, draws number 17 and
// gets the same value.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace llm {

/// One Philox block: four random words from a 128-bit counter and a 64-bit key.
constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                  std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// A stream number for a name ("dropout", "shuffle"): FNV-1a, so that streams never collide by accident.
constexpr std::uint64_t stream_id(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

/// The numbers of one (seed, stream), by index.
struct Philox {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;

  constexpr std::array<std::uint32_t, 4> block(std::uint64_t i) const {
    return philox4x32({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32),
                       static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
                      {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  }
  /// 32 random bits.
  constexpr std::uint32_t word(std::uint64_t index) const { return block(index / 4)[index % 4]; }
  /// Uniform in [0, 1), 24 bits.
  constexpr float uniform(std::uint64_t index) const {
    return static_cast<float>(word(index) >> 8) * 0x1p-24f;
  }
  /// Standard normal (Box-Muller on the two halves of a pair; index pairs (2k, 2k+1) share it).
  float normal(std::uint64_t index) const { return normals(index / 4)[index % 4]; }
  /// The four normal numbers 4 i to 4 i + 3.
  std::array<float, 4> normals(std::uint64_t i) const {
    const auto words = block(i);
    std::array<float, 4> out;
    for (std::size_t pair = 0; pair < 4; pair += 2) {
      // u1 in (0, 1], so that the logarithm is finite.
      const double u1 = (static_cast<double>(words[pair]) + 1.0) * 0x1p-32;
      const double u2 = static_cast<double>(words[pair + 1]) * 0x1p-32;
      const double radius = std::sqrt(-2.0 * std::log(u1));
      const double angle = 6.283185307179586476925286766559 * u2;
      out[pair] = static_cast<float>(radius * std::cos(angle));
      out[pair + 1] = static_cast<float>(radius * std::sin(angle));
    }
    return out;
  }
};

/// The same numbers one after the other, for code that draws as it goes.
class PhiloxSequence {
 public:
  PhiloxSequence(std::uint64_t seed, std::uint64_t stream) : philox_{seed, stream} {}

  std::uint32_t next_word() {
    if (index_ % 4 == 0) block_ = philox_.block(index_ / 4);
    return block_[index_++ % 4];
  }
  std::uint64_t next_word64() {
    const std::uint64_t high = next_word();
    return (high << 32) | next_word();
  }
  /// Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next_word64() >> 11) * 0x1p-53; }
  /// Uniform in {0, ..., n - 1}, n >= 1, without bias (Lemire 2019: multiply, reject the short end).
  std::uint64_t below(std::uint64_t n) {
    unsigned __int128 product = static_cast<unsigned __int128>(next_word64()) * n;
    if (static_cast<std::uint64_t>(product) < n) {
      const std::uint64_t threshold = -n % n;
      while (static_cast<std::uint64_t>(product) < threshold)
        product = static_cast<unsigned __int128>(next_word64()) * n;
    }
    return static_cast<std::uint64_t>(product >> 64);
  }

 private:
  Philox philox_;
  std::uint64_t index_ = 0;
  std::array<std::uint32_t, 4> block_{};
};

}  // namespace llm
