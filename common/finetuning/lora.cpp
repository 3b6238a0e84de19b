// LoRA's three functions, and the adapters of a model. See lora.h.
#include "common/finetuning/lora.h"

#include <cmath>

#include "common/core/error.h"
#include "common/core/philox.h"
#include "common/ops/ops.h"

namespace llm {

namespace {

/// Part p of B: (O / parts, r).
Tensor part_of_b(const Tensor& b, std::int64_t p, std::int64_t parts) {
  const std::int64_t rows = b.dim(0) / parts;
  return b.slice(p * rows, (p + 1) * rows);
}

}  // namespace

void lora_forward(const Tensor& y, const Tensor& x, const LowRank& m, const Tensor& h) {
  const std::int64_t out = m.b.dim(0) / m.parts, r = m.rank();
  matrix_product({h}, {x}, {m.a}, {.transpose_b = true});  // (N, I) (I, parts r)
  for (std::int64_t p = 0; p < m.parts; ++p)               // (N, r) (r, O / parts)
    matrix_product({y, p * out, out}, {h, p * r, r}, {part_of_b(m.b, p, m.parts)},
                   {.transpose_b = true, .alpha = m.scale, .beta = 1});
}

// h is not kept from the forward pass: of rank r it is cheaper to make again than to store.
void lora_backward(const Tensor& dx, const Tensor& da, const Tensor& db, const Tensor& dy, const Tensor& x,
                   const LowRank& m, const Tensor& h, const Tensor& dh) {
  const std::int64_t out = m.b.dim(0) / m.parts, r = m.rank();
  matrix_product({h}, {x}, {m.a}, {.transpose_b = true});
  for (std::int64_t p = 0; p < m.parts; ++p) {
    // dh = scale dy B: (N, O / parts) (O / parts, r);   dB += scale dy^T h: (O / parts, N) (N, r)
    matrix_product({dh, p * r, r}, {dy, p * out, out}, {part_of_b(m.b, p, m.parts)}, {.alpha = m.scale});
    matrix_product({part_of_b(db, p, m.parts)}, {dy, p * out, out}, {h, p * r, r},
                   {.transpose_a = true, .alpha = m.scale, .beta = 1});
  }
  matrix_product({da}, {dh}, {x}, {.transpose_a = true, .beta = 1});  // (parts r, N) (N, I)
  if (dx.defined()) matrix_product({dx}, {dh}, {m.a}, {.beta = 1});   // (N, parts r) (parts r, I)
}

void lora_merge(const Tensor& w, const LowRank& m) {
  const std::int64_t r = m.rank();
  for (std::int64_t p = 0; p < m.parts; ++p)  // (O / parts, r) (r, I)
    matrix_product({part_of_b(w, p, m.parts)}, {part_of_b(m.b, p, m.parts)}, {m.a.slice(p * r, (p + 1) * r)},
                   {.alpha = m.scale, .beta = 1});
}

void validate(const LoraOptions& o, int tensor_ranks) {
  if (o.rank < 1 || o.rank > 65536) fail_usage("LoRA's rank must be from 1 to 65536, got {}", o.rank);
  if (!(o.alpha > 0) || !std::isfinite(o.alpha)) fail_usage("LoRA's alpha must be positive, got {}", o.alpha);
  if (!(o.dropout >= 0 && o.dropout < 1))
    fail_usage("LoRA's dropout must be at least 0 and less than 1, got {}", o.dropout);
  if (o.dropout > 0 && tensor_ranks > 1)
    fail_usage("LoRA's dropout does not go with tensor parallelism, where a rank has a part of the input");
  if (o.targets.empty()) fail_usage("LoRA needs at least one layer to adapt");
}

bool is_target(const std::vector<std::string>& targets, const std::string& layer) {
  for (const std::string& target : targets)
    if (layer == target || layer.ends_with("." + target)) return true;
  return false;
}

namespace {

/// UsageError if one names no linear layer of a model's blocks.
void check_targets(const std::vector<std::string>& targets, std::int64_t layers) {
  for (const std::string& target : targets) {
    bool used = false;
    for (std::int64_t i = 0; i < layers && !used; ++i)
      for (const char* layer : {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"})
        used = used || is_target({target}, fmt::format("h.{}.{}", i, layer));
    if (!used)
      fail_usage("no linear layer's name ends with \"{}\"; they are c_attn, attn.c_proj, c_fc and mlp.c_proj",
                 target);
  }
}

}  // namespace

LoraAdapters::LoraAdapters(const GptStage& model, const LoraOptions& options, std::uint64_t seed)
    : LoraAdapters(
          model,
          [&] {
            const auto& group = model.options().tensor_group;
            validate(options, group ? group->size() : 1);
            check_targets(options.targets, model.config().layers);
            std::vector<Layer> layers;
            const auto& all = model.parameters().all();
            for (std::size_t i = 0; i < all.size(); ++i) {
              const std::string& name = all[i].name;
              if (!name.starts_with("h.") || all[i].shape.size() != 2) continue;
              const std::string layer = name.substr(0, name.size() - std::string_view(".weight").size());
              if (!is_target(options.targets, layer)) continue;
              const std::int64_t parts = options.split_qkv && layer.ends_with("c_attn") ? 3 : 1;
              layers.push_back(
                  {layer, i, all[i].shape[1], all[i].shape[0] / parts, options.rank, options.alpha, parts});
            }
            return layers;
          }(),
          options.dropout, options.targets) {
  for (const Layer& layer : layers_) {
    const Parameter& a = parameters_[layer.a];
    const Tensor whole(a.whole), here(a.shape);
    const Philox random{seed, stream_id(a.name)};
    const float bound = 1 / std::sqrt(static_cast<float>(a.whole[1]));
    for (std::int64_t i = 0; i < whole.numel(); ++i)
      whole.data()[i] = bound * (2 * random.uniform(static_cast<std::uint64_t>(i)) - 1);
    copy_from_whole(a, here, whole);
    a.value.copy_from(here);
  }
  parameters_.round_values();
}

LoraAdapters::LoraAdapters(const GptStage& model, std::vector<Layer> layers, float dropout,
                           std::vector<std::string> targets)
    : layers_(std::move(layers)), dropout_(dropout), targets_(std::move(targets)) {
  const bool first_rank = !model.options().tensor_group || model.options().tensor_group->rank() == 0;
  for (Layer& layer : layers_) {
    const Parameter& w = model.parameters()[layer.weight];
    const std::int64_t r = layer.rank, all_r = layer.parts * r;
    Parameter a{
        .name = layer.name + ".lora_A.weight", .shape = {all_r, layer.in}, .whole = {all_r, w.whole[1]}};
    Parameter b{.name = layer.name + ".lora_B.weight",
                .shape = {layer.parts * layer.out, r},
                .whole = {w.whole[0], r}};
    if (w.is_split()) {
      Parameter &split = w.split_dim == 0 ? b : a, &same = w.split_dim == 0 ? a : b;
      split.split_dim = w.split_dim;
      split.slices = w.slices;
      same.owner = first_rank;
      same.partial = true;
    }
    layer.a = parameters_.declare(std::move(a));
    layer.b = parameters_.declare(std::move(b));
  }
  parameters_.allocate(model.placement().device, model.placement().dtype);
}

const LoraAdapters::Layer* LoraAdapters::find(std::size_t weight) const {
  for (const Layer& layer : layers_)
    if (layer.weight == weight) return &layer;
  return nullptr;
}

LowRank LoraAdapters::matrices(const Layer& layer) const {
  return {parameters_[layer.a].working, parameters_[layer.b].working,
          static_cast<float>(layer.alpha / static_cast<double>(layer.rank)), layer.parts};
}

namespace {

/// (rows, columns) of `buffer`, which grows if it has to.
Tensor scratch(Tensor& buffer, std::int64_t rows, std::int64_t columns, const Tensor& like) {
  if (!buffer.defined() || buffer.numel() < rows * columns)
    buffer = Tensor({rows * columns}, like.dtype(), like.device());
  return buffer.range(0, {rows, columns});
}

/// The masks of one layer in one step.
Philox dropout_stream(const std::string& layer, const ForwardOptions& options) {
  return {.seed = options.seed, .stream = stream_id("lora " + layer) ^ (options.step * 0x9e3779b97f4a7c15u)};
}
std::uint64_t first_element(const Tensor& x, const ForwardOptions& options) {
  return options.first_row * static_cast<std::uint64_t>(x.numel() / x.dim(0));
}

}  // namespace

Tensor LoraAdapters::dropped(const Tensor& x, const Layer& layer, const ForwardOptions& options) const {
  if (!options.training || dropout_ == 0) return x;
  const Tensor y = Tensor::uninitialized(x.shape(), x.dtype(), x.device());
  dropout(y, x, dropout_, dropout_stream(layer.name, options), first_element(x, options));
  return y;
}

void LoraAdapters::forward(const Tensor& y, const Tensor& x, std::size_t weight,
                           const ForwardOptions& options) const {
  const Layer* layer = find(weight);
  if (layer == nullptr) return;
  const std::int64_t rows = x.numel() / layer->in;
  lora_forward(y, dropped(x, *layer, options), matrices(*layer),
               scratch(h_, rows, layer->parts * layer->rank, x));
}

void LoraAdapters::backward(const Tensor& dx, const Tensor& dy, const Tensor& x, std::size_t weight,
                            const ForwardOptions& options) {
  const Layer* layer = find(weight);
  if (layer == nullptr) return;
  const std::int64_t rows = x.numel() / layer->in, columns = layer->parts * layer->rank;
  const Tensor h = scratch(h_, rows, columns, x), dh = scratch(dh_, rows, columns, x);
  const Tensor& da = parameters_[layer->a].gradient;
  const Tensor& db = parameters_[layer->b].gradient;
  if (!options.training || dropout_ == 0) return lora_backward(dx, da, db, dy, x, matrices(*layer), h, dh);
  // What comes through dropout goes back through the same mask.
  Tensor through;
  if (dx.defined()) through = Tensor(dx.shape(), dx.dtype(), dx.device());
  lora_backward(through, da, db, dy, dropped(x, *layer, options), matrices(*layer), h, dh);
  if (!dx.defined()) return;
  dropout(through, through, dropout_, dropout_stream(layer->name, options), first_element(x, options));
  add(dx, dx, through);
}

void LoraAdapters::merge(GptStage& model) const {
  for (const Layer& layer : layers_) {
    LowRank m = matrices(layer);
    m.a = parameters_[layer.a].value;  // in f32, whatever the model computes with
    m.b = parameters_[layer.b].value;
    lora_merge(model.parameters()[layer.weight].value, m);
  }
  model.parameters().round_values();
}

}  // namespace llm
