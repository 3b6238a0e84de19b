// What the planner has to know of a model: its sizes, and what follows from them. Unlike GptConfig it also
// describes models that the book does not build: gated feed-forward layers, fewer key and value heads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/model/config.h"

namespace llm::planner {

struct ModelShape {
  std::string name{};
  std::int64_t layers = 12;         // L
  std::int64_t hidden = 768;        // h, C in the rest of the book
  std::int64_t heads = 12;          // a
  std::int64_t kv_heads = 12;       // fewer than heads: grouped-query attention
  std::int64_t ffn = 3072;          // width of the feed-forward layer
  std::int64_t vocabulary = 50257;  // V
  std::int64_t sequence = 1024;     // s, tokens of a training sequence
  bool gated = false;               // feed-forward of three matrices (SwiGLU) instead of two (GELU)
  bool learned_positions = true;    // a table of `sequence` positions
  bool tied_head = true;            // head and embedding are one matrix

  /// Matrices of one layer: attention h (2 h + 2 h kv_heads / heads), feed-forward 2 or 3 h ffn.
  double layer_matrix_parameters() const;
  /// With biases and norms (13 h in GPT-2: Narayanan et al. 2021, equation 2; gated models have none but 2
  /// h).
  double layer_parameters() const;
  double embedding_parameters() const { return double(vocabulary) * double(hidden); }
  double parameters() const;

  /// Floating-point operations of forward and backward for one token: 6 per parameter that multiplies, the
  /// head among them, and 12 L h s for attention over all positions, masked or not (Narayanan et al. 2021,
  /// appendix; Chowdhery et al. 2022, appendix B). What model FLOPs utilisation (MFU) counts.
  double layer_flops_per_token() const;
  double head_flops_per_token() const { return 6 * embedding_parameters(); }
  double flops_per_token() const { return double(layers) * layer_flops_per_token() + head_flops_per_token(); }
};

/// A name of the list below, or the path of a JSON file with the keys of a Hugging Face config.json (n_layer
/// or num_hidden_layers, n_embd or hidden_size, ...). UsageError that lists the names; Error if the file is
/// not there or lacks a size.
ModelShape model_shape(const std::string& name_or_file);
std::vector<std::string> model_shape_names();
ModelShape model_shape(const GptConfig& config, const std::string& name = "model");

/// UsageError unless all sizes are positive and heads, kv_heads and hidden divide.
void validate(const ModelShape& shape);

}  // namespace llm::planner
