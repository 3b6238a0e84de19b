#include "common/simt/emulator/shadow.h"

#include <sys/mman.h>

#include "common/core/error.h"

namespace llm::simt {

void* map_lazily(std::size_t bytes) {
  void* memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  check(memory != MAP_FAILED, "the system gives no addresses for the notes about device memory");
  return memory;
}

Bits::Bits(std::size_t bytes) : words_(static_cast<std::uint8_t*>(map_lazily(bytes / 8 + 8))) {}

void Bits::set(std::size_t begin, std::size_t bytes, bool value) {
  std::size_t i = begin;
  const std::size_t end = begin + bytes;
  const auto one = [&](std::size_t bit) {
    const auto mask = static_cast<std::uint8_t>(1u << bit % 8);
    words_[bit / 8] = static_cast<std::uint8_t>(value ? words_[bit / 8] | mask : words_[bit / 8] & ~mask);
  };
  for (; i < end && i % 8 != 0; ++i) one(i);
  if (end - i >= 8) {
    std::memset(words_ + i / 8, value ? 0xff : 0, (end - i) / 8);
    i += (end - i) / 8 * 8;
  }
  for (; i < end; ++i) one(i);
}

void Bits::copy(std::size_t to, std::size_t from, std::size_t bytes) {
  if (to % 8 == 0 && from % 8 == 0 && bytes >= 8) {
    std::memmove(words_ + to / 8, words_ + from / 8, bytes / 8);
    to += bytes / 8 * 8, from += bytes / 8 * 8, bytes %= 8;
  }
  for (std::size_t i = 0; i < bytes; ++i) set(to + i, 1, get(from + i));
}

namespace {

/// Whether what was noted at `time` by `thread` (of its block) is unordered with an access by `me` now.
enum class Order { before, same_block, other_block };

inline Order order(std::uint32_t time, unsigned thread, unsigned me, const Clock& clock,
                   bool between_blocks) {
  if (time >= clock.block) return clock.ordered(thread, me, time) ? Order::before : Order::same_block;
  return between_blocks && time >= clock.launch ? Order::other_block : Order::before;
}

}  // namespace

Conflict note(Region& region, const Access& access, const Clock& clock, bool between_blocks) {
  Conflict conflict;
  const std::size_t end = access.offset + access.bytes;
  for (std::size_t at = access.offset; at < end;) {
    const std::size_t next = std::min(end, at / 2 * 2 + 2);
    const auto bytes = static_cast<std::uint8_t>(next - at == 2 ? 3 : 1u << at % 2);
    Cell& cell = region.cells[at / 2];
    const auto judge = [&](std::uint32_t time, unsigned thread, Site site, bool wrote) {
      if (conflict.found) return;
      const Order how = order(time, thread, access.thread, clock, between_blocks);
      if (how != Order::before) conflict = {true, wrote, how == Order::other_block, thread, site, time, at};
    };
    if ((cell.written & bytes) != 0 && !(cell.atomic && access.atomic))
      judge(cell.write_time, cell.writer, cell.write_site, true);
    if (access.write) {
      if ((cell.read & bytes) != 0) {
        judge(cell.read_time, cell.reader, cell.read_site, false);
        judge(cell.second_time, cell.second, cell.second_site, false);
      }
      const bool again = cell.write_time >= clock.barrier && cell.writer == access.thread;
      cell.written = again ? cell.written | bytes : bytes;
      cell.write_time = clock.now;
      cell.writer = static_cast<std::uint16_t>(access.thread);
      cell.write_site = access.site;
      cell.atomic = access.atomic;
      cell.pending = false;
    } else if (!access.atomic) {  // an atomic read conflicts with no later atomic write
      const bool recent = cell.read_time >= clock.barrier;
      if (recent && cell.reader != access.thread) {
        cell.second_time = cell.read_time;
        cell.second = cell.reader;
        cell.second_site = cell.read_site;
      } else if (!recent) {
        cell.second_time = 0;
      }
      cell.read = recent ? cell.read | bytes : bytes;
      cell.read_time = clock.now;
      cell.reader = static_cast<std::uint16_t>(access.thread);
      cell.read_site = access.site;
    }
    at = next;
  }
  return conflict;
}

void set_pending(Region& region, std::size_t offset, std::size_t bytes, bool pending) {
  for (std::size_t i = offset / 2; i < (offset + bytes) / 2; ++i) region.cells[i].pending = pending;
}

const Cell* find_pending(const Region& region, std::size_t offset, std::size_t bytes, const Clock& clock) {
  for (std::size_t i = offset / 2; i <= (offset + bytes - 1) / 2; ++i)
    if (region.cells[i].pending && region.cells[i].write_time >= clock.block) return &region.cells[i];
  return nullptr;
}

}  // namespace llm::simt
