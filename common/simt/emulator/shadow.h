// Notes about every byte of memory that kernels share: whether it may be touched, whether somebody wrote it,
// and who touched it last, so that two accesses that nothing orders are seen whichever came first.
//
// Two accesses of a place are ordered if one thread makes both, if a barrier of the block lies between, or if
// a
// __syncwarp that names both lanes does; shuffles and votes order nothing (CUDA Programming Guide, "Warp
// shuffle functions"). A clock that advances at each of these events turns "lies between" into comparing two
// numbers. The idea of keeping the last write and the last reads beside the memory is that of race detectors
// such as Eraser (Savage et al. 1997) and ThreadSanitizer (Serebryany and Iskhodzhanov 2009). Chapter 3
// explains it.
//
// Known limits: of several readers the last two are kept; order that passes through a third lane or through
// atomics is not seen (blocks that use atomics are excused between blocks).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace llm::simt {

using Site = std::uint16_t;  // an instruction that touches memory, numbered by sites.h

/// Notes about two bytes.
struct Cell {
  std::uint32_t write_time = 0, read_time = 0, second_time = 0;
  Site write_site = 0, read_site = 0, second_site = 0;
  std::uint16_t writer = 0, reader = 0, second = 0;  // threads of their blocks
  std::uint8_t written = 0, read = 0;                // which of the two bytes
  bool atomic = false;                               // the write was
  bool pending = false;  // the write is an asynchronous copy that was not waited for
};

/// One bit for each byte of a range. Addresses are offsets from its begin.
class Bits {
 public:
  explicit Bits(std::size_t bytes);
  bool all(std::size_t begin, std::size_t bytes) const;
  void set(std::size_t begin, std::size_t bytes, bool value);
  void copy(std::size_t to, std::size_t from, std::size_t bytes);

 private:
  bool get(std::size_t i) const { return (words_[i / 8] >> (i % 8) & 1) != 0; }
  std::uint8_t* words_;
};

inline bool Bits::all(std::size_t begin, std::size_t bytes) const {
  if (bytes <= 8) [[likely]] {
    std::uint16_t two;
    std::memcpy(&two, words_ + begin / 8, 2);
    const unsigned mask = (1u << bytes) - 1;
    return (static_cast<unsigned>(two) >> (begin % 8) & mask) == mask;
  }
  for (std::size_t i = 0; i < bytes; ++i)
    if (!get(begin + i)) return false;
  return true;
}

/// Memory that is mapped when it is touched, zeroed.
void* map_lazily(std::size_t bytes);

/// Global memory, or a block's shared memory.
struct Region {
  const char* name;
  std::byte* begin;
  std::size_t bytes;
  Bits addressable, initialised;
  Cell* cells;  // one for two bytes

  Region(const char* region_name, std::byte* region_begin, std::size_t region_bytes)
      : name(region_name),
        begin(region_begin),
        bytes(region_bytes),
        addressable(region_bytes),
        initialised(region_bytes),
        cells(static_cast<Cell*>(map_lazily(region_bytes / 2 * sizeof(Cell)))) {}

  bool contains(const void* address) const {
    return static_cast<std::size_t>(static_cast<const std::byte*>(address) - begin) < bytes;
  }
};

/// When things happened, as far as the running block is concerned.
struct Clock {
  std::uint32_t now = 1;
  std::uint32_t launch = 1, block = 1, barrier = 1;  // when these began

  /// The last __syncwarp of each set of lanes of a warp.
  struct Sync {
    std::uint32_t mask, time;
  };
  std::vector<Sync> syncs[32];

  /// Whether what thread `a` did at `time` in this block is ordered before what thread `b` does now.
  bool ordered(unsigned a, unsigned b, std::uint32_t time) const {
    if (a == b || time < barrier) return true;
    if (a / 32 != b / 32) return false;
    const std::uint32_t both = 1u << a % 32 | 1u << b % 32;
    for (const Sync& sync : syncs[a / 32])
      if ((sync.mask & both) == both && time < sync.time) return true;
    return false;
  }
};

struct Access {
  std::size_t offset, bytes;
  unsigned thread;
  Site site;
  bool write, atomic;
};

/// Two accesses that nothing orders: the one being made, and this one.
struct Conflict {
  bool found = false;
  bool wrote = false;
  bool other_block = false;
  unsigned thread = 0;
  Site site = 0;
  std::uint32_t time = 0;
  std::size_t offset = 0;
};

/// The first conflict of `access` with earlier ones; notes the access.
Conflict note(Region& region, const Access& access, const Clock& clock, bool between_blocks);

/// Marks the target of an asynchronous copy; `note` the write first.
void set_pending(Region& region, std::size_t offset, std::size_t bytes, bool pending);
/// The first cell of a range that is the target of an asynchronous copy under way in this block, or null.
const Cell* find_pending(const Region& region, std::size_t offset, std::size_t bytes, const Clock& clock);

}  // namespace llm::simt
