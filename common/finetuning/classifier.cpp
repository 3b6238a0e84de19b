// The new head and its backward. See classifier.h.
#include "common/finetuning/classifier.h"

#include <algorithm>
#include <cmath>

#include "common/core/error.h"
#include "common/core/philox.h"
#include "common/ops/ops.h"

namespace llm {

TrainedPart parse_trained_part(const std::string& name) {
  if (name == "head") return TrainedPart::head;
  if (name == "last-block") return TrainedPart::last_block;
  if (name == "everything") return TrainedPart::everything;
  if (name == "lora") return TrainedPart::lora;
  fail_usage("there is no part named \"{}\" to train; use head, last-block, everything or lora", name);
}

namespace {

void fill_uniform(const Parameter& p, std::uint64_t seed, float bound) {
  const Tensor values(p.shape);
  const Philox random{seed, stream_id(p.name)};
  for (std::int64_t i = 0; i < values.numel(); ++i)
    values.data()[i] = bound * (2 * random.uniform(static_cast<std::uint64_t>(i)) - 1);
  p.value.copy_from(values);
}

}  // namespace

std::function<bool(const Parameter&)> trained_by(TrainedPart part, const GptConfig& config) {
  const std::string last_block = fmt::format("h.{}.", config.layers - 1);
  return [=](const Parameter& p) {
    if (p.name == "lm_head.weight") return false;
    if (part == TrainedPart::last_block) return p.name.starts_with(last_block) || p.name.starts_with("ln_f");
    return part == TrainedPart::everything;
  };
}

// ---- the head ----------------------------------------------------------------------------------

ClassifierHead::ClassifierHead(const GptStage& last, std::int64_t classes, std::uint64_t seed,
                               const LoraOptions* lora) {
  if (classes < 2) fail_usage("a classifier needs at least two classes, got {}", classes);
  check(last.has_head(), "a classifier's head stands on the last layer, which this stage does not have");
  const std::int64_t C = last.config().channels;
  const bool owner = !last.options().tensor_group || last.options().tensor_group->rank() == 0;
  const auto declare = [&](const char* name, const Shape& shape) {
    return store_.declare({.name = name, .shape = shape, .decay = shape.size() > 1, .owner = owner});
  };
  weight_ = declare("score.weight", {classes, C});
  bias_ = declare("score.bias", {classes});
  if (lora != nullptr && is_target(lora->targets, "score")) {
    lora_a_ = declare("score.lora_A.weight", {lora->rank, C});
    lora_b_ = declare("score.lora_B.weight", {classes, lora->rank});
    lora_scale_ = static_cast<float>(lora->alpha / static_cast<double>(lora->rank));
  }
  store_.allocate(last.placement().device, last.placement().dtype);
  const float bound = 1 / std::sqrt(static_cast<float>(C));
  fill_uniform(store_[weight_], seed, bound);
  if (lora_a_) {
    fill_uniform(store_[*lora_a_], seed, bound);
    store_.set_trains(weight_, false);
    store_.set_trains(bias_, false);
  }
  store_.round_values();
}

Tensor ClassifierHead::forward(const GptStage& last, StageActivations& saved, const TextBatch& batch) {
  const Tensor& norm = last.final_norm(saved);  // (B, T, C)
  const std::int64_t B = norm.dim(0), T = norm.dim(1), C = norm.dim(2);
  last_ = Tensor::uninitialized({B, C}, norm.dtype(), norm.device());
  for (std::int64_t b = 0; b < B; ++b)
    last_.slice(b, b + 1).copy_from(
        norm.range((b * T + batch.lengths[static_cast<std::size_t>(b)] - 1) * C, {C}));
  const Tensor logits = Tensor::uninitialized({B, store_[bias_].shape[0]}, norm.dtype(), norm.device());
  linear_forward(logits, last_, store_[weight_].working, store_[bias_].working);  // (B, C) (C, K)
  if (lora_a_) {
    const LowRank m = adapter();
    lora_forward(logits, last_, m, Tensor({B, m.rank()}, norm.dtype(), norm.device()));
  }
  return logits;
}

Tensor ClassifierHead::logits(const GptStage& last, StageActivations& saved, const TextBatch& batch) {
  const Tensor there = forward(last, saved, batch);
  if (there.dtype() == DType::f32) return there.to(Device::cpu);
  const Tensor wide = Tensor::uninitialized(there.shape(), DType::f32, there.device());
  cast(wide, there);
  return wide.to(Device::cpu);
}

double ClassifierHead::loss(GptStage& last, StageActivations& saved, StageScratch& scratch,
                            const TextBatch& batch, float scale) {
  const Tensor logits = forward(last, saved, batch);
  const Device device = logits.device();
  const std::int64_t B = logits.dim(0), C = last_.dim(1), T = batch.inputs.dim(1);
  const Tensor labels = batch.labels.to(device);
  const Tensor losses({B}, DType::f32, device);
  cross_entropy_forward(losses, logits, labels);
  cross_entropy_backward(logits, logits, labels, scale);
  // Frozen parameters of the head: undefined gradients are not wanted.
  const auto gradient = [&](std::size_t i) { return store_[i].trains ? store_[i].gradient : Tensor(); };
  const Tensor dlast = Tensor::uninitialized(last_.shape(), last_.dtype(), device);
  linear_backward(dlast, gradient(weight_), gradient(bias_), logits, last_, store_[weight_].working);
  if (lora_a_) {
    const LowRank m = adapter();
    const Tensor h({B, m.rank()}, last_.dtype(), device), dh({B, m.rank()}, last_.dtype(), device);
    lora_backward(dlast, store_[*lora_a_].gradient, store_[*lora_b_].gradient, logits, last_, m, h, dh);
  }
  // Only the last positions have a gradient; attention carries it to the others.
  last.prepare(scratch, B, T);
  scratch.dnorm.zero();
  for (std::int64_t b = 0; b < B; ++b)
    scratch.dnorm.range((b * T + batch.lengths[static_cast<std::size_t>(b)] - 1) * C, {C})
        .copy_from(dlast.slice(b, b + 1));
  last.final_norm_backward(saved, scratch);
  double sum = 0;
  const Tensor here = losses.to(Device::cpu);
  for (const float loss : here.span()) sum += loss;
  return sum;
}

void ClassifierHead::merge() {
  if (!lora_a_) return;
  lora_merge(store_[weight_].value, {store_[*lora_a_].value, store_[*lora_b_].value, lora_scale_, 1});
  store_[*lora_b_].value.zero();
  store_.round_values();
}

std::vector<std::int64_t> most_probable(const Tensor& logits) {
  std::vector<std::int64_t> classes;
  const std::int64_t K = logits.dim(1);
  for (std::int64_t b = 0; b < logits.dim(0); ++b) {
    const float* row = logits.data() + b * K;
    classes.push_back(std::max_element(row, row + K) - row);
  }
  return classes;
}

std::int64_t classifier_parameter_count(const GptConfig& c, std::int64_t classes) {
  const std::int64_t own_head = c.tied_head ? 0 : c.vocab_size * c.channels;
  return parameter_count(c) - own_head + classes * (c.channels + 1);
}

// ---- a whole model with it ---------------------------------------------------------------------

LoraOptions without_head(LoraOptions lora) {
  std::erase(lora.targets, "score");
  return lora;
}

Classifier::Classifier(GptStage& model, std::int64_t classes, TrainedPart part, std::uint64_t seed,
                       const LoraOptions& lora)
    : model_(model), head_(model, classes, seed, part == TrainedPart::lora ? &lora : nullptr) {
  check(model.has_embedding() && model.has_head(), "a classifier needs a whole model, not a stage of one");
  model.set_trainable(trained_by(part, model.config()));
  if (part != TrainedPart::lora) return;
  adapters_ = std::make_unique<LoraAdapters>(model, without_head(lora), seed);
  model.attach(adapters_.get());
}

Classifier::~Classifier() {
  if (adapters_) model_.attach(nullptr);
}

std::vector<ParameterStore*> Classifier::stores() {
  std::vector<ParameterStore*> all = {&model_.parameters(), &head_.parameters()};
  if (adapters_) all.push_back(&adapters_->parameters());
  return all;
}

std::int64_t Classifier::trained_count() const {
  return model_.parameters().trained_count() + head_.parameters().trained_count() +
         (adapters_ ? adapters_->parameters().count() : 0);
}

Tensor Classifier::logits(const TextBatch& batch) {
  model_.forward(saved_, batch.inputs);
  return head_.logits(model_, saved_, batch);
}

double Classifier::train(const TextBatch& batch, const ForwardOptions& options) {
  const auto n = static_cast<float>(batch.lengths.size());
  model_.forward(saved_, batch.inputs, options);
  const double sum = head_.loss(model_, saved_, scratch_, batch, 1 / n);
  model_.backward(saved_, scratch_, batch.inputs, options);
  return sum / static_cast<double>(n);
}

void Classifier::merge() {
  head_.merge();
  if (!adapters_) return;
  model_.attach(nullptr);
  adapters_->merge(model_);
  adapters_.reset();
}

}  // namespace llm
