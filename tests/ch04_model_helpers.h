// What the tests of the model share: golden files, random weights, distances.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "common/core/philox.h"
#include "common/model/gpt.h"
#include "common/model/safetensors.h"

namespace llm::testing {

/// ||a - b|| / ||b|| in the Euclidean norm, over all elements; double.
inline double relative_distance(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    difference += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    norm += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(difference / std::max(norm, 1e-300));
}

inline Tensor read_tensor(const SafetensorsFile& file, std::string_view name) {
  const SafetensorsEntry* entry = file.find(name);
  check(entry != nullptr, "the golden file has no tensor {}", name);
  Tensor t = Tensor::uninitialized(entry->shape);
  file.read(*entry, t.span());
  return t;
}

/// A golden tensor of whole numbers, which the files hold as f32.
inline Tensor read_ids(const SafetensorsFile& file, std::string_view name) {
  const Tensor numbers = read_tensor(file, name);
  Tensor ids = Tensor::uninitialized(numbers.shape(), DType::i32);
  for (std::int64_t i = 0; i < ids.numel(); ++i)
    ids.data<std::int32_t>()[i] = static_cast<std::int32_t>(numbers.data()[i]);
  return ids;
}

/// Token ids (B, T) below `vocabulary`.
inline Tensor random_ids(std::int64_t batch, std::int64_t tokens, std::int64_t vocabulary,
                         std::uint64_t seed) {
  PhiloxSequence random(seed, stream_id("test ids"));
  Tensor ids = Tensor::uninitialized({batch, tokens}, DType::i32);
  for (std::int32_t& id : ids.span<std::int32_t>())
    id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocabulary)));
  return ids;
}

/// Weights large enough that everything matters: normal(0, 0.3), norms around 1.
inline void randomize(GptStage& model, std::uint64_t seed) {
  for (const Parameter& p : model.parameters().all()) {
    const Philox philox{seed, stream_id(p.name)};
    const float center = p.name.find("ln_") != std::string::npos && p.name.ends_with("weight") ? 1.0F : 0.0F;
    for (std::int64_t i = 0; i < p.value.numel(); ++i)
      p.value.data()[i] = center + 0.3F * philox.normal(static_cast<std::uint64_t>(i));
  }
}

/// Odd sizes everywhere.
inline GptConfig small_config() {
  GptConfig config;
  config.vocab_size = 41;
  config.context = 19;
  config.channels = 21;
  config.layers = 3;
  config.heads = 3;
  config.mlp_channels = 50;
  return config;
}

/// Forward, loss and backward of the sum of the losses; gradients are zeroed first. Returns the sum.
inline double run(GptStage& model, const Tensor& tokens, const Tensor& targets,
                  const ForwardOptions& options = {}) {
  StageActivations saved;
  StageScratch scratch;
  model.parameters().zero_gradients();
  model.forward(saved, tokens, options);
  const double sum = model.loss(saved, scratch, targets, 1.0F);
  model.backward(saved, scratch, tokens, options);
  return sum;
}

inline std::vector<float> copy(const Tensor& t) {
  return {t.span().begin(), t.span().end()};
}

}  // namespace llm::testing
