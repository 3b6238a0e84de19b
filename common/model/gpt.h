// GptStage: a range of a GPT's layers, with an explicit forward and backward.
//
// A stage owns the embedding if it holds the first layer and the final norm and head if it holds the
// last; the whole model is the stage that holds all. There is no tape: `forward` writes what backward
// needs into a `StageActivations` that the caller owns (and reuses from step to step, so that a step
// allocates nothing), and `backward` reads it. Several may be in flight at once. Chapter 4 explains it.
//
// A stage may be one of t shards that a tensor-parallel group holds together (chapter 6): the same block with
// H / t heads and a feed-forward layer of M / t, which the others complete through two hooks. In the shapes
// below t is 1 for a stage alone; with sequence parallelism (B, T, C) of the residual stream becomes (B, T /
// t, C), B T / t rows of the whole one after the other.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "common/core/philox.h"
#include "common/core/tensor.h"
#include "common/model/config.h"
#include "common/model/linear_adapter.h"
#include "common/model/parameter_store.h"
#include "common/model/tensor_parallel.h"
#include "common/ops/ops_decode.h"

namespace llm {

class TorchRandom;
struct AttentionOptions;
struct AttentionRows;
struct VocabularyShard;

/// The places where a GPT-2 drops, each with masks of its own in every layer and step.
enum class DropoutPlace : std::uint32_t { embedding, attention, attention_output, mlp_output };

/// Where one block's parameters stand in the store. kNoParameter where the configuration has no bias.
inline constexpr std::size_t kNoParameter = static_cast<std::size_t>(-1);
struct BlockParameters {
  std::size_t norm1_weight, norm1_bias, qkv_weight, qkv_bias, out_weight, out_bias;
  std::size_t norm2_weight, norm2_bias, up_weight, up_bias, down_weight, down_bias;
};

/// What one block's backward needs from its forward. Shapes for B sequences of T tokens.
struct BlockActivations {
  Tensor input;                // (B, T, C) the residual stream coming in
  Tensor norm1, mean1, rstd1;  // (B, T, C), (B T), (B T)
  Tensor qkv;                  // (B, T, 3C / t)
  Tensor attention, lse;       // (B, T, C / t), (B, H / t, T)
  Tensor middle;               // (B, T, C) the residual stream after attention
  Tensor norm2, mean2, rstd2;
  Tensor up, gelu;  // (B, T, mlp / t)
};

/// The memory behind activations: one buffer of the dtype that the model computes with, and one of f32 for
/// statistics. Sized on first use for (B, T); a smaller batch later reuses it, a larger one makes it anew.
struct ActivationMemory {
  Tensor values, statistics;
  std::int64_t bytes() const { return static_cast<std::int64_t>(values.bytes() + statistics.bytes()); }
};

/// Room that forward needs beside what it leaves for backward. All StageActivations of a stage may share one.
struct StageWorkspace {
  std::int64_t batch = 0, tokens = 0;
  Tensor all_rows;         // (B, T, C), with sequence parallelism
  BlockActivations block;  // with recomputation: of the block at work, but its input
  ActivationMemory memory;
  std::int64_t bytes() const { return memory.bytes(); }
};

/// What one forward pass of a stage leaves for its backward: views of one memory. With recomputation a
/// block's are those of the workspace but for its input.
struct StageActivations {
  std::int64_t batch = 0, tokens = 0;
  std::vector<BlockActivations> blocks;
  Tensor output;                              // (B, T, C) after the last block of the stage
  Tensor final_norm, final_mean, final_rstd;  // the last stage's
  Tensor losses;                              // (B, T), the last stage's
  ActivationMemory memory;
  std::shared_ptr<StageWorkspace> workspace;             // made on first use unless the caller gives one
  std::int64_t bytes() const { return memory.bytes(); }  // to be printed
};

/// Scratch of backward: a few (B, T, ...) buffers shared by all blocks.
struct StageScratch {
  std::int64_t batch = 0, tokens = 0;
  Tensor dstream;                  // (B, T, C) the gradient of the residual stream
  Tensor dnorm;                    // (B, T, C)
  Tensor dattention;               // (B, T, C / t)
  Tensor dqkv;                     // (B, T, 3C / t)
  Tensor dup;                      // (B, T, mlp / t)
  Tensor all_rows, all_norm_rows;  // (B, T, C), with sequence parallelism
  ActivationMemory memory;
  std::int64_t bytes() const { return memory.bytes(); }
};

/// A stage's parameters fall into units, neighbours in the store, that are used and completed together: unit
/// 0 is the embedding, 1, 2, ... are the blocks, and the last is the final norm and the head. A stage without
/// embedding or head has no parameters in that unit. A tied head's matrix is in the unit that owns it.
struct ParameterUnit {
  std::size_t first = 0, last = 0;  // parameters [first, last) of the store
};

/// Is told how far a pass is, unit by unit: so parameters can be fetched just before they are read and let go
/// after it, and gradients can be sent off while the rest of backward goes on (chapter 6).
class PassListener {
 public:
  virtual ~PassListener() = default;
  virtual void before_forward(std::size_t /*unit*/) {}
  virtual void after_forward(std::size_t /*unit*/) {}
  virtual void before_backward(std::size_t /*unit*/) {}
  virtual void after_backward(std::size_t /*unit*/) {}  // its gradients of this pass are complete
};

struct ForwardOptions {
  bool training = false;   // dropout applies only then
  std::uint64_t seed = 0;  // of the dropout
  std::uint64_t step = 0;  // optimizer step and micro-batch: they choose the mask
  // Global index of row 0 of this batch, so that masks do not depend on how rows are spread over ranks.
  std::uint64_t first_row = 0;
  // Of the embedding and the blocks; whoever calls `loss` knows when the head is used.
  PassListener* listener = nullptr;
  // Backward leaves out the embedding; `backward_embedding` is called later.
  bool defer_embedding = false;
  // Packed documents: where in the batch's B T positions each begins, increasing from 0, every row's first
  // position among them. A position then attends to its own document only, and positions count from the
  // document's start. Empty: every row is one document.
  std::span<const std::int64_t> documents = {};
};

/// Where a stage's numbers live and what it computes with. bf16 runs on `cuda` only; parameters are then kept
/// in f32, and activations and a copy of the parameters are bf16.
struct Placement {
  Device device = Device::cpu;
  DType dtype = DType::f32;
  FlatBuffers buffers = {};
};

/// Keys and values of all positions so far, per layer (B, H, S, D). Generation fills and reads it.
struct KvCache {
  std::vector<Tensor> keys, values;
  std::int64_t length = 0;    // positions filled
  std::int64_t capacity = 0;  // S
  ActivationMemory scratch;   // of decode, which so allocates nothing from token to token

  /// The same keys and values of some sequences only, as an empty cache of its own.
  KvCache rows(std::int64_t begin, std::int64_t end) const;
};

class GptStage {
 public:
  /// Layers [first_layer, last_layer) of `config`; zeros until initialised or loaded.
  /// The last stage of a pipeline has a tied embedding's matrix as well (Parameter::shared). UsageError if
  /// the model cannot be shared out evenly among the ranks of options.tensor_group.
  GptStage(const GptConfig& config, std::int64_t first_layer, std::int64_t last_layer,
           Placement placement = {}, StageOptions options = {});
  /// The whole model.
  explicit GptStage(const GptConfig& config, Placement placement = {}, StageOptions options = {})
      : GptStage(config, 0, config.layers, placement, std::move(options)) {}

  /// A copy of this stage there, its values the same. Initialising, loading and saving are done on the CPU in
  /// f32.
  GptStage placed(Placement placement) const;
  const Placement& placement() const { return placement_; }
  const StageOptions& options() const { return options_; }
  /// Shape of what this rank holds of the residual stream, and of its gradient: what a stage reads and
  /// writes.
  Shape stream_shape(std::int64_t batch, std::int64_t tokens) const {
    return {batch, tokens / row_shares(), config_.channels};
  }

  const GptConfig& config() const { return config_; }
  ParameterStore& parameters() { return parameters_; }
  const ParameterStore& parameters() const { return parameters_; }
  /// Embedding, blocks, head: always blocks + 2 units.
  std::vector<ParameterUnit> units() const;
  bool has_embedding() const { return first_layer_ == 0; }
  bool has_head() const { return last_layer_ == config_.layers; }

  /// GPT-2's initialisation (Radford et al. 2019, section 2.3): normal(0, initializer_range), residual
  /// projections scaled by 1/sqrt(2L), biases 0, norms 1; Philox by (seed, parameter name, element of the
  /// whole model's tensor). Those that are there, where parameters are attached unit by unit.
  void initialize(std::uint64_t seed);
  /// PyTorch's default initialisation drawn in the order token embedding, position embedding, per block Wq,
  /// Wk, Wv, output projection, the two feed-forward layers, then head. Whole model only.
  void initialize_like_torch(TorchRandom& random);

  /// input: tokens (B, T) i32, on either device, for a stage with the embedding; else the previous stage's
  /// output (B, T, C). Returns saved.output. T may be anything from 1 to the context (a multiple of t with
  /// sequence parallelism).
  const Tensor& forward(StageActivations& saved, const Tensor& input,
                        const ForwardOptions& options = {}) const;

  /// Last stage: final norm, head and loss of saved.output. `targets` (B, T) i32 on either device. Writes
  /// saved.losses (B, T) and, if `gradient_scale` is given, accumulates head gradients and leaves d(sum of
  /// scale * losses)/d(output) in scratch.dstream. Returns the sum of the losses (not averaged) over targets
  /// that are not -1. `weights` (B, T) f32, if defined, multiplies each position's share of the gradient; the
  /// losses are as without. All ranks of a tensor-parallel group get all losses.
  double loss(StageActivations& saved, StageScratch& scratch, const Tensor& targets,
              std::optional<float> gradient_scale, const Tensor& weights = Tensor());

  /// Last stage: the final norm (B, T, C) of saved.output, for heads other than the model's own.
  const Tensor& final_norm(StageActivations& saved) const;
  /// Its backward: scratch.dnorm holds d(loss)/d(final norm) on entry (`prepare` made room for it);
  /// scratch.dstream holds d(loss)/d(output) on return, for `backward`.
  void final_norm_backward(StageActivations& saved, StageScratch& scratch);

  /// Which parameters train, by name; all do at first. Frozen ones keep their values, and no time is spent on
  /// the gradients of frozen matrices or below the lowest layer that trains.
  void set_trainable(const std::function<bool(const Parameter&)>& trains);
  /// What is added to the linear layers of the blocks, of a shard its part of that; it must outlive the
  /// stage. nullptr: nothing.
  void attach(LinearAdapter* adapter) { adapter_ = adapter; }

  /// Last stage: logits (B, T, V) of saved.output, written into `logits`, which is f32 on the CPU wherever
  /// the stage is.
  void logits(const Tensor& logits, StageActivations& saved) const;

  /// Sizes the scratch for B sequences of T tokens. `loss` does it; a stage without the head calls it and
  /// then writes the gradient that the next stage sent into scratch.dstream.
  void prepare(StageScratch& scratch, std::int64_t batch, std::int64_t tokens) const;

  /// Backward through the stage's blocks (and the embedding): scratch.dstream holds d(loss)/d(output) on
  /// entry and d(loss)/d(input) on return. Parameter gradients accumulate. `input` and `options` as in
  /// forward.
  void backward(StageActivations& saved, StageScratch& scratch, const Tensor& input,
                const ForwardOptions& options = {});
  /// The embedding's part of backward: dstream (stream_shape) is the gradient of what the embedding put out,
  /// and is overwritten with dropout.
  void backward_embedding(const Tensor& dstream, const Tensor& input, const ForwardOptions& options = {});
  /// Adds up over the tensor-parallel group the gradients of which each rank has a part (Parameter::partial),
  /// of parameters [first, last) of the store. To be called once they are complete, after the last
  /// micro-batch of a step; does nothing without sequence parallelism.
  void sum_partial_gradients(ParameterUnit which) const;
  void sum_partial_gradients() const { sum_partial_gradients({0, parameters_.all().size()}); }

  /// An empty cache for `batch` sequences of at most `capacity` positions.
  KvCache make_cache(std::int64_t batch, std::int64_t capacity) const;
  /// Runs `tokens` (B, T) after the cache.length positions already seen, appends their keys and values, and
  /// writes the logits of the last position into `logits` (B, V), which is f32 on the CPU wherever the model
  /// is. Error if the cache is full. Whole model only.
  void decode(const Tensor& logits, KvCache& cache, const Tensor& tokens) const;
  /// The same for sequences of different lengths, one token each: tokens (N, 1) and logits (N, V) belong to
  /// the sequences at `places` of the cache (ops.h), whose own `length` plays no part. On the CPU the logits
  /// of a sequence have the bits that they would have alone.
  void decode(const Tensor& logits, KvCache& cache, const Tensor& tokens,
              std::span<const CachePlace> places) const;

 private:
  // Tensor parallelism, in gpt_tensor_parallel.cpp.
  bool split() const { return ranks_ > 1; }
  bool rows_split() const { return split() && options_.sequence_parallel; }
  std::int64_t row_shares() const { return rows_split() ? ranks_ : 1; }
  VocabularyShard vocabulary() const;
  const Tensor& f(const Tensor& x, const Tensor& room) const;
  void f_backward(const Tensor& dx, const Tensor& room) const;
  void g(const Tensor& y, const Tensor& room) const;
  const Tensor& g_backward(const Tensor& dy, const Tensor& room) const;
  const Tensor& part(const Tensor& y, const Tensor& room) const;
  void shard_loss(const Tensor& losses, const Tensor& dx, const Tensor& x, const Tensor& targets, float scale,
                  const Tensor& weights) const;
  Tensor gather_logits(const Tensor& local) const;

  void drop(const Tensor& y, const Tensor& x, const ForwardOptions& options, std::int64_t layer,
            DropoutPlace place) const;
  AttentionOptions attention_options(const ForwardOptions& options, std::int64_t layer,
                                     const AttentionRows& rows) const;
  template <typename Embedding, typename Attention>
  void decode_layers(const Tensor& logits, ActivationMemory& scratch, std::int64_t B, std::int64_t T,
                     const Embedding& embedding, const Attention& attention) const;
  void prepare(StageActivations& saved, std::int64_t batch, std::int64_t tokens) const;
  /// logits (..., V), f32 on the CPU, of normalised rows (..., C).
  void head_logits(const Tensor& logits, const Tensor& norm, bool generating = false) const;
  void forward_block(std::size_t index, const StageActivations& saved, const ForwardOptions& options) const;
  void forward_to_gelu(std::size_t index, const StageActivations& saved, const ForwardOptions& options) const;
  void backward_block(const BlockParameters& p, const BlockActivations& a, const StageScratch& scratch,
                      std::int64_t layer, const ForwardOptions& options);
  /// A block's linear layer with what is attached to it: y = x w^T + b + adapter(x), and its backward.
  void linear(const Tensor& y, const Tensor& x, std::size_t weight, std::size_t bias,
              const ForwardOptions& options) const;
  void linear_back(const Tensor& dx, const Tensor& dy, const Tensor& x, std::size_t weight, std::size_t bias,
                   const ForwardOptions& options);
  const Tensor& value(std::size_t index) const;          // to compute with; undefined for kNoParameter
  const Tensor& gradient(std::size_t index) const;       // undefined for kNoParameter and if frozen
  const Tensor& norm_gradient(std::size_t index) const;  // the same, but of a frozen norm it is there
  bool embedding_trains() const {
    return parameters_[token_embedding_].trains || parameters_[position_embedding_].trains;
  }
  /// The lowest block with something to train (the number of blocks: none); below it backward may stop.
  std::size_t lowest_trained() const;
  std::size_t bias_of_sum(std::size_t bias) const;
  void declare_parameters();

  GptConfig config_;
  std::int64_t first_layer_, last_layer_;
  Placement placement_;
  StageOptions options_;
  int rank_ = 0, ranks_ = 1;        // of the tensor-parallel group
  std::int64_t heads_, mlp_width_;  // of this rank
  ParameterStore parameters_;
  std::vector<BlockParameters> blocks_;
  std::size_t token_embedding_ = kNoParameter, position_embedding_ = kNoParameter;
  std::size_t final_norm_weight_ = kNoParameter, final_norm_bias_ = kNoParameter;
  std::size_t head_ = kNoParameter;  // the token embedding where they are tied
  LinearAdapter* adapter_ = nullptr;
};

}  // namespace llm
