// Memory that a kernel needs while it runs, kept by each thread from call to call: no allocation in a
// training step.
#pragma once

#include <array>
#include <cstddef>

#include "common/core/tensor.h"
#include "common/ops/cpu/kernels.h"

namespace llm::cpu {

/// A block that grows and never shrinks. Declare it `static thread_local`.
class Scratch {
 public:
  /// At least `count` floats, 64-byte aligned, with undefined contents. Ends the life of the previous answer.
  float* floats(Index count) {
    if (memory_.numel() < count) memory_ = Tensor::uninitialized({count});
    return memory_.data();
  }

  /// The same cut into pieces of the given counts, each aligned.
  template <std::size_t Pieces>
  std::array<float*, Pieces> cut(const Index (&counts)[Pieces]) {
    constexpr Index kAlign = 16;
    Index total = 0;
    for (const Index count : counts) total += (count + kAlign - 1) / kAlign * kAlign;
    float* next = floats(total);
    std::array<float*, Pieces> pieces;
    for (std::size_t i = 0; i < Pieces; ++i) {
      pieces[i] = next;
      next += (counts[i] + kAlign - 1) / kAlign * kAlign;
    }
    return pieces;
  }

 private:
  Tensor memory_;
};

}  // namespace llm::cpu
