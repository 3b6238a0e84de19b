// Your answers to the exercises of chapter 6. What each function has to do stands in exercises.h.
#include "ch06_multi_gpu/exercises.h"

namespace llm::exercises::ch06 {

// 6.1
void ring_all_reduce(std::span<float> x, int rank, int ranks, Ring& ring) {
  not_started();  // your code instead of this line
}

// 6.2
void average_in_buckets(const std::vector<std::span<float>>& gradients, std::int64_t bucket_size, int ranks,
                        const std::function<void(std::span<float>)>& all_reduce) {
  not_started();
}

// 6.3
LinearShard column_shard(const Matrix& w, std::span<const float> b, std::size_t rank, std::size_t ranks) {
  not_started();
}

Matrix column_forward(const Matrix& x, const LinearShard& shard) {
  not_started();
}

Matrix column_backward(LinearShard& gradient, const Matrix& dy, const Matrix& x, const LinearShard& shard,
                       const Reduce& sum) {
  not_started();
}

LinearShard row_shard(const Matrix& w, std::span<const float> b, std::size_t rank, std::size_t ranks) {
  not_started();
}

Matrix row_forward(const Matrix& x, const LinearShard& shard, const Reduce& sum) {
  not_started();
}

Matrix row_backward(LinearShard& gradient, const Matrix& dy, const Matrix& x, const LinearShard& shard) {
  not_started();
}

// 6.4
std::vector<float> shard_cross_entropy(Matrix& logits, std::span<const std::int32_t> targets,
                                       std::int64_t first, float scale, const Reduce& largest,
                                       const Reduce& sum) {
  not_started();
}

// 6.5
std::vector<Pass> gpipe(int rank, int ranks, int micro_batches) {
  not_started();
}

// 6.6
std::vector<Pass> one_f_one_b(int rank, int ranks, int micro_batches) {
  not_started();
}

// 6.7
Range zero1_part(std::int64_t elements, int rank, int ranks, std::int64_t alignment) {
  not_started();
}

// 6.8
void zero3_step(int layers, ShardedLayers& model) {
  not_started();
}

// 6.9
Memory rank_memory(std::int64_t L, std::int64_t h, std::int64_t s, std::int64_t b, int p, int t, int d,
                   int zero, int m, int stage) {
  not_started();
}

// 6.10
Neighbours exchange_with_neighbours(float mine, int rank, int ranks, BlockingLine& line) {
  not_started();
}

}  // namespace llm::exercises::ch06
