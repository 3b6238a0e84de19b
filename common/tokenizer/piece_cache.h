// A small cache from pieces of text to their tokens.
//
// Most pieces of a text are short words that came before. The cache holds pieces of up to 15 bytes that make
// up to three tokens; the piece's hash says the one slot where it may be, and a newcomer takes the slot over,
// so the cache never grows and needs no bookkeeping. A slot is 32 bytes: two to a cache line.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace llm {

class PieceCache {
 public:
  static constexpr std::size_t kMaxBytes = 15;
  static constexpr std::size_t kMaxTokens = 3;

  // The piece as 16 bytes: its bytes, zeros, its length (at least 1, so that no key is all zeros).
  struct Key {
    std::uint64_t low = 0, high = 0;
  };
  struct Slot {
    Key key;
    std::int32_t ids[kMaxTokens] = {};
    std::uint32_t count = 0;
  };

  PieceCache() : slots_(std::size_t{1} << kBits) {}

  /// The key of text[begin, begin + length), where 1 <= length <= kMaxBytes. Reads 16 bytes at once if they
  /// are there.
  static Key key(std::string_view text, std::size_t begin, std::size_t length) {
    Key k;
    if (begin + 16 <= text.size()) {
      std::memcpy(&k, text.data() + begin, 16);
      if (length < 8) {
        k.low &= (std::uint64_t{1} << (8 * length)) - 1;
        k.high = 0;
      } else {
        k.high &= (std::uint64_t{1} << (8 * (length - 8))) - 1;
      }
    } else {
      std::memcpy(&k, text.data() + begin, length);
    }
    k.high |= std::uint64_t{length} << 56;
    return k;
  }

  /// The slot where the piece is if it is in the cache; check `holds`.
  Slot& slot(const Key& k) {
    const std::uint64_t mixed = (k.low ^ (k.high * 0xD6E8FEB86659FD93u)) * 0x9E3779B97F4A7C15u;
    return slots_[static_cast<std::size_t>((mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9u >> (64 - kBits))];
  }
  static bool holds(const Slot& slot, const Key& k) {
    return slot.key.low == k.low && slot.key.high == k.high;
  }

 private:
  static constexpr int kBits = 15;  // 32768 slots, 1 MB
  std::vector<Slot> slots_;
};

}  // namespace llm
