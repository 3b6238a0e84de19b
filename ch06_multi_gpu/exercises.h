// The exercises of chapter 6. Write your answers in exercises.cpp; `./book check ch06` says how far they are,
// `./book hint 6.1` helps.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "tests/exercises/not_started.h"

namespace llm::exercises::ch06 {

/// A rank's two neighbours in a ring: rank r sends to r + 1 and receives from r - 1 (modulo the ranks).
struct Ring {
  virtual ~Ring() = default;
  /// Sends `out` to the right and fills `in` from the left, at the same time; sizes agree on both ends.
  virtual void pass(std::span<const float> out, std::span<float> in) = 0;
};

/// 6.1 Ring all-reduce: what one of `ranks` ranks does, so that in the end every rank's x is the sum of all
/// ranks' x. x is cut into `ranks` pieces of equal size (its size is a multiple). First ranks - 1 passes,
/// after which rank r has the whole sum of one piece; then ranks - 1 passes in which the finished pieces go
/// around. Each pass sends one piece: 2 (ranks - 1) / ranks of x in all.
void ring_all_reduce(std::span<float> x, int rank, int ranks, Ring& ring);

/// 6.2 Averages gradients over `ranks` ranks in buckets. `gradients` are those of the parameters in the order
/// of the model; backward completes them from the last to the first, so buckets are filled in that order: the
/// last parameter's gradient comes first. A bucket takes gradients as long as it has at most `bucket_size`
/// elements; a gradient that is larger alone is a bucket of its own. Each bucket is copied together,
/// all-reduced with one call of `all_reduce` (which leaves the sum over the ranks in place), divided by
/// `ranks`, and copied back.
void average_in_buckets(const std::vector<std::span<float>>& gradients, std::int64_t bucket_size, int ranks,
                        const std::function<void(std::span<float>)>& all_reduce);

// ---- tensor parallelism: exercises 6.3 and 6.4 -----------------------------------------------------------

/// x = the sum, or the largest, of all ranks' x, element by element. All ranks of a group call it together,
/// in the same order, with spans of equal size; all get the same numbers.
using Reduce = std::function<void(std::span<float> x)>;

/// Row-major.
struct Matrix {
  std::size_t rows = 0, columns = 0;
  std::vector<float> numbers;
  Matrix() = default;
  Matrix(std::size_t r, std::size_t c) : rows(r), columns(c), numbers(r * c) {}
  float& operator()(std::size_t r, std::size_t c) { return numbers[r * columns + c]; }
  float operator()(std::size_t r, std::size_t c) const { return numbers[r * columns + c]; }
};

/// What one rank holds of a linear layer y = x w^T + b with w (O, I) and b (O), or of its gradient.
struct LinearShard {
  Matrix w;
  std::vector<float> b;
};

/// 6.3 The two linear layers of tensor parallelism. The column-parallel layer: rank r of t computes the
/// outputs [r O / t, (r + 1) O / t); O is a multiple of t. All ranks have the whole x (N, I). The rank's part
/// of a layer: w (O / t, I), b (O / t).
LinearShard column_shard(const Matrix& w, std::span<const float> b, std::size_t rank, std::size_t ranks);
/// Its outputs, (N, O / t). Nothing is sent.
Matrix column_forward(const Matrix& x, const LinearShard& shard);
/// From dy (N, O / t), the gradient of its outputs: dw = dw + dy^T x and db = db + the column sums of dy, of
/// its own part; and the gradient of x, (N, I), which is a sum over the ranks: returned whole, on all of
/// them.
Matrix column_backward(LinearShard& gradient, const Matrix& dy, const Matrix& x, const LinearShard& shard,
                       const Reduce& sum);

/// The row-parallel layer: rank r of t has the inputs [r I / t, (r + 1) I / t); I is a multiple of t.
/// The rank's part of a layer: w (O, I / t), and the whole of b (O).
LinearShard row_shard(const Matrix& w, std::span<const float> b, std::size_t rank, std::size_t ranks);
/// The layer's outputs, whole, (N, O), on all ranks, from the rank's inputs x (N, I / t).
Matrix row_forward(const Matrix& x, const LinearShard& shard, const Reduce& sum);
/// From dy (N, O), the same on all ranks: dw = dw + dy^T x, db = db + the column sums of dy; and the gradient
/// of the rank's inputs, (N, I / t), returned. Nothing is sent.
Matrix row_backward(LinearShard& gradient, const Matrix& dy, const Matrix& x, const LinearShard& shard);

/// 6.4 Cross-entropy over a vocabulary that the ranks share: this one has the logits (N, V_r) of the tokens
/// [first, first + V_r); shares need not be equal. Returns the losses (N) of the whole vocabulary, the same
/// on all ranks: log sum exp(logits) - logits[target]. `logits` becomes its own gradient, scale (softmax -
/// one_hot). No logit may leave its rank: at most 3 N numbers are reduced. Logits may be as large as 1e4.
std::vector<float> shard_cross_entropy(Matrix& logits, std::span<const std::int32_t> targets,
                                       std::int64_t first, float scale, const Reduce& largest,
                                       const Reduce& sum);

// ---- pipelines, ZeRO, memory: exercises 6.5 to 6.9 ----------------------------------------------------

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

/// What a rank can do with the layers of a model of which it has a shard each.
struct ShardedLayers {
  virtual ~ShardedLayers() = default;
  virtual void start_gather(int layer) = 0;      // the other ranks' pieces begin to arrive
  virtual void finish_gather(int layer) = 0;     // now all values are here
  virtual void forward(int layer) = 0;           // needs the layer's values
  virtual void backward(int layer) = 0;          // needs them again; makes the layer's gradients
  virtual void reduce_gradients(int layer) = 0;  // each rank keeps its piece of the sum; the rest is let go
  virtual void release(int layer) = 0;           // the values are let go
};

/// 6.8 One step of ZeRO 3 over `layers` layers: forward from layer 0 to the last, then backward from the last
/// to layer 0, each layer's values gathered before use and released after it, in both directions. The next
/// layer's gather starts before the computation of the current one, so that it arrives meanwhile. So values
/// of two layers are there at most, none at the end, and gradients of one. (The last layer is gathered anew
/// for its backward, too.)
void zero3_step(int layers, ShardedLayers& model);

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

/// Messages between ranks that stand in a line. Both wait for each other: `send` returns when the other rank
/// has received.
struct BlockingLine {
  virtual ~BlockingLine() = default;
  virtual void send(int to, float value) = 0;
  virtual float receive(int from) = 0;
};

/// 6.10 Halo exchange: every rank needs the values of its neighbours rank - 1 and rank + 1; the first and the
/// last have one neighbour only, and 0 in place of the other. This program waits for ever, for all ranks send
/// and none receives:
///   if (rank > 0) line.send(rank - 1, mine);
///   if (rank < ranks - 1) line.send(rank + 1, mine);
///   if (rank > 0) left = line.receive(rank - 1);
///   if (rank < ranks - 1) right = line.receive(rank + 1);
/// (So would one in which all ranks send to the right first; and if the last one begins to receive, they go
/// one after the other, which is slow.) Mend it so that it takes four rounds of messages however many ranks
/// there are.
struct Neighbours {
  float left = 0, right = 0;
};
Neighbours exchange_with_neighbours(float mine, int rank, int ranks, BlockingLine& line);

}  // namespace llm::exercises::ch06
