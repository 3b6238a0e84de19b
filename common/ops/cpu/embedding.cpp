// Embedding: rows of a table picked by token id, plus rows of another picked by position. Chapter 2.
#include <algorithm>

#include "common/core/threads.h"
#include "common/ops/cpu/kernels.h"

namespace llm::cpu {

void embedding_forward(float* y, const std::int32_t* tokens, const float* token_table,
                       const float* position_table, Index batch, Index time, Index channels, Index first,
                       Index vocabulary) {
  parallel_for(batch * time, 16, [=](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      float* out = y + row * channels;
      const Index id = tokens[row] - first;
      if (id < 0 || id >= vocabulary) {  // another rank's
        std::fill_n(out, channels, 0.0F);
        continue;
      }
      const float* token = token_table + id * channels;
      const float* position = position_table + row % time * channels;
#pragma GCC ivdep
      for (Index c = 0; c < channels; ++c) out[c] = token[c] + position[c];
    }
  });
}

// The same token may stand at many positions, so rows of the tables cannot be shared out among threads: each
// thread takes all rows of its own channels instead.
void embedding_backward(float* dtoken_table, float* dposition_table, const float* dy,
                        const std::int32_t* tokens, Index batch, Index time, Index channels, Index first,
                        Index vocabulary) {
  parallel_for(channels, 64, [=](Index begin, Index end) {
    for (Index row = 0; row < batch * time; ++row) {
      const Index id = tokens[row] - first;
      float* position = dposition_table + row % time * channels;
      const float* in = dy + row * channels;
      if (id < 0 || id >= vocabulary) {  // another rank's
#pragma GCC ivdep
        for (Index c = begin; c < end; ++c) position[c] += in[c];
        continue;
      }
      float* token = dtoken_table + id * channels;
#pragma GCC ivdep
      for (Index c = begin; c < end; ++c) {
        token[c] += in[c];
        position[c] += in[c];
      }
    }
  });
}

}  // namespace llm::cpu
