// What the collectives of a warp do once all their lanes have come (machine.h).
#include <bit>

#include "common/core/error.h"
#include "common/simt/emulator/multiprocessor.h"

namespace llm::simt {

namespace {

/// Calls body(lane) for each lane of `mask`.
template <typename Body>
void for_each_lane(std::uint32_t mask, Body body) {
  for (; mask != 0; mask &= mask - 1) body(std::countr_zero(mask));
}

/// Combines the values of all lanes, in order of the lanes, and gives the result to each.
template <typename Combine>
void reduce(Lane* const* lanes, std::uint32_t mask, std::uint64_t start, Combine combine) {
  for_each_lane(mask, [&](int i) { start = combine(start, lanes[i]->value); });
  for_each_lane(mask, [&](int i) { lanes[i]->value = start; });
}

}  // namespace

void wait_only(Lane* const*, std::uint32_t) {}

void exchange(Lane* const* lanes, std::uint32_t mask) {
  std::uint64_t values[kWarp];
  for_each_lane(mask, [&](int i) {
    const Lane* source = lanes[lanes[i]->source];
    if (source == nullptr) [[unlikely]] {
      auto& mp = Multiprocessor::of_this_thread();
      const Thread& reader = mp.thread(mp.thread().number / kWarp * kWarp + static_cast<unsigned>(i));
      const bool named = (reader.mask >> lanes[i]->source & 1u) != 0;
      RawFault fault;
      fault.kind = FaultKind::missing_lane;
      fault.thread = static_cast<int>(reader.number);
      fault.text = fmt::format("reads from lane {} with {}", lanes[i]->source, reader.name);
      fault.where = reader.where;
      fault.end = named ? ", but that lane has returned (or the block has no such lane)"
                        : fmt::format(", but its mask {:#010x} does not name that lane", reader.mask);
      mp.fail(std::move(fault));
    }
    values[i] = source->value;
  });
  for_each_lane(mask, [&](int i) { lanes[i]->value = values[i]; });
}

void ballot(Lane* const* lanes, std::uint32_t mask) {
  std::uint64_t votes = 0;
  for_each_lane(mask, [&](int i) { votes |= std::uint64_t{lanes[i]->value != 0} << i; });
  for_each_lane(mask, [&](int i) { lanes[i]->value = votes; });
}

void sum(Lane* const* lanes, std::uint32_t mask) {
  reduce(lanes, mask, 0, [](std::uint64_t a, std::uint64_t b) { return a + b; });
}

void minimum(Lane* const* lanes, std::uint32_t mask) {
  reduce(lanes, mask, static_cast<std::uint64_t>(INT64_MAX), [](std::uint64_t a, std::uint64_t b) {
    return static_cast<std::int64_t>(b) < static_cast<std::int64_t>(a) ? b : a;
  });
}

void maximum(Lane* const* lanes, std::uint32_t mask) {
  reduce(lanes, mask, static_cast<std::uint64_t>(INT64_MIN), [](std::uint64_t a, std::uint64_t b) {
    return static_cast<std::int64_t>(b) > static_cast<std::int64_t>(a) ? b : a;
  });
}

void bitwise_and(Lane* const* lanes, std::uint32_t mask) {
  reduce(lanes, mask, ~std::uint64_t{0}, [](std::uint64_t a, std::uint64_t b) { return a & b; });
}

void bitwise_or(Lane* const* lanes, std::uint32_t mask) {
  reduce(lanes, mask, 0, [](std::uint64_t a, std::uint64_t b) { return a | b; });
}

void bitwise_xor(Lane* const* lanes, std::uint32_t mask) {
  reduce(lanes, mask, 0, [](std::uint64_t a, std::uint64_t b) { return a ^ b; });
}

}  // namespace llm::simt
