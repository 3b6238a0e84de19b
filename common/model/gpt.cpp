// Forward and backward of a range of GPT layers. See gpt.h; its parameters are in gpt_parameters.cpp.
#include "common/model/gpt.h"

#include "common/core/error.h"
#include "common/ops/ops.h"

namespace llm {

/// What attention sees at once: all rows of a batch, or one document that was packed into a row.
struct AttentionRows {
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

namespace {

/// The stream of random numbers of one place, layer and step: a hash of the three (Philox is a good one).
Philox dropout_stream(const ForwardOptions& options, std::int64_t layer, DropoutPlace place) {
  constexpr std::uint64_t kName = stream_id("dropout");
  const auto words =
      philox4x32({static_cast<std::uint32_t>(options.step), static_cast<std::uint32_t>(options.step >> 32),
                  static_cast<std::uint32_t>(layer), static_cast<std::uint32_t>(place)},
                 {static_cast<std::uint32_t>(kName), static_cast<std::uint32_t>(kName >> 32)});
  return {.seed = options.seed, .stream = (std::uint64_t{words[1]} << 32) | words[0]};
}

template <typename Each>
void for_each_document(const ForwardOptions& options, std::int64_t batch, std::int64_t tokens,
                       const Each& each) {
  if (options.documents.empty()) return each(AttentionRows{batch, tokens, 0, tokens, true});
  for (std::size_t i = 0; i < options.documents.size(); ++i) {
    const std::int64_t begin = options.documents[i];
    const std::int64_t end = i + 1 < options.documents.size() ? options.documents[i + 1] : batch * tokens;
    each(AttentionRows{1, end - begin, begin, tokens, false});
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

}  // namespace

/// Dropout of the residual stream (B, T, C), or its backward. The mask depends on the element's place in the
/// global batch alone.
void GptStage::drop(const Tensor& y, const Tensor& x, const ForwardOptions& options, std::int64_t layer,
                    DropoutPlace place) const {
  const auto sequence = static_cast<std::uint64_t>(x.dim(1) * row_shares() * x.dim(2));
  const auto mine = static_cast<std::uint64_t>(rows_split() ? rank_ * x.numel() : 0);
  dropout(y, x, config_.dropout, dropout_stream(options, layer, place), options.first_row * sequence + mine);
}

AttentionOptions GptStage::attention_options(const ForwardOptions& options, std::int64_t layer,
                                             const AttentionRows& rows) const {
  AttentionOptions attention{.heads = heads_};
  if (options.training && config_.dropout > 0) {
    attention.dropout = config_.dropout;
    attention.rng = dropout_stream(options, layer, DropoutPlace::attention);
    attention.all_heads = config_.heads;
    // Weights of a row of T positions: H T T. A document at position t begins with those of row t.
    const auto per_position = static_cast<std::uint64_t>(config_.heads * rows.row_tokens);
    attention.first_index = options.first_row * per_position * static_cast<std::uint64_t>(rows.row_tokens) +
                            static_cast<std::uint64_t>(rows.first) * per_position +
                            static_cast<std::uint64_t>(rank_ * heads_ * rows.tokens * rows.tokens);
  }
  return attention;
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

/// The bias of a layer whose results the ranks add up: it is one rank's to add.
std::size_t GptStage::bias_of_sum(std::size_t bias) const {
  return rank_ == 0 ? bias : kNoParameter;
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
  const std::int64_t T = input.dim(1) * (has_embedding() ? 1 : row_shares());
  check(input.dim(0) >= 1 && T >= 1, "a batch needs at least one sequence of one token, got {}",
        to_string(input.shape()));
  check(T <= config_.context, "a sequence of {} tokens does not fit into the model's context of {}", T,
        config_.context);
  if (T % row_shares() != 0)
    fail_usage("sequence parallelism shares out a sequence's tokens evenly, but {} ranks cannot share {}",
               ranks_, T);
  check_documents(options, input.dim(0), T);
  prepare(saved, input.dim(0), T);
  const Tensor& room = saved.workspace->all_rows;

  const Tensor& stream = saved.blocks.empty() ? saved.output : saved.blocks.front().input;
  if (has_embedding()) {
    tell(options, &PassListener::before_forward, 0);
    const Tensor tokens = input.to(placement_.device);
    for_each_document(options, saved.batch, T, [&](const AttentionRows& rows) {
      embedding_forward(rows.of(part(stream, room)), rows.of(tokens), value(token_embedding_),
                        value(position_embedding_), 0, vocabulary());
    });
    g(stream, room);
    if (options.training && config_.dropout > 0) drop(stream, stream, options, 0, DropoutPlace::embedding);
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
//
// Of each branch a shard has the heads or hidden units of its rank. f and g are the two places where the
// ranks meet: f before the branch's first product, g behind its last. Both do nothing alone.
void GptStage::forward_block(std::size_t index, const StageActivations& saved,
                             const ForwardOptions& options) const {
  forward_to_gelu(index, saved, options);
  const BlockParameters& p = blocks_[index];
  const BlockActivations& a = saved.blocks[index];
  const Tensor& room = saved.workspace->all_rows;
  const bool last = index + 1 == blocks_.size();
  const Tensor& output = last ? saved.output : saved.blocks[index + 1].input;
  linear(part(output, room), a.gelu, p.down_weight, bias_of_sum(p.down_bias),
         options);  // (B, T, mlp / t) -> (B, T, C)
  g(output, room);
  if (options.training && config_.dropout > 0)
    drop(output, output, options, first_layer_ + static_cast<std::int64_t>(index), DropoutPlace::mlp_output);
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

/// From norm1 on, all of a block that its backward reads.
void GptStage::forward_to_gelu(std::size_t index, const StageActivations& saved,
                               const ForwardOptions& options) const {
  const BlockParameters& p = blocks_[index];
  const BlockActivations& a = saved.blocks[index];
  const Tensor& room = saved.workspace->all_rows;
  const std::int64_t layer = first_layer_ + static_cast<std::int64_t>(index);
  linear(a.qkv, f(a.norm1, room), p.qkv_weight, p.qkv_bias, options);  // (B, T, C) -> (B, T, 3C / t)
  for_each_document(options, saved.batch, saved.tokens, [&](const AttentionRows& rows) {
    attention_flash_forward(rows.of(a.attention), rows.statistics(a.lse), rows.of(a.qkv),
                            attention_options(options, layer, rows));
  });
  linear(part(a.middle, room), a.attention, p.out_weight, bias_of_sum(p.out_bias),
         options);  // (B, T, C / t) -> (B, T, C)
  g(a.middle, room);
  if (options.training && config_.dropout > 0)
    drop(a.middle, a.middle, options, layer, DropoutPlace::attention_output);
  add_layer_norm_forward(a.middle, a.norm2, a.mean2, a.rstd2, a.middle, a.input, value(p.norm2_weight),
                         value(p.norm2_bias), config_.layer_norm_eps);
  const Tensor& rows = f(a.norm2, room);
  if (adapter_ && adapter_->adapts(p.up_weight)) {  // (B, T, C) -> (B, T, mlp / t)
    linear(a.up, rows, p.up_weight, p.up_bias, options);
    gelu_forward(a.gelu, a.up);
  } else {
    linear_gelu_forward(a.gelu, a.up, rows, value(p.up_weight), value(p.up_bias));
  }
}

// The same lines from last to first. scratch.dstream is the gradient of the residual stream: of output at
// the start, of middle in between, of input at the end. Each branch adds its share within the backward of
// its layer norm. With sequence parallelism the rows of a norm's result are gathered once more rather than
// kept (Korthikanti et al. 2022, section 4.2.2).
void GptStage::backward_block(const BlockParameters& p, const BlockActivations& a, const StageScratch& s,
                              std::int64_t layer, const ForwardOptions& options) {
  const bool dropping = options.training && config_.dropout > 0;
  const Tensor& dbranch = dropping ? s.dnorm : s.dstream;
  const Tensor& room = s.all_rows;
  if (dropping) drop(dbranch, s.dstream, options, layer, DropoutPlace::mlp_output);
  linear_back(s.dup, g_backward(dbranch, room), a.gelu, p.down_weight, p.down_bias, options);
  gelu_backward(s.dup, s.dup, a.up, a.gelu);
  linear_back(part(s.dnorm, room), s.dup, f(a.norm2, s.all_norm_rows), p.up_weight, p.up_bias, options);
  f_backward(s.dnorm, room);
  layer_norm_backward(s.dstream, norm_gradient(p.norm2_weight), norm_gradient(p.norm2_bias), s.dnorm,
                      a.middle, value(p.norm2_weight), a.mean2, a.rstd2, s.dstream);

  if (dropping) drop(dbranch, s.dstream, options, layer, DropoutPlace::attention_output);
  linear_back(s.dattention, g_backward(dbranch, room), a.attention, p.out_weight, p.out_bias, options);
  for_each_document(options, s.batch, s.tokens, [&](const AttentionRows& rows) {
    attention_flash_backward(rows.of(s.dqkv), rows.of(s.dattention), rows.of(a.attention),
                             rows.statistics(a.lse), rows.of(a.qkv), attention_options(options, layer, rows));
  });
  linear_back(part(s.dnorm, room), s.dqkv, f(a.norm1, s.all_norm_rows), p.qkv_weight, p.qkv_bias, options);
  f_backward(s.dnorm, room);
  layer_norm_backward(s.dstream, norm_gradient(p.norm1_weight), norm_gradient(p.norm1_bias), s.dnorm, a.input,
                      value(p.norm1_weight), a.mean1, a.rstd1, s.dstream);
}

double GptStage::loss(StageActivations& saved, StageScratch& scratch, const Tensor& targets,
                      std::optional<float> gradient_scale, const Tensor& weights) {
  const Tensor& x = f(final_norm(saved), saved.workspace->all_rows);
  const Tensor wanted = targets.to(placement_.device);
  if (gradient_scale) {
    prepare(scratch, saved.batch, saved.tokens);
    const Tensor& dx = part(scratch.dnorm, scratch.all_rows);
    const Tensor shares = weights.defined() ? weights.to(placement_.device) : weights;
    if (split())
      shard_loss(saved.losses, dx, x, wanted, *gradient_scale, shares);
    else
      linear_cross_entropy(saved.losses, dx, gradient(head_), x, value(head_), wanted, *gradient_scale,
                           shares);
    f_backward(scratch.dnorm, scratch.all_rows);
    final_norm_backward(saved, scratch);
  } else if (split()) {
    shard_loss(saved.losses, {}, x, wanted, 0, {});
  } else {
    linear_cross_entropy_forward(saved.losses, x, value(head_), wanted);
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
  head_logits(logits, f(final_norm(saved), saved.workspace->all_rows));
}

void GptStage::head_logits(const Tensor& logits, const Tensor& norm, bool generating) const {
  if (placement_.device == Device::cpu && !split()) {  // (..., C) -> (..., V)
    generating ? linear_decode(logits, norm, value(head_), {})
               : linear_forward(logits, norm, value(head_), {});
    return;
  }
  Shape shape = logits.shape();
  shape.back() = value(head_).dim(0);
  Tensor there = Tensor::uninitialized(shape, placement_.dtype, placement_.device);
  linear_forward(there, norm, value(head_), {});
  if (placement_.dtype != DType::f32) {
    const Tensor wide = Tensor::uninitialized(shape, DType::f32, placement_.device);
    cast(wide, there);
    there = wide;
  }
  logits.copy_from(split() ? gather_logits(there) : there);
}

void GptStage::backward(StageActivations& saved, StageScratch& scratch, const Tensor& input,
                        const ForwardOptions& options) {
  check(saved.batch == input.dim(0) && saved.tokens == input.dim(1) * (has_embedding() ? 1 : row_shares()),
        "backward has activations of ({}, {}) tokens, but an input of shape {}", saved.batch, saved.tokens,
        to_string(input.shape()));
  check(scratch.batch == saved.batch && scratch.tokens == saved.tokens,
        "backward has activations of ({}, {}) tokens, but the gradient of ({}, {})", saved.batch,
        saved.tokens, scratch.batch, scratch.tokens);
  // Another stage may wait for the gradient of the input; below the lowest layer that trains nobody does.
  const std::size_t lowest = has_embedding() && !embedding_trains() ? lowest_trained() : 0;
  for (std::size_t i = blocks_.size(); i-- > lowest;) {
    tell(options, &PassListener::before_backward, i + 1);
    const BlockParameters& p = blocks_[i];
    const BlockActivations& a = saved.blocks[i];
    if (options_.recompute) {
      layer_norm_forward(a.norm1, a.mean1, a.rstd1, a.input, value(p.norm1_weight), value(p.norm1_bias),
                         config_.layer_norm_eps);
      forward_to_gelu(i, saved, options);
    }
    backward_block(p, a, scratch, first_layer_ + static_cast<std::int64_t>(i), options);
    tell(options, &PassListener::after_backward, i + 1);
  }
  if (has_embedding() && !options.defer_embedding) backward_embedding(scratch.dstream, input, options);
}

void GptStage::backward_embedding(const Tensor& dstream, const Tensor& input, const ForwardOptions& options) {
  check(has_embedding(), "only the stage with the first layer has an embedding");
  if (!embedding_trains()) return;
  tell(options, &PassListener::before_backward, 0);
  if (options.training && config_.dropout > 0) drop(dstream, dstream, options, 0, DropoutPlace::embedding);
  const Tensor tokens = input.to(placement_.device);
  const Shape all{tokens.dim(0), tokens.dim(1), config_.channels};
  const Tensor room =
      rows_split() ? Tensor::uninitialized(all, placement_.dtype, placement_.device) : Tensor();
  const Tensor& dall = g_backward(dstream, room);
  for_each_document(options, tokens.dim(0), tokens.dim(1), [&](const AttentionRows& rows) {
    embedding_backward(parameters_[token_embedding_].gradient, parameters_[position_embedding_].gradient,
                       rows.of(dall), rows.of(tokens), 0, vocabulary());
  });
  tell(options, &PassListener::after_backward, 0);
}

}  // namespace llm
