// LoRA: a small product of two thin matrices beside a large frozen one.
//
// Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1:
//
//     y = x w^T + b + (alpha / r) (x A^T) B^T         w (O, I) frozen, A (r, I), B (O, r) trained
//
// A starts random and B zero, so that training starts at the model as it is. After training the product can
// be merged: w + (alpha / r) B A is a matrix like any other, and costs nothing more.
//
// Tensor parallelism (chapter 6) splits w by outputs or by inputs. The product follows: with w's outputs B is
// split and A is on every rank, with its inputs A is split and B is on every rank. Either way a rank's share
// of x A^T B^T is what it can compute alone, and the sum over ranks that the layer takes anyway completes it;
// but the rank has seen only a part of the gradient of what is whole (Parameter::partial). Chapter 7 explains
// it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/model/gpt.h"
#include "common/model/linear_adapter.h"
#include "common/model/parameter_store.h"

namespace llm {

// ---- the layer ------------------------------------------------------------------------------------

/// Thin matrices of one linear layer. With `parts` > 1 the rows of the layer's output fall into as many equal
/// parts with a rank-r product each (a fused query, key and value projection is three layers in one).
struct LowRank {
  Tensor a;  // (parts r, I)
  Tensor b;  // (O, r): rows [p O / parts, (p + 1) O / parts) are the B of part p
  float scale = 1;
  std::int64_t parts = 1;
  std::int64_t rank() const { return b.dim(1); }
};

/// y += scale (x A^T) B^T, part by part. x (..., I), y (..., O); h (N, parts r) is scratch.
void lora_forward(const Tensor& y, const Tensor& x, const LowRank& m, const Tensor& h);

/// dx += scale (dy B) A unless dx is undefined; dA and dB accumulate, in f32. h and dh (N, parts r) are
/// scratch. x is what the forward pass saw.
void lora_backward(const Tensor& dx, const Tensor& da, const Tensor& db, const Tensor& dy, const Tensor& x,
                   const LowRank& m, const Tensor& h, const Tensor& dh);

/// w += scale B A: the layer without its adapter, but with what it learned.
void lora_merge(const Tensor& w, const LowRank& m);

// ---- a model's adapters -----------------------------------------------------------------------------

struct LoraOptions {
  std::int64_t rank = 8;
  double alpha = 16;
  float dropout = 0;  // of the adapters' input, while training
  // Linear layers by the end of their names, as in PEFT: "c_proj" is attention's and the feed-forward's,
  // "attn.c_proj" attention's only, "h.0.attn.c_attn" one layer.
  std::vector<std::string> targets = {"c_attn", "c_proj", "c_fc"};
  bool split_qkv = false;  // adapters of their own for queries, keys and values
};

/// UsageError unless rank >= 1, alpha > 0 and 0 <= dropout < 1, and 0 where several ranks share a layer.
void validate(const LoraOptions& options, int tensor_ranks = 1);

/// Whether a linear layer of that name is among the targets.
bool is_target(const std::vector<std::string>& targets, const std::string& layer);

class LoraAdapters final : public LinearAdapter {
 public:
  /// Adapters for the linear layers of `model`'s blocks that `options` names: A uniform in
  /// +- 1 / sqrt(I) from (seed, name), B zero. Error if a target names no layer of the whole model; a stage
  /// may have none of them. Of a shard the parts that go with it. Not attached yet.
  LoraAdapters(const GptStage& model, const LoraOptions& options, std::uint64_t seed);

  void forward(const Tensor& y, const Tensor& x, std::size_t weight,
               const ForwardOptions& options) const override;
  void backward(const Tensor& dx, const Tensor& dy, const Tensor& x, std::size_t weight,
                const ForwardOptions& options) override;
  bool adapts(std::size_t weight) const override { return find(weight) != nullptr; }

  /// Adds every product to its layer in `model`. The adapters must then be detached.
  void merge(GptStage& model) const;

  ParameterStore& parameters() { return parameters_; }
  const ParameterStore& parameters() const { return parameters_; }

  /// Writes adapter_config.json and adapter_model.safetensors as PEFT reads them. Split query, key and value
  /// adapters become one of three times the rank. `base` names the model folder.
  void save_peft(const std::filesystem::path& folder, const std::string& base) const;
  /// Reads what PEFT, or save_peft, wrote for a GPT-2. Error, one sentence, if something does not fit.
  static LoraAdapters load_peft(const std::filesystem::path& folder, const GptStage& model);

 private:
  struct Layer {
    std::string name;            // "h.0.attn.c_attn"
    std::size_t weight;          // its index in the model's store
    std::int64_t in, out, rank;  // of each part, as it stands here
    double alpha;
    std::int64_t parts;
    std::size_t a = 0, b = 0;  // in our store
  };
  LoraAdapters(const GptStage& model, std::vector<Layer> layers, float dropout,
               std::vector<std::string> targets);
  const Layer* find(std::size_t weight) const;
  LowRank matrices(const Layer& layer) const;
  /// `x`, or, while training with dropout, a copy with dropped elements.
  Tensor dropped(const Tensor& x, const Layer& layer, const ForwardOptions& options) const;

  std::vector<Layer> layers_;
  float dropout_ = 0;
  std::vector<std::string> targets_;
  ParameterStore parameters_;
  mutable Tensor h_, dh_;  // scratch, as large as needed so far
};

}  // namespace llm
