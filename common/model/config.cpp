#include "common/model/config.h"

#include <cmath>

#include "common/core/error.h"

namespace llm {

namespace {

struct NamedConfig {
  std::string_view name;
  std::int64_t layers, heads, channels;
};

// Radford et al. 2019, table 2, under the names by which the sizes are known now.
constexpr NamedConfig kGpt2[] = {
    {"gpt2-124m", 12, 12, 768},
    {"gpt2-355m", 24, 16, 1024},
    {"gpt2-774m", 36, 20, 1280},
    {"gpt2-1.5b", 48, 25, 1600},
};

void check_size(std::string_view what, std::int64_t value, std::int64_t most) {
  if (value < 1 || value > most) fail_usage("a model's {} must be from 1 to {}, got {}", what, most, value);
}

}  // namespace

void validate(const GptConfig& c) {
  check_size("vocabulary size", c.vocab_size, 10'000'000);
  check_size("context", c.context, 1'000'000);
  check_size("number of channels", c.channels, 100'000);
  check_size("number of layers", c.layers, 1'000);
  check_size("number of heads", c.heads, 10'000);
  check_size("feed-forward width", c.mlp_channels == 0 ? 4 * c.channels : c.mlp_channels, 1'000'000);
  if (c.channels % c.heads != 0)
    fail_usage("a model's channels are divided evenly among its heads, but {} is no multiple of {}",
               c.channels, c.heads);
  if (!(c.dropout >= 0 && c.dropout < 1))
    fail_usage("dropout must be at least 0 and less than 1, got {}", c.dropout);
  if (!(c.layer_norm_eps > 0 && c.layer_norm_eps < 1))
    fail_usage("the epsilon of layer norm must be greater than 0 and less than 1, got {}", c.layer_norm_eps);
  if (!(c.initializer_range > 0 && c.initializer_range <= 1))
    fail_usage("the standard deviation of the first weights must be greater than 0 and at most 1, got {}",
               c.initializer_range);
}

GptConfig gpt2_config(std::string_view name) {
  for (const NamedConfig& known : kGpt2)
    if (known.name == name) {
      GptConfig config;
      config.layers = known.layers;
      config.heads = known.heads;
      config.channels = known.channels;
      return config;
    }
  fail_usage("there is no model named \"{}\"; the names are {}", name, fmt::join(gpt2_config_names(), ", "));
}

std::vector<std::string> gpt2_config_names() {
  std::vector<std::string> names;
  for (const NamedConfig& known : kGpt2) names.emplace_back(known.name);
  return names;
}

namespace {

/// Elements of the matrices that every position is multiplied with, head excluded.
std::int64_t matrix_parameters(const GptConfig& c) {
  return c.layers * (4 * c.channels * c.channels + 2 * c.channels * c.mlp_width());
}

}  // namespace

std::int64_t parameter_count(const GptConfig& c) {
  const std::int64_t norms = (2 * c.layers + 1) * c.channels * (c.bias ? 2 : 1);
  const std::int64_t biases =
      c.layers * ((c.qkv_bias ? 3 * c.channels : 0) + (c.bias ? 2 * c.channels + c.mlp_width() : 0));
  const std::int64_t tables = (c.vocab_size * (c.tied_head ? 1 : 2) + c.context) * c.channels;
  return tables + matrix_parameters(c) + biases + norms;
}

double training_flops_per_token(const GptConfig& c, std::int64_t tokens_per_sequence) {
  const auto multiplied = static_cast<double>(matrix_parameters(c) + c.vocab_size * c.channels);
  const auto attention = static_cast<double>(c.layers) * static_cast<double>(c.channels) *
                         static_cast<double>(tokens_per_sequence);
  return 6 * multiplied + 12 * attention;
}

}  // namespace llm
