// The exercises of chapter 6. Write your answers in exercises.cpp; `./book check ch06` says how far they are,
// `./book hint 6.5` helps.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/exercises/not_started.h"

namespace llm::exercises::ch06 {

/// One pass of a pipeline: the forward or backward pass of a micro-batch on one rank. "F0", "B0".
struct Pass {
  char kind = 'F';  // F or B
  int micro_batch = 0;
  bool operator==(const Pass&) const = default;
};

/// 6.5 GPipe's schedule: what rank `rank` of `ranks` does with micro-batches 0, 1, ..., micro_batches - 1, in
/// order: all forward passes, then all backward passes, both in ascending order.
std::vector<Pass> gpipe(int rank, int ranks, int micro_batches);

/// 6.6 1F1B (Narayanan et al. 2021, section 2.2.1): first as many forward passes as there are ranks behind
/// this one (or all, if there are fewer micro-batches); then in turn one forward and one backward pass, until
/// all forward passes are done; then the backward passes that are left. Micro-batches in ascending order.
std::vector<Pass> one_f_one_b(int rank, int ranks, int micro_batches);

/// The elements [begin, end) of a flat buffer.
struct Range {
  std::int64_t begin = 0, end = 0;
  bool operator==(const Range&) const = default;
};

/// 6.7 ZeRO-1: who updates what. The parameters of a model lie one after the other in a flat buffer of
/// `elements` floats, and each of `ranks` ranks keeps the optimizer's moments of one part. All parts have the
/// same size, a multiple of `alignment`, the smallest that is enough; so the last parts may be shorter than
/// that, or empty, where the buffer ends.
Range zero1_part(std::int64_t elements, int rank, int ranks, std::int64_t alignment);

/// What a rank's memory is made of, in bytes.
struct Memory {
  double parameters = 0, gradients = 0, optimizer = 0, activations = 0;
};

/// 6.9 The memory formula for mixed precision. The model has L layers of hidden size h, 12 h^2 parameters
/// each (leave the embedding and all biases out), and trains on sequences of s tokens, b of them in a
/// micro-batch. Its layers are cut into p stages of L / p layers, each layer over t tensor-parallel ranks,
/// and there are d data-parallel replicas with ZeRO stage `zero` (0 to 3). Per parameter: 2 bytes for it, 2
/// for its gradient, 12 for the optimizer. Activations, with sequence parallelism and fused attention, are 34
/// s b h / t bytes per layer and micro-batch; the schedule is 1F1B with m micro-batches. The result is that
/// of rank `stage` of the pipeline (0 is the first).
Memory rank_memory(std::int64_t L, std::int64_t h, std::int64_t s, std::int64_t b, int p, int t, int d,
                   int zero, int m, int stage);

}  // namespace llm::exercises::ch06
