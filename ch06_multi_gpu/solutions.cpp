// Answers to the exercises of chapter 6. Try yourself first: `./book hint 6.5`.
#include <algorithm>

#include "ch06_multi_gpu/exercises.h"

namespace llm::exercises::ch06 {

// 6.5
std::vector<Pass> gpipe(int rank, int ranks, int micro_batches) {
  (void)rank, (void)ranks;  // every rank does the same
  std::vector<Pass> passes;
  for (int i = 0; i < micro_batches; ++i) passes.push_back({'F', i});
  for (int i = 0; i < micro_batches; ++i) passes.push_back({'B', i});
  return passes;
}

// 6.6
std::vector<Pass> one_f_one_b(int rank, int ranks, int micro_batches) {
  const int warmup = std::min(ranks - 1 - rank, micro_batches);
  std::vector<Pass> order;
  int forward = 0, backward = 0;
  while (forward < warmup) order.push_back({'F', forward++});
  while (forward < micro_batches) {
    order.push_back({'F', forward++});
    order.push_back({'B', backward++});
  }
  while (backward < micro_batches) order.push_back({'B', backward++});
  return order;
}

// 6.7
Range zero1_part(std::int64_t elements, int rank, int ranks, std::int64_t alignment) {
  const std::int64_t even = (elements + ranks - 1) / ranks;                         // rounded up
  const std::int64_t size = (even + alignment - 1) / alignment * alignment;         // to a multiple
  return {std::min(rank * size, elements), std::min((rank + 1) * size, elements)};  // not past the end
}

// 6.9
Memory rank_memory(std::int64_t L, std::int64_t h, std::int64_t s, std::int64_t b, int p, int t, int d,
                   int zero, int m, int stage) {
  const double layers = static_cast<double>(L) / p;
  const double width = static_cast<double>(h);
  const double parameters = layers * 12 * width * width / t;
  const int in_flight = std::min(m, p - stage);
  Memory memory;
  memory.parameters = 2 * parameters / (zero >= 3 ? d : 1);
  memory.gradients = 2 * parameters / (zero >= 2 ? d : 1);
  memory.optimizer = 12 * parameters / (zero >= 1 ? d : 1);
  memory.activations = in_flight * layers * 34 * static_cast<double>(s * b) * width / t;
  return memory;
}

}  // namespace llm::exercises::ch06
