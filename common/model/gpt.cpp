// Forward and backward of a range of GPT layers. See gpt.h.
#include "common/model/gpt.h"

#include <fmt/format.h>

#include "common/core/error.h"
#include "common/ops/ops.h"

namespace llm {

namespace {

/// The places where a GPT-2 drops, each with masks of its own in every layer and step.
enum class DropoutPlace : std::uint32_t { embedding, attention, attention_output, mlp_output };

/// The stream of random numbers of one place, layer and step: a hash of the three (Philox is a good one).
Philox dropout_stream(const ForwardOptions& options, std::int64_t layer, DropoutPlace place) {
  constexpr std::uint64_t kName = stream_id("dropout");
  const auto words =
      philox4x32({static_cast<std::uint32_t>(options.step), static_cast<std::uint32_t>(options.step >> 32),
                  static_cast<std::uint32_t>(layer), static_cast<std::uint32_t>(place)},
                 {static_cast<std::uint32_t>(kName), static_cast<std::uint32_t>(kName >> 32)});
  return {.seed = options.seed, .stream = (std::uint64_t{words[1]} << 32) | words[0]};
}

/// Dropout of activations (B, T, C), or its backward. The mask depends on the global row alone.
void drop(const Tensor& y, const Tensor& x, float p, const ForwardOptions& options, std::int64_t layer,
          DropoutPlace place) {
  const auto row = static_cast<std::uint64_t>(x.dim(1) * x.dim(2));
  dropout(y, x, p, dropout_stream(options, layer, place), options.first_row * row);
}

/// What attention sees at once: all rows of a batch, or one document that was packed into a row.
struct Rows {
  std::int64_t batch, tokens;  // (B, T), or (1, its length)
  std::int64_t first;          // its first position in the batch
  std::int64_t row_tokens;     // T of the batch
  bool all;

  Tensor of(const Tensor& t) const {  // (B, T, ...) -> (1, length, ...)
    if (all) return t;
    const std::int64_t inner = t.numel() / positions(t);
    return t.rank() == 2 ? t.range(first, {1, tokens}) : t.range(first * inner, {1, tokens, inner});
  }
  Tensor statistics(const Tensor& t) const {  // (B, H, T), here as (1, H, length) one after the other
    if (all) return t;
    const std::int64_t heads = t.dim(1);
    return t.range(first * heads, {1, heads, tokens});
  }
  static std::int64_t positions(const Tensor& t) { return t.dim(0) * t.dim(1); }
};

template <typename Each>
void for_each_document(const ForwardOptions& options, std::int64_t batch, std::int64_t tokens,
                       const Each& each) {
  if (options.documents.empty()) return each(Rows{batch, tokens, 0, tokens, true});
  for (std::size_t i = 0; i < options.documents.size(); ++i) {
    const std::int64_t begin = options.documents[i];
    const std::int64_t end = i + 1 < options.documents.size() ? options.documents[i + 1] : batch * tokens;
    each(Rows{1, end - begin, begin, tokens, false});
  }
}

/// Documents begin at increasing positions, the first at 0, and none crosses the end of a row.
void check_documents(const ForwardOptions& options, std::int64_t batch, std::int64_t tokens) {
  if (options.documents.empty()) return;
  check(options.documents.front() == 0, "the first document of a batch begins at position 0, not at {}",
        options.documents.front());
  for (std::size_t i = 0; i < options.documents.size(); ++i) {
    const std::int64_t begin = options.documents[i];
    const std::int64_t end = i + 1 < options.documents.size() ? options.documents[i + 1] : batch * tokens;
    check(begin < end && begin / tokens == (end - 1) / tokens && end <= batch * tokens,
          "a document cannot take positions {} to {} of {} rows of {} tokens", begin, end - 1, batch, tokens);
  }
}

AttentionOptions attention_options(const GptConfig& c, const ForwardOptions& options, std::int64_t layer,
                                   const Rows& rows) {
  AttentionOptions attention{.heads = c.heads};
  if (options.training && c.dropout > 0) {
    attention.dropout = c.dropout;
    attention.rng = dropout_stream(options, layer, DropoutPlace::attention);
    // Weights of a row of T positions: H T T. A document at position t begins with those of row t.
    const auto per_position = static_cast<std::uint64_t>(c.heads * rows.row_tokens);
    attention.first_index = options.first_row * per_position * static_cast<std::uint64_t>(rows.row_tokens) +
                            static_cast<std::uint64_t>(rows.first) * per_position;
  }
  return attention;
}

}  // namespace

GptStage::GptStage(const GptConfig& config, std::int64_t first_layer, std::int64_t last_layer,
                   Placement placement)
    : config_(config), first_layer_(first_layer), last_layer_(last_layer), placement_(placement) {
  validate(config);
  check(placement.dtype == DType::f32 || (placement.dtype == DType::bf16 && placement.device == Device::cuda),
        "a model computes in f32, or on the device cuda in bf16; {} on {} cannot be had",
        name(placement.dtype), name(placement.device));
  check(first_layer >= 0 && first_layer <= last_layer && last_layer <= config.layers,
        "layers {} to {} are no range of a model's {} layers", first_layer, last_layer, config.layers);
  const std::int64_t C = config.channels;
  const std::int64_t M = config.mlp_width();
  const auto matrix = [&](const std::string& name, std::int64_t out, std::int64_t in) {
    return parameters_.declare(name, {out, in}, /*decay=*/true);
  };
  const auto vector = [&](const std::string& name, std::int64_t size, bool wanted = true) {
    return wanted ? parameters_.declare(name, {size}, /*decay=*/false) : kNoParameter;
  };
  if (has_embedding()) {
    token_embedding_ = matrix("wte.weight", config.vocab_size, C);
    position_embedding_ = matrix("wpe.weight", config.context, C);
  }
  for (std::int64_t layer = first_layer; layer < last_layer; ++layer) {
    const std::string h = fmt::format("h.{}.", layer);
    BlockParameters p{};
    p.norm1_weight = vector(h + "ln_1.weight", C);
    p.norm1_bias = vector(h + "ln_1.bias", C, config.bias);
    p.qkv_weight = matrix(h + "attn.c_attn.weight", 3 * C, C);
    p.qkv_bias = vector(h + "attn.c_attn.bias", 3 * C, config.qkv_bias);
    p.out_weight = matrix(h + "attn.c_proj.weight", C, C);
    p.out_bias = vector(h + "attn.c_proj.bias", C, config.bias);
    p.norm2_weight = vector(h + "ln_2.weight", C);
    p.norm2_bias = vector(h + "ln_2.bias", C, config.bias);
    p.up_weight = matrix(h + "mlp.c_fc.weight", M, C);
    p.up_bias = vector(h + "mlp.c_fc.bias", M, config.bias);
    p.down_weight = matrix(h + "mlp.c_proj.weight", C, M);
    p.down_bias = vector(h + "mlp.c_proj.bias", C, config.bias);
    blocks_.push_back(p);
  }
  if (has_head()) {
    final_norm_weight_ = vector("ln_f.weight", C);
    final_norm_bias_ = vector("ln_f.bias", C, config.bias);
    if (config.tied_head && has_embedding())
      head_ = token_embedding_;
    else
      head_ = matrix(config.tied_head ? "wte.weight" : "lm_head.weight", config.vocab_size, C);
  }
  parameters_.allocate(placement.device, placement.dtype, placement.buffers);
}

std::vector<ParameterUnit> GptStage::units() const {
  std::vector<ParameterUnit> units;
  const std::size_t embedding_end = has_embedding() ? position_embedding_ + 1 : 0;
  units.push_back({0, embedding_end});
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const std::size_t end = i + 1 < blocks_.size() ? blocks_[i + 1].norm1_weight
                            : has_head()           ? final_norm_weight_
                                                   : parameters_.all().size();
    units.push_back({blocks_[i].norm1_weight, end});
  }
  units.push_back({has_head() ? final_norm_weight_ : parameters_.all().size(), parameters_.all().size()});
  return units;
}

GptStage GptStage::placed(Placement placement) const {
  GptStage copy(config_, first_layer_, last_layer_, placement);
  copy.parameters_.values().copy_from(parameters_.values());
  copy.parameters_.round_values();
  return copy;
}

namespace {

const Tensor kUndefined;

using Event = void (PassListener::*)(std::size_t);
void tell(const ForwardOptions& options, Event event, std::size_t unit) {
  if (options.listener) (options.listener->*event)(unit);
}

}  // namespace

const Tensor& GptStage::value(std::size_t index) const {
  return index == kNoParameter ? kUndefined : parameters_[index].working;
}

const Tensor& GptStage::gradient(std::size_t index) const {
  return index == kNoParameter || !parameters_[index].trains ? kUndefined : parameters_[index].gradient;
}

const Tensor& GptStage::norm_gradient(std::size_t index) const {
  return index == kNoParameter ? kUndefined : parameters_[index].gradient;
}

void GptStage::set_trainable(const std::function<bool(const Parameter&)>& trains) {
  for (std::size_t i = 0; i < parameters_.all().size(); ++i)
    parameters_.set_trains(i, trains(parameters_[i]));
}

std::size_t GptStage::lowest_trained() const {
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const BlockParameters& p = blocks_[i];
    for (const std::size_t weight : {p.qkv_weight, p.out_weight, p.up_weight, p.down_weight})
      if (adapter_ && adapter_->adapts(weight)) return i;
    for (const std::size_t index :
         {p.norm1_weight, p.norm1_bias, p.qkv_weight, p.qkv_bias, p.out_weight, p.out_bias, p.norm2_weight,
          p.norm2_bias, p.up_weight, p.up_bias, p.down_weight, p.down_bias})
      if (index != kNoParameter && parameters_[index].trains) return i;
  }
  return blocks_.size();
}

void GptStage::linear(const Tensor& y, const Tensor& x, std::size_t weight, std::size_t bias,
                      const ForwardOptions& options) const {
  linear_forward(y, x, value(weight), value(bias));
  if (adapter_) adapter_->forward(y, x, weight, options);
}

void GptStage::linear_back(const Tensor& dx, const Tensor& dy, const Tensor& x, std::size_t weight,
                           std::size_t bias, const ForwardOptions& options) {
  linear_backward(dx, gradient(weight), gradient(bias), dy, x, value(weight));
  if (adapter_) adapter_->backward(dx, dy, x, weight, options);
}

const Tensor& GptStage::forward(StageActivations& saved, const Tensor& input,
                                const ForwardOptions& options) const {
  if (has_embedding())
    check(input.rank() == 2 && input.dtype() == DType::i32, "a model reads tokens (B, T) i32, got {} {}",
          name(input.dtype()), to_string(input.shape()));
  else
    check(input.rank() == 3 && input.dim(2) == config_.channels && input.dtype() == placement_.dtype,
          "this stage reads activations (B, T, {}) {}, got {} {}", config_.channels, name(placement_.dtype),
          name(input.dtype()), to_string(input.shape()));
  const std::int64_t T = input.dim(1);
  check(input.dim(0) >= 1 && T >= 1, "a batch needs at least one sequence of one token, got {}",
        to_string(input.shape()));
  check(T <= config_.context, "a sequence of {} tokens does not fit into the model's context of {}", T,
        config_.context);
  check_documents(options, input.dim(0), T);
  prepare(saved, input.dim(0), T);

  const Tensor& stream = saved.blocks.empty() ? saved.output : saved.blocks.front().input;
  if (has_embedding()) {
    tell(options, &PassListener::before_forward, 0);
    const Tensor tokens = input.to(placement_.device);
    for_each_document(options, saved.batch, T, [&](const Rows& rows) {
      embedding_forward(rows.of(stream), rows.of(tokens), value(token_embedding_),
                        value(position_embedding_));
    });
    if (options.training && config_.dropout > 0)
      drop(stream, stream, config_.dropout, options, 0, DropoutPlace::embedding);
    tell(options, &PassListener::after_forward, 0);
  } else {
    stream.copy_from(input);
  }
  if (!blocks_.empty()) {
    tell(options, &PassListener::before_forward, 1);
    const BlockActivations& a = saved.blocks.front();
    layer_norm_forward(a.norm1, a.mean1, a.rstd1, a.input, value(blocks_[0].norm1_weight),
                       value(blocks_[0].norm1_bias), config_.layer_norm_eps);
  }
  for (std::size_t i = 0; i < blocks_.size(); ++i) forward_block(i, saved, options);
  return saved.output;
}

// Two residual branches, each behind its layer norm ("pre-norm", Radford et al. 2019, section 2.3):
//   middle = input  + dropout(attention(norm1(input)))
//   output = middle + dropout(mlp(norm2(middle)))
// The sum that ends a branch and the norm that begins the next are one operation, which reads the stream
// once; so norm1 is there already, and the next block's is made here.
void GptStage::forward_block(std::size_t index, const StageActivations& saved,
                             const ForwardOptions& options) const {
  const BlockParameters& p = blocks_[index];
  const BlockActivations& a = saved.blocks[index];
  const std::int64_t layer = first_layer_ + static_cast<std::int64_t>(index);
  const bool dropping = options.training && config_.dropout > 0;
  linear(a.qkv, a.norm1, p.qkv_weight, p.qkv_bias, options);  // (B, T, C) -> (B, T, 3C)
  for_each_document(options, saved.batch, saved.tokens, [&](const Rows& rows) {
    attention_flash_forward(rows.of(a.attention), rows.statistics(a.lse), rows.of(a.qkv),
                            attention_options(config_, options, layer, rows));
  });
  linear(a.middle, a.attention, p.out_weight, p.out_bias, options);
  if (dropping) drop(a.middle, a.middle, config_.dropout, options, layer, DropoutPlace::attention_output);
  add_layer_norm_forward(a.middle, a.norm2, a.mean2, a.rstd2, a.middle, a.input, value(p.norm2_weight),
                         value(p.norm2_bias), config_.layer_norm_eps);

  const bool last = index + 1 == blocks_.size();
  const Tensor& output = last ? saved.output : saved.blocks[index + 1].input;
  if (adapter_ && adapter_->adapts(p.up_weight)) {  // (B, T, C) -> (B, T, mlp)
    linear(a.up, a.norm2, p.up_weight, p.up_bias, options);
    gelu_forward(a.gelu, a.up);
  } else {
    linear_gelu_forward(a.gelu, a.up, a.norm2, value(p.up_weight), value(p.up_bias));
  }
  linear(output, a.gelu, p.down_weight, p.down_bias, options);  // (B, T, mlp) -> (B, T, C)
  if (dropping) drop(output, output, config_.dropout, options, layer, DropoutPlace::mlp_output);
  tell(options, &PassListener::after_forward, index + 1);
  if (last) {
    add(output, output, a.middle);
  } else {
    tell(options, &PassListener::before_forward, index + 2);
    const BlockParameters& next = blocks_[index + 1];
    const BlockActivations& b = saved.blocks[index + 1];
    add_layer_norm_forward(output, b.norm1, b.mean1, b.rstd1, output, a.middle, value(next.norm1_weight),
                           value(next.norm1_bias), config_.layer_norm_eps);
  }
}

// The same lines from last to first. scratch.dstream is the gradient of the residual stream: of output at
// the start, of middle in between, of input at the end. Each branch adds its share within the backward of
// its layer norm.
void GptStage::backward_block(const BlockParameters& p, const BlockActivations& a, const StageScratch& s,
                              std::int64_t layer, const ForwardOptions& options) {
  const bool dropping = options.training && config_.dropout > 0;
  const Tensor& dbranch = dropping ? s.dnorm : s.dstream;
  if (dropping) drop(dbranch, s.dstream, config_.dropout, options, layer, DropoutPlace::mlp_output);
  linear_back(s.dup, dbranch, a.gelu, p.down_weight, p.down_bias, options);
  gelu_backward(s.dup, s.dup, a.up);
  linear_back(s.dnorm, s.dup, a.norm2, p.up_weight, p.up_bias, options);
  layer_norm_backward(s.dstream, norm_gradient(p.norm2_weight), norm_gradient(p.norm2_bias), s.dnorm,
                      a.middle, value(p.norm2_weight), a.mean2, a.rstd2, s.dstream);

  if (dropping) drop(dbranch, s.dstream, config_.dropout, options, layer, DropoutPlace::attention_output);
  linear_back(s.dattention, dbranch, a.attention, p.out_weight, p.out_bias, options);
  for_each_document(options, a.input.dim(0), a.input.dim(1), [&](const Rows& rows) {
    attention_flash_backward(rows.of(s.dqkv), rows.of(s.dattention), rows.of(a.attention),
                             rows.statistics(a.lse), rows.of(a.qkv),
                             attention_options(config_, options, layer, rows));
  });
  linear_back(s.dnorm, s.dqkv, a.norm1, p.qkv_weight, p.qkv_bias, options);
  layer_norm_backward(s.dstream, norm_gradient(p.norm1_weight), norm_gradient(p.norm1_bias), s.dnorm, a.input,
                      value(p.norm1_weight), a.mean1, a.rstd1, s.dstream);
}

double GptStage::loss(StageActivations& saved, StageScratch& scratch, const Tensor& targets,
                      std::optional<float> gradient_scale, const Tensor& weights) {
  final_norm(saved);
  const Tensor wanted = targets.to(placement_.device);
  if (gradient_scale) {
    prepare(scratch, saved.batch, saved.tokens);
    linear_cross_entropy(saved.losses, scratch.dnorm, gradient(head_), saved.final_norm, value(head_), wanted,
                         *gradient_scale, weights.defined() ? weights.to(placement_.device) : weights);
    final_norm_backward(saved, scratch);
  } else {
    linear_cross_entropy_forward(saved.losses, saved.final_norm, value(head_), wanted);
  }
  double sum = 0;
  const Tensor losses = saved.losses.to(Device::cpu);
  for (const float loss : losses.span()) sum += loss;
  return sum;
}

const Tensor& GptStage::final_norm(StageActivations& saved) const {
  check(has_head(), "only the stage with the last layer has a final norm and a head");
  check(saved.output.defined(), "the final norm needs a forward pass first");
  layer_norm_forward(saved.final_norm, saved.final_mean, saved.final_rstd, saved.output,
                     value(final_norm_weight_), value(final_norm_bias_), config_.layer_norm_eps);
  return saved.final_norm;
}

void GptStage::final_norm_backward(StageActivations& saved, StageScratch& scratch) {
  layer_norm_backward(scratch.dstream, norm_gradient(final_norm_weight_), norm_gradient(final_norm_bias_),
                      scratch.dnorm, saved.output, value(final_norm_weight_), saved.final_mean,
                      saved.final_rstd, {});
}

void GptStage::logits(const Tensor& logits, StageActivations& saved) const {
  head_logits(logits, final_norm(saved));
}

void GptStage::head_logits(const Tensor& logits, const Tensor& norm) const {
  if (placement_.device == Device::cpu) {
    linear_forward(logits, norm, value(head_), {});  // (..., C) -> (..., V)
    return;
  }
  Tensor there = Tensor::uninitialized(logits.shape(), placement_.dtype, placement_.device);
  linear_forward(there, norm, value(head_), {});
  if (placement_.dtype != DType::f32) {
    const Tensor wide = Tensor::uninitialized(logits.shape(), DType::f32, placement_.device);
    cast(wide, there);
    there = wide;
  }
  logits.copy_from(there);
}

void GptStage::backward(StageActivations& saved, StageScratch& scratch, const Tensor& input,
                        const ForwardOptions& options) {
  check(saved.batch == input.dim(0) && saved.tokens == input.dim(1),
        "backward has activations of ({}, {}) tokens, but an input of shape {}", saved.batch, saved.tokens,
        to_string(input.shape()));
  check(scratch.batch == saved.batch && scratch.tokens == saved.tokens,
        "backward has activations of ({}, {}) tokens, but the gradient of ({}, {})", saved.batch,
        saved.tokens, scratch.batch, scratch.tokens);
  // Another stage may wait for the gradient of the input; below the lowest layer that trains nobody does.
  const std::size_t lowest = has_embedding() && !embedding_trains() ? lowest_trained() : 0;
  for (std::size_t i = blocks_.size(); i-- > lowest;) {
    tell(options, &PassListener::before_backward, i + 1);
    backward_block(blocks_[i], saved.blocks[i], scratch, first_layer_ + static_cast<std::int64_t>(i),
                   options);
    tell(options, &PassListener::after_backward, i + 1);
  }
  if (has_embedding() && !options.defer_embedding) backward_embedding(scratch.dstream, input, options);
}

void GptStage::backward_embedding(const Tensor& dstream, const Tensor& input, const ForwardOptions& options) {
  check(has_embedding(), "only the stage with the first layer has an embedding");
  if (!embedding_trains()) return;
  tell(options, &PassListener::before_backward, 0);
  if (options.training && config_.dropout > 0)
    drop(dstream, dstream, config_.dropout, options, 0, DropoutPlace::embedding);
  const Tensor tokens = input.to(placement_.device);
  for_each_document(options, tokens.dim(0), tokens.dim(1), [&](const Rows& rows) {
    embedding_backward(parameters_[token_embedding_].gradient, parameters_[position_embedding_].gradient,
                       rows.of(dstream), rows.of(tokens));
  });
  tell(options, &PassListener::after_backward, 0);
}

}  // namespace llm
