// The arithmetic of ops_decode.h. Rules as in kernels.h.
#pragma once

#include <span>

#include "common/ops/cpu/kernels.h"
#include "common/ops/ops_decode.h"

namespace llm::cpu {

// linear_decode.cpp: x (N, I), w (O, I), b (O) or null, y (N, O)
void linear_decode(float* y, const float* x, const float* w, const float* b, Index rows, Index in, Index out);

// attention_decode.cpp: caches (B, H, S, D)
void attention_decode(float* y, float* key_cache, float* value_cache, const float* qkv, Index capacity,
                      std::span<const CachePlace> places, const AttentionSize& size);

}  // namespace llm::cpu
