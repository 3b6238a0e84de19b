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

Classifier::Classifier(GptStage& model, std::int64_t classes, TrainedPart part, std::uint64_t seed,
                       const LoraOptions& lora)
    : model_(model), classes_(classes) {
  check(model.has_embedding() && model.has_head(), "a classifier needs a whole model, not a stage of one");
  if (classes < 2) fail_usage("a classifier needs at least two classes, got {}", classes);
  const std::int64_t C = model.config().channels;
  const std::string last_block = fmt::format("h.{}.", model.config().layers - 1);
  // The model's own head, where it is not tied, has no part in this.
  model.set_trainable([&](const Parameter& p) {
    if (p.name == "lm_head.weight") return false;
    if (part == TrainedPart::last_block) return p.name.starts_with(last_block) || p.name.starts_with("ln_f");
    return part == TrainedPart::everything;
  });
  weight_ = head_.declare("score.weight", {classes, C}, true);
  bias_ = head_.declare("score.bias", {classes}, false);
  if (part == TrainedPart::lora) {
    LoraOptions blocks = lora;
    std::erase(blocks.targets, "score");
    if (blocks.targets.size() < lora.targets.size()) {
      lora_a_ = head_.declare("score.lora_A.weight", {lora.rank, C}, true);
      lora_b_ = head_.declare("score.lora_B.weight", {classes, lora.rank}, true);
      head_scale_ = static_cast<float>(lora.alpha / static_cast<double>(lora.rank));
    }
    adapters_ = std::make_unique<LoraAdapters>(model, blocks, seed);
    model.attach(adapters_.get());
  }
  head_.allocate(model.placement().device, model.placement().dtype);
  const float bound = 1 / std::sqrt(static_cast<float>(C));
  fill_uniform(head_[weight_], seed, bound);
  if (lora_a_) {
    fill_uniform(head_[*lora_a_], seed, bound);
    head_.set_trains(weight_, false);
    head_.set_trains(bias_, false);
  }
  head_.round_values();
}

Classifier::~Classifier() {
  if (adapters_) model_.attach(nullptr);
}

std::vector<ParameterStore*> Classifier::stores() {
  std::vector<ParameterStore*> all = {&model_.parameters(), &head_};
  if (adapters_) all.push_back(&adapters_->parameters());
  return all;
}

std::int64_t Classifier::parameter_count() const {
  const GptConfig& c = model_.config();
  const std::int64_t own_head = c.tied_head ? 0 : c.vocab_size * c.channels;
  return model_.parameters().count() - own_head + classes_ * (c.channels + 1);
}

std::int64_t Classifier::trained_count() const {
  return model_.parameters().trained_count() + head_.trained_count() +
         (adapters_ ? adapters_->parameters().count() : 0);
}

const Tensor& Classifier::head_weight() const {
  return head_[weight_].value;
}
const Tensor& Classifier::head_bias() const {
  return head_[bias_].value;
}

Tensor Classifier::forward(const TextBatch& batch, const ForwardOptions& options) {
  model_.forward(saved_, batch.inputs, options);
  const Tensor& norm = model_.final_norm(saved_);  // (B, T, C)
  const std::int64_t B = norm.dim(0), T = norm.dim(1), C = norm.dim(2);
  last_ = Tensor::uninitialized({B, C}, norm.dtype(), norm.device());
  for (std::int64_t b = 0; b < B; ++b)
    last_.slice(b, b + 1).copy_from(
        norm.range((b * T + batch.lengths[static_cast<std::size_t>(b)] - 1) * C, {C}));
  const Tensor logits = Tensor::uninitialized({B, classes_}, norm.dtype(), norm.device());
  linear_forward(logits, last_, head_[weight_].working, head_[bias_].working);  // (B, C) (C, K)
  if (lora_a_) {
    const LowRank m{head_[*lora_a_].working, head_[*lora_b_].working, head_scale_, 1};
    lora_forward(logits, last_, m, Tensor({B, m.rank()}, norm.dtype(), norm.device()));
  }
  return logits;
}

Tensor Classifier::logits(const TextBatch& batch) {
  const Tensor there = forward(batch, {});
  if (there.dtype() == DType::f32) return there.to(Device::cpu);
  const Tensor wide = Tensor::uninitialized(there.shape(), DType::f32, there.device());
  cast(wide, there);
  return wide.to(Device::cpu);
}

double Classifier::train(const TextBatch& batch, const ForwardOptions& options) {
  const Tensor logits = forward(batch, options);
  const Device device = logits.device();
  const std::int64_t B = logits.dim(0), C = last_.dim(1), T = batch.inputs.dim(1);
  const Tensor labels = batch.labels.to(device);
  const Tensor losses({B}, DType::f32, device);
  cross_entropy_forward(losses, logits, labels);
  cross_entropy_backward(logits, logits, labels, 1.0F / static_cast<float>(B));
  // Frozen parameters of the head: undefined gradients are not wanted.
  const auto gradient = [&](std::size_t i) { return head_[i].trains ? head_[i].gradient : Tensor(); };
  const Tensor dlast = Tensor::uninitialized(last_.shape(), last_.dtype(), device);
  linear_backward(dlast, gradient(weight_), gradient(bias_), logits, last_, head_[weight_].working);
  if (lora_a_) {
    const LowRank m{head_[*lora_a_].working, head_[*lora_b_].working, head_scale_, 1};
    const Tensor h({B, m.rank()}, last_.dtype(), device), dh({B, m.rank()}, last_.dtype(), device);
    lora_backward(dlast, head_[*lora_a_].gradient, head_[*lora_b_].gradient, logits, last_, m, h, dh);
  }
  double sum = 0;
  const Tensor here = losses.to(Device::cpu);
  for (const float loss : here.span()) sum += loss;
  const double mean = sum / static_cast<double>(B);
  if (model_.parameters().trained_count() == 0 && !adapters_) return mean;

  // Only the last positions have a gradient; attention carries it to the others.
  model_.prepare(scratch_, B, T);
  scratch_.dnorm.zero();
  for (std::int64_t b = 0; b < B; ++b)
    scratch_.dnorm.range((b * T + batch.lengths[static_cast<std::size_t>(b)] - 1) * C, {C})
        .copy_from(dlast.slice(b, b + 1));
  model_.final_norm_backward(saved_, scratch_);
  model_.backward(saved_, scratch_, batch.inputs, options);
  return mean;
}

std::vector<std::int64_t> Classifier::predict(const TextBatch& batch) {
  const Tensor all = logits(batch);
  std::vector<std::int64_t> classes;
  for (std::int64_t b = 0; b < all.dim(0); ++b) {
    const float* row = all.data() + b * classes_;
    classes.push_back(std::max_element(row, row + classes_) - row);
  }
  return classes;
}

void Classifier::merge() {
  if (!adapters_) return;
  model_.attach(nullptr);
  adapters_->merge(model_);
  adapters_.reset();
  if (!lora_a_) return;
  lora_merge(head_[weight_].value, {head_[*lora_a_].value, head_[*lora_b_].value, head_scale_, 1});
  head_[*lora_b_].value.zero();
  head_.round_values();
}

}  // namespace llm
