// Tensor parallelism as the model sees it: the ranks that hold one model together, and what they say.
//
// Each of t ranks has some of the heads and a part of the feed-forward layer (Shoeybi et al. 2019,
// "Megatron-LM", section 3), and with sequence parallelism some of the positions between them (Korthikanti et
// al. 2022, "Reducing activation recomputation", section 4.2). The model knows four operations and not who
// carries them; common/parallel does. Chapter 6 explains it.
#pragma once

#include <cstdint>
#include <memory>

#include "common/core/tensor.h"
#include "common/model/config.h"
#include "common/model/parameter_store.h"

namespace llm {

/// The ranks of one tensor-parallel group, as one of them sees it. All of them call the same operations in
/// the same order with tensors of the same shapes, on the model's device; what they return is done.
class TensorGroup {
 public:
  virtual ~TensorGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// x = the sum, or the largest, of all ranks' x.
  virtual void all_reduce(const Tensor& x) = 0;
  virtual void all_reduce_max(const Tensor& x) = 0;
  /// part = this rank's piece of the sum of all ranks' x: x is of size() pieces, one after the other.
  virtual void reduce_scatter(const Tensor& part, const Tensor& x) = 0;
  /// all = the ranks' parts, one after the other.
  virtual void all_gather(const Tensor& all, const Tensor& part) = 0;
};

/// How a stage is built and runs.
struct StageOptions {
  std::shared_ptr<TensorGroup> tensor_group = nullptr;  // null: alone
  /// The residual stream, norms and dropout are shared out as well: each rank has the rows
  /// [r B T / t, (r + 1) B T / t) of (B T, C). T must be a multiple of t. Nothing changes alone.
  bool sequence_parallel = false;
  /// Keep only each block's input and compute the rest again in backward (Chen et al. 2016, "Training deep
  /// nets with sublinear memory cost").
  bool recompute = false;
};

/// Rank r's part of n things: [n r / t, n (r + 1) / t). Parts differ by at most one.
inline Slice share_of(std::int64_t n, int rank, int size) {
  return {n * rank / size, n * (rank + 1) / size};
}

/// UsageError unless the heads and hidden units of a model can be shared out evenly, and every rank gets a
/// row of the vocabulary.
void check_shares(const GptConfig& config, int ranks);

/// What one rank sends to the others, in elements, for one micro-batch of B sequences of T tokens (forward,
/// loss and backward): tensors over which the group ran each operation. An all-reduce of n elements sends 2 n
/// (t - 1) / t, a reduce-scatter into and an all-gather of n elements (t - 1) / t.
struct TensorTraffic {
  std::int64_t all_reduce = 0, reduce_scatter = 0,
               all_gather = 0;      // of the dtype that the model computes with
  std::int64_t statistics = 0;      // all-reduced, f32: the loss
  std::int64_t step_gradients = 0;  // all-reduced, f32, once per step: sum_partial_gradients
};
TensorTraffic tensor_traffic(const GptConfig& config, std::int64_t first_layer, std::int64_t last_layer,
                             std::int64_t batch, std::int64_t tokens, const StageOptions& options);

}  // namespace llm
