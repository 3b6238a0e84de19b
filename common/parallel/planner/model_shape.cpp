#include "common/parallel/planner/model_shape.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "common/core/error.h"
#include "common/core/file.h"

namespace llm::planner {

namespace {

ModelShape gpt(std::string name, std::int64_t layers, std::int64_t hidden, std::int64_t heads,
               std::int64_t vocabulary, std::int64_t sequence) {
  return {std::move(name), layers, hidden, heads, heads, 4 * hidden, vocabulary, sequence, false, true, true};
}

ModelShape llama(std::string name, std::int64_t layers, std::int64_t hidden, std::int64_t heads,
                 std::int64_t ffn, std::int64_t sequence, bool tied) {
  return {std::move(name), layers, hidden, heads, 8, ffn, 128256, sequence, true, false, tied};
}

/// GPT-2: Radford et al. 2019, table 2. GPT of 22B to 1T: Korthikanti et al. 2022, table 3. Llama 3:
/// Grattafiori et al. 2024, table 3 (8B to 405B), and the model cards of Llama 3.2 (1B, 3B).
const std::vector<ModelShape>& known_shapes() {
  static const std::vector<ModelShape> shapes = {
      gpt("gpt2-124m", 12, 768, 12, 50257, 1024),         gpt("gpt2-355m", 24, 1024, 16, 50257, 1024),
      gpt("gpt2-774m", 36, 1280, 20, 50257, 1024),        gpt("gpt2-1.5b", 48, 1600, 25, 50257, 1024),
      gpt("gpt-22b", 48, 6144, 64, 51200, 2048),          gpt("gpt-175b", 96, 12288, 96, 51200, 2048),
      gpt("gpt-530b", 105, 20480, 128, 51200, 2048),      gpt("gpt-1t", 128, 25600, 160, 51200, 2048),
      llama("1b", 16, 2048, 32, 8192, 4096, true),        llama("3b", 28, 3072, 24, 8192, 4096, true),
      llama("8b", 32, 4096, 32, 14336, 8192, false),      llama("70b", 80, 8192, 64, 28672, 8192, false),
      llama("405b", 126, 16384, 128, 53248, 8192, false),
  };
  return shapes;
}

ModelShape from_json(const std::string& path) {
  const nlohmann::json json = nlohmann::json::parse(read_file(path), nullptr, false);
  if (!json.is_object()) fail("{} is not a JSON object", path);
  const auto number = [&](std::initializer_list<const char*> keys) -> std::optional<std::int64_t> {
    for (const char* key : keys) {
      const auto found = json.find(key);
      if (found == json.end() || found->is_null()) continue;
      if (!found->is_number_integer() || found->get<double>() < 1 || found->get<double>() > 1e9)
        fail("{}: \"{}\" is {}, expected a whole number from 1 to 1e9", path, key, found->dump());
      return found->get<std::int64_t>();
    }
    return std::nullopt;
  };
  const auto needed = [&](std::initializer_list<const char*> keys) {
    const auto value = number(keys);
    if (!value) fail("{} does not say \"{}\"", path, *keys.begin());
    return *value;
  };
  ModelShape shape;
  shape.name = std::filesystem::path(path).stem().string();
  shape.layers = needed({"num_hidden_layers", "n_layer"});
  shape.hidden = needed({"hidden_size", "n_embd"});
  shape.heads = needed({"num_attention_heads", "n_head"});
  shape.vocabulary = needed({"vocab_size"});
  shape.sequence = needed({"max_position_embeddings", "n_positions"});
  shape.kv_heads = number({"num_key_value_heads"}).value_or(shape.heads);
  shape.gated = json.contains("intermediate_size");  // Llama's key; GPT-2's is n_inner
  shape.ffn = number({"intermediate_size", "n_inner"}).value_or(4 * shape.hidden);
  shape.learned_positions = !shape.gated;
  const auto tied = json.find("tie_word_embeddings");
  shape.tied_head = tied != json.end() && tied->is_boolean() ? tied->get<bool>() : !shape.gated;
  return shape;
}

}  // namespace

double ModelShape::layer_matrix_parameters() const {
  const double h = double(hidden), kv = double(kv_heads) / double(heads);
  return h * h * (2 + 2 * kv) + (gated ? 3 : 2) * h * double(ffn);
}

double ModelShape::layer_parameters() const {
  // GPT-2: biases 3h + h + ffn + h, two norms of 2h; of a gated model only the norms' two scales.
  return layer_matrix_parameters() + (gated ? 2 * double(hidden) : 9 * double(hidden) + double(ffn));
}

double ModelShape::parameters() const {
  return double(layers) * layer_parameters() + (tied_head ? 1 : 2) * embedding_parameters() +
         (learned_positions ? double(sequence * hidden) : 0) + (gated ? 1 : 2) * double(hidden);
}

double ModelShape::layer_flops_per_token() const {
  return 6 * layer_matrix_parameters() + 12 * double(hidden) * double(sequence);
}

void validate(const ModelShape& s) {
  for (const auto& [what, size] :
       std::initializer_list<std::pair<const char*, std::int64_t>>{{"layers", s.layers},
                                                                   {"hidden", s.hidden},
                                                                   {"heads", s.heads},
                                                                   {"kv_heads", s.kv_heads},
                                                                   {"ffn", s.ffn},
                                                                   {"vocabulary", s.vocabulary},
                                                                   {"sequence", s.sequence}})
    if (size < 1) fail_usage("{}: {} must be at least 1, not {}", s.name, what, size);
  if (s.hidden % s.heads != 0 || s.heads % s.kv_heads != 0)
    fail_usage("{}: hidden ({}) must be a multiple of heads ({}), and heads of kv_heads ({})", s.name,
               s.hidden, s.heads, s.kv_heads);
}

std::vector<std::string> model_shape_names() {
  std::vector<std::string> names;
  for (const ModelShape& shape : known_shapes()) names.push_back(shape.name);
  return names;
}

ModelShape model_shape(const std::string& name) {
  for (const ModelShape& shape : known_shapes())
    if (shape.name == name) return shape;
  if (!name.ends_with(".json") && !std::filesystem::exists(name))
    fail_usage("there is no model '{}'; there are {}, and JSON files", name,
               fmt::join(model_shape_names(), ", "));
  const ModelShape shape = from_json(name);
  validate(shape);
  return shape;
}

ModelShape model_shape(const GptConfig& config, const std::string& name) {
  ModelShape shape =
      gpt(name, config.layers, config.channels, config.heads, config.vocab_size, config.context);
  shape.ffn = config.mlp_width();
  shape.tied_head = config.tied_head;
  return shape;
}

}  // namespace llm::planner
