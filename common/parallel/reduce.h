// Adding up what the ranks have, in the order of the ranks.
//
// Floating-point addition depends on the order: (a + b) + c need not be a + (b + c). Every backend for CPUs
// adds rank 0 + rank 1 + ... with this one function, so that all_reduce, and reduce_scatter followed by
// all_gather, give the same bits whatever carries them. Chapter 6 explains it.
#pragma once

#include <cstdint>
#include <span>

#include "common/core/dtype.h"
#include "common/parallel/communicator.h"

namespace llm {

/// out[i] = from[0][i] + from[1][i] + ..., or the largest (a NaN is larger than anything), for `count`
/// elements. bf16 is widened to f32, added, and rounded once; i32 wraps around. `out` may be one of `from`.
void reduce_in_rank_order(void* out, std::span<const void* const> from, std::int64_t count, DType dtype,
                          ReduceOp reduce);

}  // namespace llm
