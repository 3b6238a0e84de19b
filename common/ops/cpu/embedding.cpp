// Embedding: rows of a table picked by token id, plus rows of another picked by position. Chapter 2.
#include "common/core/threads.h"
#include "common/ops/cpu/kernels.h"

namespace llm::cpu {

void embedding_forward(float* y, const std::int32_t* tokens, const float* token_table,
                       const float* position_table, Index batch, Index time, Index channels) {
  parallel_for(batch * time, 16, [=](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const float* token = token_table + tokens[row] * channels;
      const float* position = position_table + row % time * channels;
      float* out = y + row * channels;
#pragma GCC ivdep
      for (Index c = 0; c < channels; ++c) out[c] = token[c] + position[c];
    }
  });
}

// The same token may stand at many positions, so rows of the tables cannot be shared out among threads: each
// thread takes all rows of its own channels instead.
void embedding_backward(float* dtoken_table, float* dposition_table, const float* dy,
                        const std::int32_t* tokens, Index batch, Index time, Index channels) {
  parallel_for(channels, 64, [=](Index begin, Index end) {
    for (Index row = 0; row < batch * time; ++row) {
      float* token = dtoken_table + tokens[row] * channels;
      float* position = dposition_table + row % time * channels;
      const float* in = dy + row * channels;
#pragma GCC ivdep
      for (Index c = begin; c < end; ++c) {
        token[c] += in[c];
        position[c] += in[c];
      }
    }
  });
}

}  // namespace llm::cpu
