// The shape of a GPT, and what follows from it: parameters, memory and floating-point operations.
// GPT-2's sizes are those of Radford et al. 2019, table 2. Chapter 4 explains it.
#pragma once

#include <cstdint>
#include <string>

#include <string_view>
#include <vector>
#include "common/core/dtype.h"

namespace llm {

struct GptConfig {
  std::int64_t vocab_size = 50257;  // V
  std::int64_t context = 1024;      // longest sequence T
  std::int64_t channels = 768;      // C
  std::int64_t layers = 12;         // L
  std::int64_t heads = 12;          // H; C must be a multiple
  std::int64_t mlp_channels = 0;    // width of the feed-forward layer; 0 means 4 C
  float dropout = 0;
  float layer_norm_eps = 1e-5F;
  float initializer_range = 0.02F;  // standard deviation of the first weights
  bool qkv_bias = true;             // biases of the query, key and value projections
  bool bias = true;                 // biases of all other linear layers and of the layer norms
  bool tied_head = true;            // the head shares the token embedding's matrix

  std::int64_t head_size() const { return channels / heads; }
  std::int64_t mlp_width() const { return mlp_channels > 0 ? mlp_channels : 4 * channels; }
};

/// Throws UsageError, with the sentence to print, unless every size makes sense and memory can be counted.
void validate(const GptConfig& config);

/// "gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1.5b"; UsageError that lists the names otherwise.
GptConfig gpt2_config(std::string_view name);
std::vector<std::string> gpt2_config_names();

/// Number of parameters (tied head counted once).
std::int64_t parameter_count(const GptConfig& config);

/// Floating-point operations of the matrix products of one forward and backward pass per token at context T:
/// 6 per parameter that multiplies (embeddings do not) plus 12 L C T for the attention (Chowdhery et al.
/// 2022, appendix B counts all T positions; so do we).
double training_flops_per_token(const GptConfig& config, std::int64_t tokens_per_sequence);

/// Bytes of everything a training step keeps for B sequences of T tokens: saved activations and scratch, f32.
std::int64_t activation_bytes(const GptConfig& config, std::int64_t batch, std::int64_t tokens_per_sequence,
                              DType dtype = DType::f32);

}  // namespace llm
