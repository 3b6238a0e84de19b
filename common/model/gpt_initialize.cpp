// First weights of a model: GPT-2's way, and PyTorch's defaults number for number. Chapter 4.
#include <algorithm>
#include <cmath>

#include "common/core/error.h"
#include "common/core/threads.h"
#include "common/core/torch_random.h"
#include "common/model/gpt.h"

namespace llm {

namespace {

/// out[i] = std * normal number first + i of one Philox stream, on all threads.
void fill_normal(std::span<float> out, const Philox& philox, std::int64_t first, float std) {
  const std::int64_t last = first + static_cast<std::int64_t>(out.size());
  const std::int64_t first_block = first / 4;  // a block of the generator makes four numbers
  parallel_for((last + 3) / 4 - first_block, 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = first_block + begin; block < first_block + end; ++block) {
      const auto four = philox.normals(static_cast<std::uint64_t>(block));
      for (std::int64_t i = std::max(first, 4 * block); i < std::min(last, 4 * block + 4); ++i)
        out[static_cast<std::size_t>(i - first)] = std * four[static_cast<std::size_t>(i - 4 * block)];
    }
  });
}

}  // namespace

void GptStage::initialize(std::uint64_t seed) {
  // Every block adds two branches to the stream; this keeps its variance from growing with the depth.
  const float residual = 1.0F / std::sqrt(2.0F * static_cast<float>(config_.layers));
  const float deviation = config_.initializer_range;
  for (const Parameter& p : parameters_.all()) {
    if (!p.value.defined()) continue;  // not attached
    if (p.shape.size() == 1) {
      p.value.fill(p.name.find("ln_") != std::string::npos && p.name.ends_with(".weight") ? 1.0F : 0.0F);
      continue;
    }
    const bool ends_branch = p.name.ends_with("c_proj.weight");
    for (const ParameterRun& run : runs(p))
      fill_normal(p.value.range(run.here, {run.count}).span(), {.seed = seed, .stream = stream_id(p.name)},
                  run.whole, ends_branch ? residual * deviation : deviation);
  }
}

void GptStage::initialize_like_torch(TorchRandom& random) {
  check(has_embedding() && has_head() && !split(),
        "PyTorch's order of initialisation runs through the whole model");
  const auto linear = [&](const Tensor& weight, const Tensor& bias) {
    random.init_linear(weight.span(), bias.defined() ? bias.span() : std::span<float>{}, weight.dim(1));
  };
  const auto norm = [&](std::size_t weight, std::size_t bias) {
    value(weight).fill(1);
    if (bias != kNoParameter) value(bias).zero();
  };
  random.init_embedding(value(token_embedding_).span());
  random.init_embedding(value(position_embedding_).span());
  const std::int64_t C = config_.channels;
  for (const BlockParameters& p : blocks_) {
    for (std::int64_t i = 0; i < 3; ++i)  // Wq, Wk, Wv, each a layer of its own there
      linear(value(p.qkv_weight).slice(i * C, (i + 1) * C),
             p.qkv_bias == kNoParameter ? Tensor() : value(p.qkv_bias).slice(i * C, (i + 1) * C));
    linear(value(p.out_weight), value(p.out_bias));
    linear(value(p.up_weight), value(p.up_bias));
    linear(value(p.down_weight), value(p.down_bias));
    norm(p.norm1_weight, p.norm1_bias);
    norm(p.norm2_weight, p.norm2_bias);
  }
  norm(final_norm_weight_, final_norm_bias_);
  if (head_ != token_embedding_) linear(value(head_), {});
}

}  // namespace llm
