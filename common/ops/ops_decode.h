// Primitives of generation, where every sequence has one new token. Rules and sizes as in ops.h. Chapters 5
// and 7 explain them.
//
// Nobody's result depends on who else is in the batch: a sequence gets the same bits alone and beside others.
#pragma once

#include <cstdint>
#include <span>

#include "common/core/tensor.h"

namespace llm {

/// linear_forward for few rows: on the CPU each weight is read once for up to eight of them, and a row's bits
/// do not depend on how many rows there are. On cuda it is linear_forward, whose library promises no such
/// thing.
void linear_decode(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& b);

/// A sequence's place in the caches: its row, and the positions that the row holds.
struct CachePlace {
  std::int64_t row = 0, length = 0;
};

/// attention_decode for sequences of different lengths: row i of qkv (N, 1, 3C) and y (N, 1, C) is the next
/// position of the sequence at places[i] (N of them, no row twice) of the caches (B, H, S, D), which receive
/// it.
void attention_decode(const Tensor& y, const Tensor& key_cache, const Tensor& value_cache, const Tensor& qkv,
                      std::span<const CachePlace> places, std::int64_t heads);

}  // namespace llm
