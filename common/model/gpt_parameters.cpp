// What parameters a stage has, and which part of each. See gpt.h.
#include <fmt/format.h>

#include "common/core/error.h"
#include "common/model/gpt.h"

namespace llm {

GptStage::GptStage(const GptConfig& config, std::int64_t first_layer, std::int64_t last_layer,
                   Placement placement, StageOptions options)
    : config_(config),
      first_layer_(first_layer),
      last_layer_(last_layer),
      placement_(placement),
      options_(std::move(options)) {
  validate(config);
  check(placement.dtype == DType::f32 || (placement.dtype == DType::bf16 && placement.device == Device::cuda),
        "a model computes in f32, or on the device cuda in bf16; {} on {} cannot be had",
        name(placement.dtype), name(placement.device));
  check(first_layer >= 0 && first_layer <= last_layer && last_layer <= config.layers,
        "layers {} to {} are no range of a model's {} layers", first_layer, last_layer, config.layers);
  if (options_.tensor_group) {
    rank_ = options_.tensor_group->rank();
    ranks_ = options_.tensor_group->size();
  }
  check_shares(config, ranks_);
  heads_ = config.heads / ranks_;
  mlp_width_ = config.mlp_width() / ranks_;
  declare_parameters();
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

// A matrix whose rows are outputs is split by rows ("column-parallel": Shoeybi et al. write x W, we x W^T),
// the one behind it by columns, so that only its result must be added up. What is not split is computed on
// every rank, and is the same there.
void GptStage::declare_parameters() {
  const std::int64_t C = config_.channels;
  const std::int64_t M = config_.mlp_width();
  const std::int64_t V = config_.vocab_size;
  const auto declare = [&](std::string name, Shape whole, int split_dim = 0, std::vector<Slice> slices = {}) {
    const bool is_split = split() && !slices.empty();
    Parameter p{.name = std::move(name), .shape = whole, .decay = whole.size() > 1, .whole = whole};
    if (is_split) {
      p.split_dim = split_dim;
      p.slices = std::move(slices);
      std::int64_t& extent = p.shape[static_cast<std::size_t>(split_dim)];
      extent = 0;
      for (const Slice& slice : p.slices) extent += slice.end - slice.begin;
    }
    p.owner = is_split || rank_ == 0;
    p.partial = rows_split() && p.name.find("ln_") != std::string::npos;
    if (config_.tied_head && p.name == "wte.weight" && has_embedding() != has_head()) {
      p.shared = true;
      p.owner = p.owner && has_embedding();
    }
    return parameters_.declare(std::move(p));
  };
  const auto vector = [&](bool wanted, const std::string& name, std::int64_t size,
                          std::vector<Slice> slices = {}) {
    return wanted ? declare(name, {size}, 0, std::move(slices)) : kNoParameter;
  };
  const Slice ids = share_of(V, rank_, ranks_);
  const Slice channels = share_of(C, rank_, ranks_);  // of the heads: H is a multiple of the ranks
  const Slice hidden = share_of(M, rank_, ranks_);
  const std::vector<Slice> qkv{
      channels, {C + channels.begin, C + channels.end}, {2 * C + channels.begin, 2 * C + channels.end}};
  if (has_embedding()) {
    token_embedding_ = declare("wte.weight", {V, C}, 0, {ids});
    position_embedding_ = declare("wpe.weight", {config_.context, C});
  }
  for (std::int64_t layer = first_layer_; layer < last_layer_; ++layer) {
    const std::string h = fmt::format("h.{}.", layer);
    BlockParameters p{};
    p.norm1_weight = declare(h + "ln_1.weight", {C});
    p.norm1_bias = vector(config_.bias, h + "ln_1.bias", C);
    p.qkv_weight = declare(h + "attn.c_attn.weight", {3 * C, C}, 0, qkv);
    p.qkv_bias = vector(config_.qkv_bias, h + "attn.c_attn.bias", 3 * C, qkv);
    p.out_weight = declare(h + "attn.c_proj.weight", {C, C}, 1, {channels});
    p.out_bias = vector(config_.bias, h + "attn.c_proj.bias", C);
    p.norm2_weight = declare(h + "ln_2.weight", {C});
    p.norm2_bias = vector(config_.bias, h + "ln_2.bias", C);
    p.up_weight = declare(h + "mlp.c_fc.weight", {M, C}, 0, {hidden});
    p.up_bias = vector(config_.bias, h + "mlp.c_fc.bias", M, {hidden});
    p.down_weight = declare(h + "mlp.c_proj.weight", {C, M}, 1, {hidden});
    p.down_bias = vector(config_.bias, h + "mlp.c_proj.bias", C);
    blocks_.push_back(p);
  }
  if (has_head()) {
    final_norm_weight_ = declare("ln_f.weight", {C});
    final_norm_bias_ = vector(config_.bias, "ln_f.bias", C);
    if (config_.tied_head)
      head_ = has_embedding() ? token_embedding_ : declare("wte.weight", {V, C}, 0, {ids});
    else
      head_ = declare("lm_head.weight", {V, C}, 0, {ids});
  }
}

GptStage GptStage::placed(Placement placement) const {
  GptStage copy(config_, first_layer_, last_layer_, placement, options_);
  copy.parameters_.values().copy_from(parameters_.values());
  copy.parameters_.round_values();
  return copy;
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

}  // namespace llm
