// GPT-2 directories. See huggingface.h.
#include "common/model/huggingface.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/core/threads.h"
#include "common/model/safetensors.h"

namespace llm {

namespace {

constexpr std::string_view kPrefix = "transformer.";
constexpr std::string_view kHead = "lm_head.weight";

/// GPT-2's linear layers are "Conv1D" there, stored (in, out); ours are (out, in).
bool stored_transposed(std::string_view name) {
  return name.starts_with("h.") && name.ends_with(".weight") && name.find(".ln_") == std::string_view::npos;
}

/// out (columns, rows) = transpose of in (rows, columns), in tiles that stay in the cache.
void transpose(float* out, const float* in, std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t kTile = 32;
  parallel_for((rows + kTile - 1) / kTile, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r0 = begin * kTile; r0 < std::min(end * kTile, rows); r0 += kTile)
      for (std::int64_t c0 = 0; c0 < columns; c0 += kTile)
        for (std::int64_t c = c0; c < std::min(c0 + kTile, columns); ++c)
          for (std::int64_t r = r0; r < std::min(r0 + kTile, rows); ++r)
            out[c * rows + r] = in[r * columns + c];
  });
}

std::int64_t size_of_config(const nlohmann::json& json, const std::string& file, const char* key) {
  check(json.contains(key), "{} has no \"{}\"; is it the configuration of a GPT-2?", file, key);
  check(json[key].is_number_integer(), "{}: \"{}\" must be a whole number, but is {}", file, key,
        json[key].dump());
  return json[key].get<std::int64_t>();
}

double number(const nlohmann::json& json, const std::string& file, const char* key, double otherwise) {
  if (!json.contains(key)) return otherwise;
  check(json[key].is_number(), "{}: \"{}\" must be a number, but is {}", file, key, json[key].dump());
  return json[key].get<double>();
}

bool flag(const nlohmann::json& json, const std::string& file, const char* key, bool otherwise) {
  if (!json.contains(key)) return otherwise;
  check(json[key].is_boolean(), "{}: \"{}\" must be true or false, but is {}", file, key, json[key].dump());
  return json[key].get<bool>();
}

/// The number as a person would write it: 1e-05, not 9.9999997e-06.
double as_written(float value) {
  return std::stod(fmt::format("{}", value));
}

/// The causal mask, which old versions stored as if it were a weight.
bool is_mask_buffer(std::string_view name) {
  return name.starts_with("h.") && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"));
}

std::string_view without_prefix(std::string_view name) {
  return name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
}

}  // namespace

GptConfig read_huggingface_config(const std::filesystem::path& folder) {
  check(std::filesystem::is_directory(folder), "there is no model folder {}", folder.string());
  const std::filesystem::path path = folder / "config.json";
  const std::string file = path.string();
  check(std::filesystem::exists(path), "{} is no model folder: it has no config.json", folder.string());
  const nlohmann::json json = nlohmann::json::parse(read_file(path, 1 << 20), nullptr, false);
  check(json.is_object(), "{} is no JSON object", file);
  const auto text = [&](const char* key, std::string_view otherwise) {
    if (!json.contains(key)) return std::string(otherwise);
    check(json[key].is_string(), "{}: \"{}\" must be a string, but is {}", file, key, json[key].dump());
    return json[key].get<std::string>();
  };
  check(text("model_type", "") == "gpt2", "{}: \"model_type\" must be \"gpt2\", but is \"{}\"", file,
        text("model_type", ""));
  const std::string activation = text("activation_function", "gelu_new");
  check(activation == "gelu_new" || activation == "gelu_pytorch_tanh",
        "{}: the activation function \"{}\" is none that a GPT-2 has here; expected \"gelu_new\"", file,
        activation);
  check(flag(json, file, "scale_attn_weights", true) &&
            !flag(json, file, "scale_attn_by_inverse_layer_idx", false),
        "{}: attention scores must be scaled by 1/sqrt(head size) and nothing else", file);

  GptConfig config;
  config.vocab_size = size_of_config(json, file, "vocab_size");
  config.context = size_of_config(json, file, "n_positions");
  config.channels = size_of_config(json, file, "n_embd");
  config.layers = size_of_config(json, file, "n_layer");
  config.heads = size_of_config(json, file, "n_head");
  if (json.contains("n_inner") && !json["n_inner"].is_null()) {
    config.mlp_channels = size_of_config(json, file, "n_inner");
    check(config.mlp_channels > 0, "{}: \"n_inner\" must be at least 1, but is {}", file,
          config.mlp_channels);
  }
  config.dropout = static_cast<float>(number(json, file, "resid_pdrop", 0.1));
  config.layer_norm_eps = static_cast<float>(number(json, file, "layer_norm_epsilon", 1e-5));
  config.initializer_range = static_cast<float>(number(json, file, "initializer_range", 0.02));
  config.qkv_bias = flag(json, file, "qkv_bias", true);  // ours; transformers keeps and ignores them
  config.bias = flag(json, file, "bias", true);
  config.tied_head = flag(json, file, "tie_word_embeddings", true);
  try {
    validate(config);
  } catch (const UsageError& error) {  // a bad file is not a wrong flag
    fail("{}: {}", file, error.what());
  }
  return config;
}

GptStage load_huggingface(const std::filesystem::path& folder) {
  const GptConfig config = read_huggingface_config(folder);
  const std::filesystem::path path = folder / "model.safetensors";
  check(std::filesystem::exists(path), "{} is no model folder: it has no model.safetensors", folder.string());
  const SafetensorsFile file(path);
  const std::uint64_t stored = file.entries().empty() ? 0 : file.entries().back().end;
  const auto needed = static_cast<std::uint64_t>(parameter_count(config)) * 2;  // bytes, as f16
  check(stored >= needed,
        "config.json describes a model of {} parameters, but {} has only {} bytes of tensors",
        parameter_count(config), path.string(), stored);

  GptStage model(config);
  const auto read = [&](const SafetensorsEntry& entry, const Tensor& value) {
    Shape expected = value.shape();
    const bool transposed = stored_transposed(without_prefix(entry.name));
    if (transposed) std::swap(expected[0], expected[1]);
    check(entry.shape == expected, "{}: tensor \"{}\" has shape {}, expected {} by config.json",
          path.string(), entry.name, to_string(entry.shape), to_string(expected));
    if (!transposed) return file.read(entry, value.span());
    const Tensor copy = Tensor::uninitialized(expected);
    file.read(entry, copy.span());
    transpose(value.data(), copy.data(), expected[0], expected[1]);
  };
  std::vector<bool> seen(model.parameters().all().size());
  for (const SafetensorsEntry& entry : file.entries()) {
    const std::string_view name = without_prefix(entry.name);
    if (is_mask_buffer(name)) continue;
    if (const Parameter* parameter = model.parameters().find(name)) {
      read(entry, parameter->value);
      const auto index = static_cast<std::size_t>(parameter - model.parameters().all().data());
      check(!seen[index], "{} has the tensor \"{}\" twice", path.string(), name);
      seen[index] = true;
      continue;
    }
    // What this configuration does not have may stand in the file if it changes nothing.
    const bool head = config.tied_head && name == kHead;
    const bool bias = name.ends_with(".bias") && !(config.bias && config.qkv_bias);
    check(head || bias, "{} has a tensor \"{}\", which a GPT-2 of {} layers does not have", path.string(),
          entry.name, config.layers);
    const Tensor copy = Tensor::uninitialized(entry.shape);
    file.read(entry, copy.span());
    if (bias)
      check(std::ranges::all_of(copy.span(), [](float x) { return x == 0; }),
            "{}: config.json says that there is no bias \"{}\", but it is not zero", path.string(),
            entry.name);
  }
  if (config.tied_head) {
    if (const SafetensorsEntry* head = file.find(kHead)) {
      const Tensor& embedding = model.parameters().find("wte.weight")->value;
      check(head->shape == embedding.shape(), "{}: tensor \"{}\" has shape {}, expected {} by config.json",
            path.string(), kHead, to_string(head->shape), to_string(embedding.shape()));
      const Tensor copy = Tensor::uninitialized(head->shape);
      file.read(*head, copy.span());
      check(std::ranges::equal(copy.span(), embedding.span()),
            "{}: config.json says that the head is tied to the embedding, but \"{}\" differs from it",
            path.string(), kHead);
    }
  }
  for (std::size_t i = 0; i < seen.size(); ++i)
    check(seen[i], "{} has no tensor \"{}\"", path.string(), model.parameters()[i].name);
  return model;
}

namespace {

std::string config_text(const GptConfig& c) {
  nlohmann::ordered_json json;
  json["architectures"] = {"GPT2LMHeadModel"};
  json["model_type"] = "gpt2";
  json["vocab_size"] = c.vocab_size;
  json["n_positions"] = c.context;
  json["n_embd"] = c.channels;
  json["n_layer"] = c.layers;
  json["n_head"] = c.heads;
  json["n_inner"] = c.mlp_channels > 0 ? nlohmann::ordered_json(c.mlp_channels) : nlohmann::ordered_json();
  json["activation_function"] = "gelu_new";
  json["layer_norm_epsilon"] = as_written(c.layer_norm_eps);
  for (const char* place : {"embd_pdrop", "attn_pdrop", "resid_pdrop"}) json[place] = as_written(c.dropout);
  json["initializer_range"] = as_written(c.initializer_range);
  json["scale_attn_weights"] = true;
  json["tie_word_embeddings"] = c.tied_head;
  json["bos_token_id"] = nullptr;  // the tokenizer's files say which tokens are special
  json["eos_token_id"] = nullptr;
  json["torch_dtype"] = "float32";
  if (!c.qkv_bias) json["qkv_bias"] = false;
  if (!c.bias) json["bias"] = false;
  return json.dump(2) + "\n";
}

}  // namespace

void save_huggingface(const GptStage& model, const std::filesystem::path& folder) {
  const auto& all = model.parameters().all();
  check(model.has_embedding() && model.has_head() &&
            std::ranges::none_of(all, [](const Parameter& p) { return p.is_split(); }),
        "only a whole model can be saved as a directory");
  const GptConfig& c = model.config();
  std::vector<TensorToWrite> tensors;
  const auto add = [&](const std::string& name, const Shape& shape) {
    const std::string full = name == kHead ? name : std::string(kPrefix) + name;
    const Parameter* p = model.parameters().find(name);
    if (p == nullptr) {  // a bias that this model goes without: transformers' GPT-2 always has it
      tensors.push_back({full, shape, [shape] { return Tensor(shape); }});
    } else if (stored_transposed(name)) {
      tensors.push_back({full, {shape[1], shape[0]}, [value = p->value] {
                           Tensor copy = Tensor::uninitialized({value.dim(1), value.dim(0)});
                           transpose(copy.data(), value.data(), value.dim(0), value.dim(1));
                           return copy;
                         }});
    } else {
      tensors.push_back({full, shape, [value = p->value] { return value; }});
    }
  };
  // The full set of a GPT-2's tensors is that of a model with every bias.
  const std::int64_t C = c.channels;
  const std::int64_t M = c.mlp_width();
  add("wte.weight", {c.vocab_size, C});
  add("wpe.weight", {c.context, C});
  for (std::int64_t layer = 0; layer < c.layers; ++layer) {
    const std::string h = fmt::format("h.{}.", layer);
    add(h + "ln_1.weight", {C});
    add(h + "ln_1.bias", {C});
    add(h + "attn.c_attn.weight", {3 * C, C});
    add(h + "attn.c_attn.bias", {3 * C});
    add(h + "attn.c_proj.weight", {C, C});
    add(h + "attn.c_proj.bias", {C});
    add(h + "ln_2.weight", {C});
    add(h + "ln_2.bias", {C});
    add(h + "mlp.c_fc.weight", {M, C});
    add(h + "mlp.c_fc.bias", {M});
    add(h + "mlp.c_proj.weight", {C, M});
    add(h + "mlp.c_proj.bias", {C});
  }
  add("ln_f.weight", {C});
  add("ln_f.bias", {C});
  if (!c.tied_head) add(std::string(kHead), {c.vocab_size, C});
  // The weights first: a folder with a config.json has them.
  write_safetensors(folder / "model.safetensors", tensors);
  write_file(folder / "config.json", config_text(c));
}

}  // namespace llm
