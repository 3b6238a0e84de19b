// Answers to the exercises of chapter 6. Try yourself first: `./book hint 6.1`.
#include <algorithm>
#include <cmath>

#include "ch06_multi_gpu/exercises.h"

namespace llm::exercises::ch06 {

// 6.1
void ring_all_reduce(std::span<float> x, int rank, int ranks, Ring& ring) {
  const std::size_t size = x.size() / static_cast<std::size_t>(ranks);
  const auto piece = [&](int i) {
    return x.subspan(static_cast<std::size_t>((i % ranks + ranks) % ranks) * size, size);
  };
  std::vector<float> in(size);
  // Piece i starts its way at rank i, and every rank adds its own to what arrives.
  for (int step = 0; step < ranks - 1; ++step) {
    ring.pass(piece(rank - step), in);
    const std::span<float> mine = piece(rank - step - 1);
    for (std::size_t i = 0; i < size; ++i) mine[i] += in[i];
  }
  // The piece that this rank has finished is rank + 1.
  for (int step = 0; step < ranks - 1; ++step) ring.pass(piece(rank + 1 - step), piece(rank - step));
}

// 6.2
void average_in_buckets(const std::vector<std::span<float>>& gradients, std::int64_t bucket_size, int ranks,
                        const std::function<void(std::span<float>)>& all_reduce) {
  std::size_t end = gradients.size();  // gradients [first, end) are the next bucket
  while (end > 0) {
    std::size_t first = end, elements = 0;
    do {
      elements += gradients[--first].size();
    } while (first > 0 && elements + gradients[first - 1].size() <= static_cast<std::size_t>(bucket_size));
    std::vector<float> bucket;
    for (std::size_t i = end; i-- > first;)
      bucket.insert(bucket.end(), gradients[i].begin(), gradients[i].end());
    all_reduce(bucket);
    auto from = bucket.begin();
    for (std::size_t i = end; i-- > first;)
      for (float& g : gradients[i]) g = *from++ / static_cast<float>(ranks);
    end = first;
  }
}

namespace {

/// x w^T: (N, I) (O, I) -> (N, O).
Matrix product(const Matrix& x, const Matrix& w) {
  Matrix y(x.rows, w.rows);
  for (std::size_t n = 0; n < x.rows; ++n)
    for (std::size_t o = 0; o < w.rows; ++o)
      for (std::size_t i = 0; i < x.columns; ++i) y(n, o) += x(n, i) * w(o, i);
  return y;
}

/// dy w: (N, O) (O, I) -> (N, I).
Matrix input_gradient(const Matrix& dy, const Matrix& w) {
  Matrix dx(dy.rows, w.columns);
  for (std::size_t n = 0; n < dy.rows; ++n)
    for (std::size_t o = 0; o < w.rows; ++o)
      for (std::size_t i = 0; i < w.columns; ++i) dx(n, i) += dy(n, o) * w(o, i);
  return dx;
}

/// dw += dy^T x, db += column sums of dy.
void add_weight_gradient(LinearShard& gradient, const Matrix& dy, const Matrix& x) {
  for (std::size_t n = 0; n < dy.rows; ++n)
    for (std::size_t o = 0; o < dy.columns; ++o) {
      gradient.b[o] += dy(n, o);
      for (std::size_t i = 0; i < x.columns; ++i) gradient.w(o, i) += dy(n, o) * x(n, i);
    }
}

}  // namespace

// 6.3
LinearShard column_shard(const Matrix& w, std::span<const float> b, std::size_t rank, std::size_t ranks) {
  const std::size_t outputs = w.rows / ranks, first = rank * outputs;
  LinearShard shard{Matrix(outputs, w.columns), std::vector<float>(outputs)};
  for (std::size_t o = 0; o < outputs; ++o) {
    shard.b[o] = b[first + o];
    for (std::size_t i = 0; i < w.columns; ++i) shard.w(o, i) = w(first + o, i);
  }
  return shard;
}

Matrix column_forward(const Matrix& x, const LinearShard& shard) {
  Matrix y = product(x, shard.w);
  for (std::size_t n = 0; n < y.rows; ++n)
    for (std::size_t o = 0; o < y.columns; ++o) y(n, o) += shard.b[o];  // one rank's outputs, one bias each
  return y;
}

Matrix column_backward(LinearShard& gradient, const Matrix& dy, const Matrix& x, const LinearShard& shard,
                       const Reduce& sum) {
  add_weight_gradient(gradient, dy, x);
  Matrix dx = input_gradient(dy, shard.w);  // from this rank's outputs only
  sum(dx.numbers);                          // Megatron's f, backward
  return dx;
}

LinearShard row_shard(const Matrix& w, std::span<const float> b, std::size_t rank, std::size_t ranks) {
  const std::size_t inputs = w.columns / ranks;
  LinearShard shard{Matrix(w.rows, inputs), std::vector<float>(b.begin(), b.end())};
  for (std::size_t o = 0; o < w.rows; ++o)
    for (std::size_t i = 0; i < inputs; ++i) shard.w(o, i) = w(o, rank * inputs + i);
  return shard;
}

Matrix row_forward(const Matrix& x, const LinearShard& shard, const Reduce& sum) {
  Matrix y = product(x, shard.w);  // this rank's inputs' part of every output
  sum(y.numbers);                  // Megatron's g, forward
  for (std::size_t n = 0; n < y.rows; ++n)
    for (std::size_t o = 0; o < y.columns; ++o) y(n, o) += shard.b[o];  // once, after the sum
  return y;
}

Matrix row_backward(LinearShard& gradient, const Matrix& dy, const Matrix& x, const LinearShard& shard) {
  add_weight_gradient(gradient, dy, x);
  return input_gradient(dy, shard.w);
}

// 6.4
std::vector<float> shard_cross_entropy(Matrix& logits, std::span<const std::int32_t> targets,
                                       std::int64_t first, float scale, const Reduce& largest,
                                       const Reduce& sum) {
  const std::size_t N = logits.rows, V = logits.columns;
  std::vector<float> highest(N), totals(N), right(N), losses(N);
  for (std::size_t n = 0; n < N; ++n) {
    highest[n] = logits(n, 0);
    for (std::size_t v = 1; v < V; ++v) highest[n] = std::max(highest[n], logits(n, v));
  }
  largest(highest);
  const auto column = [&](std::size_t n) { return targets[n] - first; };
  const auto mine = [&](std::int64_t c) { return c >= 0 && c < static_cast<std::int64_t>(V); };
  for (std::size_t n = 0; n < N; ++n) {
    for (std::size_t v = 0; v < V; ++v) totals[n] += std::exp(logits(n, v) - highest[n]);
    if (mine(column(n))) right[n] = logits(n, static_cast<std::size_t>(column(n)));
  }
  sum(totals);
  sum(right);
  for (std::size_t n = 0; n < N; ++n) {
    losses[n] = std::log(totals[n]) + highest[n] - right[n];
    for (std::size_t v = 0; v < V; ++v)
      logits(n, v) = scale * std::exp(logits(n, v) - highest[n]) / totals[n];
    if (mine(column(n))) logits(n, static_cast<std::size_t>(column(n))) -= scale;
  }
  return losses;
}

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

// 6.8
void zero3_step(int layers, ShardedLayers& model) {
  model.start_gather(0);
  for (int layer = 0; layer < layers; ++layer) {
    model.finish_gather(layer);
    if (layer + 1 < layers) model.start_gather(layer + 1);
    model.forward(layer);
    model.release(layer);
  }
  model.start_gather(layers - 1);
  for (int layer = layers - 1; layer >= 0; --layer) {
    model.finish_gather(layer);
    if (layer > 0) model.start_gather(layer - 1);
    model.backward(layer);
    model.release(layer);
    model.reduce_gradients(layer);
  }
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

// 6.10
Neighbours exchange_with_neighbours(float mine, int rank, int ranks, BlockingLine& line) {
  Neighbours result;
  const bool even = rank % 2 == 0;
  const auto with_right = [&] {
    if (rank == ranks - 1) return;
    if (even) {
      line.send(rank + 1, mine);
      result.right = line.receive(rank + 1);
    } else {
      result.right = line.receive(rank + 1);
      line.send(rank + 1, mine);
    }
  };
  const auto with_left = [&] {
    if (rank == 0) return;
    if (even) {
      line.send(rank - 1, mine);
      result.left = line.receive(rank - 1);
    } else {
      result.left = line.receive(rank - 1);
      line.send(rank - 1, mine);
    }
  };
  // First the pairs (0, 1), (2, 3), ..., then (1, 2), (3, 4), ...: of each pair the even rank speaks first.
  if (even) {
    with_right();
    with_left();
  } else {
    with_left();
    with_right();
  }
  return result;
}

}  // namespace llm::exercises::ch06
