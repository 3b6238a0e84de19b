// The emulated twins of ldmatrix and mma.sync.m16n8k16 (mma.cuh), in the fragment layouts that PTX documents.
#include <bit>

#include "common/core/error.h"
#include "common/simt/emulator/checker.h"

namespace llm::simt {

namespace {

constexpr std::uint32_t kAllLanes = 0xffffffffu;

/// These instructions want the whole warp: nobody may have returned.
void need_all(std::uint32_t mask, const char* name) {
  if (mask == kAllLanes) return;
  RawFault fault;
  fault.kind = FaultKind::missing_lane;
  fault.text = fmt::format("calls {} while lane {} of its warp has returned; it needs all 32", name,
                           std::countr_one(mask));
  fault.where = Multiprocessor::of_this_thread().thread().where;
  Multiprocessor::of_this_thread().fail(std::move(fault));
}

float lower(std::uint32_t pair) {
  return std::bit_cast<float>(pair << 16);
}
float upper(std::uint32_t pair) {
  return std::bit_cast<float>(pair & 0xffff0000u);
}

template <int Count, bool Transposed>
void load(Lane* const* lanes, std::uint32_t mask) {
  need_all(mask, "ldmatrix");
  auto& mp = Multiprocessor::of_this_thread();
  const unsigned first = mp.thread().number / kWarp * kWarp;
  for (int matrix = 0; matrix < Count; ++matrix) {
    const std::uint16_t* rows[8];
    for (int i = 0; i < 8; ++i) {
      const void* row = lanes[8 * matrix + i]->memory;
      const Thread& thread = mp.thread(first + static_cast<unsigned>(8 * matrix + i));
      if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) {
        RawFault fault;
        fault.thread = static_cast<int>(thread.number);
        fault.text = "gives ldmatrix an address that is no multiple of 16 bytes";
        fault.where = thread.where;
        mp.fail(std::move(fault));
      }
      rows[i] = static_cast<const std::uint16_t*>(row);
    }
    for (int i = 0; i < kWarp; ++i) {
      const int g = i / 4, t = i % 4;
      const std::uint32_t low = Transposed ? rows[2 * t][g] : rows[g][2 * t];
      const std::uint32_t high = Transposed ? rows[2 * t + 1][g] : rows[g][2 * t + 1];
      static_cast<std::uint32_t*>(lanes[i]->registers[0])[matrix] = high << 16 | low;
    }
  }
}

void multiply(Lane* const* lanes, std::uint32_t mask) {
  need_all(mask, "mma");
  float a[16][16], b[16][8];
  for (int i = 0; i < kWarp; ++i) {
    const int g = i / 4, t = i % 4;
    const auto* ra = static_cast<const std::uint32_t*>(lanes[i]->registers[1]);
    const auto* rb = static_cast<const std::uint32_t*>(lanes[i]->registers[2]);
    for (int j = 0; j < 4; ++j) {
      const int row = g + 8 * (j % 2), column = 2 * t + 8 * (j / 2);
      a[row][column] = lower(ra[j]);
      a[row][column + 1] = upper(ra[j]);
    }
    for (int j = 0; j < 2; ++j) {
      b[2 * t + 8 * j][g] = lower(rb[j]);
      b[2 * t + 1 + 8 * j][g] = upper(rb[j]);
    }
  }
  for (int i = 0; i < kWarp; ++i) {
    const int g = i / 4, t = i % 4;
    auto* d = static_cast<float*>(lanes[i]->registers[0]);
    for (int j = 0; j < 4; ++j) {
      const int row = g + 8 * (j / 2), column = 2 * t + j % 2;
      float sum = d[j];
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      d[j] = sum;
    }
  }
  if (checker != nullptr) checker->tile_multiplied();
}

}  // namespace

void load_matrices(std::uint32_t* registers, const void* row, int count, bool transposed) {
  auto& mp = Multiprocessor::of_this_thread();
  const void* where = __builtin_return_address(0);
  Lane lane;
  lane.memory = row;
  lane.registers[0] = registers;
  if (checker != nullptr && static_cast<int>(mp.thread().number % kWarp) < 8 * count)
    checker->matrix_loaded(mp, row, where);
  const Collective what = count == 4 ? (transposed ? load<4, true> : load<4, false>)
                                     : (transposed ? load<2, true> : load<2, false>);
  mp.join(what, "ldmatrix", kAllLanes, lane, where);
}

void multiply_tile(float* d, const std::uint32_t* a, const std::uint32_t* b) {
  Lane lane;
  lane.registers[0] = d;
  lane.registers[1] = const_cast<std::uint32_t*>(a);
  lane.registers[2] = const_cast<std::uint32_t*>(b);
  Multiprocessor::of_this_thread().join(multiply, "mma", kAllLanes, lane, __builtin_return_address(0));
}

}  // namespace llm::simt
