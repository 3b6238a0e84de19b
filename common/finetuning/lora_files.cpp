// Adapters in PEFT's layout: adapter_config.json and adapter_model.safetensors
// (https://huggingface.co/docs/peft, "checkpoint format"). Chapter 7 explains it.
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/finetuning/lora.h"
#include "common/model/safetensors.h"

namespace llm {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kModel = "transformer.";

json read_json(const fs::path& path) {
  check(fs::exists(path), "there is no {}; an adapter is a folder with this file", path.string());
  json parsed = json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  check(parsed.is_object(), "{} is no JSON object", path.string());
  return parsed;
}

/// A positive number of the configuration, or of its pattern for this layer: {"h.0.attn.c_attn": 48}.
double number_for(const json& config, const char* key, const char* pattern_key, const std::string& layer,
                  const fs::path& path) {
  json value = config.value(key, json());
  if (config.contains(pattern_key) && config[pattern_key].is_object())
    for (const auto& [pattern, number] : config[pattern_key].items())
      if (is_target({pattern}, layer)) value = number;
  check(value.is_number() && std::isfinite(value.get<double>()) && value.get<double>() > 0,
        "{}: \"{}\" must be a positive number, for the layer {}", path.string(), key, layer);
  return value.get<double>();
}

}  // namespace

void LoraAdapters::save_peft(const fs::path& folder, const std::string& base) const {
  // Three adapters of rank r side by side are one of rank 3 r: A is the three A, one below the other, B is
  // block-diagonal. (alpha / r stays what it is with three times the alpha.)
  std::vector<TensorToWrite> tensors;
  nlohmann::ordered_json ranks = nlohmann::ordered_json::object();
  nlohmann::ordered_json alphas = nlohmann::ordered_json::object();
  for (const Layer& layer : layers_) {
    const std::string name = fmt::format("{}{}{}", kPrefix, kModel, layer.name);
    const Tensor a = parameters_[layer.a].value.to(Device::cpu);
    const Tensor b = parameters_[layer.b].value.to(Device::cpu);
    tensors.push_back({name + ".lora_A.weight", a.shape(), [a] { return a; }});
    if (layer.parts == 1) {
      tensors.push_back({name + ".lora_B.weight", b.shape(), [b] { return b; }});
    } else {
      ranks[layer.name] = layer.parts * layer.rank;
      alphas[layer.name] = layer.alpha * static_cast<double>(layer.parts);
      const std::int64_t rank = layer.rank, out = layer.out, wide = layer.parts * layer.rank;
      tensors.push_back({name + ".lora_B.weight", {b.dim(0), wide}, [b, rank, out, wide] {
                           Tensor whole({b.dim(0), wide});
                           for (std::int64_t row = 0; row < b.dim(0); ++row)
                             for (std::int64_t i = 0; i < rank; ++i)
                               whole.data()[row * wide + row / out * rank + i] = b.data()[row * rank + i];
                           return whole;
                         }});
    }
  }
  check(!layers_.empty(), "there are no adapters to save");
  nlohmann::ordered_json config;
  config["peft_type"] = "LORA";
  config["task_type"] = "CAUSAL_LM";
  config["base_model_name_or_path"] = base;
  config["r"] = layers_.front().rank;
  config["lora_alpha"] = layers_.front().alpha;
  config["lora_dropout"] = std::round(static_cast<double>(dropout_) * 1e6) / 1e6;
  config["target_modules"] = targets_;
  config["rank_pattern"] = ranks;
  config["alpha_pattern"] = alphas;
  config["fan_in_fan_out"] = true;  // transformers' GPT-2 keeps its matrices as (in, out)
  config["bias"] = "none";
  config["use_rslora"] = false;
  config["use_dora"] = false;
  config["init_lora_weights"] = true;
  config["inference_mode"] = true;
  config["modules_to_save"] = nullptr;
  // The weights first: a folder with a configuration has them.
  write_safetensors(folder / "adapter_model.safetensors", tensors);
  write_file(folder / "adapter_config.json", config.dump(2) + "\n");
}

LoraAdapters LoraAdapters::load_peft(const fs::path& folder, const GptStage& model) {
  const fs::path config_path = folder / "adapter_config.json";
  const fs::path path = folder / "adapter_model.safetensors";
  const json config = read_json(config_path);
  check(config.value("peft_type", json()) == "LORA", "{} is no LoRA adapter: its peft_type is {}",
        config_path.string(), config.value("peft_type", json()).dump());
  check(config.value("use_dora", json()) != true && config.value("bias", json("none")) == "none" &&
            (!config.contains("modules_to_save") || config["modules_to_save"].is_null()),
        "{}: only plain LoRA can be read, without DoRA, biases and modules saved whole",
        config_path.string());
  check(fs::exists(path), "there is no {}", path.string());
  const SafetensorsFile file(path);

  // Which layers there are, from the names of the tensors.
  const auto layer_of = [&](const std::string& tensor, std::string_view ending) {
    std::string_view name = tensor;
    if (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
    if (name.starts_with(kModel)) name.remove_prefix(kModel.size());
    name.remove_suffix(ending.size());
    return std::string(name);
  };
  std::map<std::string, std::pair<const SafetensorsEntry*, const SafetensorsEntry*>> found;
  for (const SafetensorsEntry& entry : file.entries()) {
    constexpr std::string_view kA = ".lora_A.weight", kB = ".lora_B.weight";
    const bool is_a = entry.name.ends_with(kA);
    check(is_a || entry.name.ends_with(kB), "{} has a tensor \"{}\", which is no part of a LoRA adapter",
          path.string(), entry.name);
    auto& pair = found[layer_of(entry.name, is_a ? kA : kB)];
    (is_a ? pair.first : pair.second) = &entry;
  }
  std::vector<Layer> layers;
  std::vector<std::string> targets;
  for (const auto& [name, pair] : found) {
    check(pair.first != nullptr && pair.second != nullptr, "{} has only one of the two matrices of {}",
          path.string(), name);
    const Parameter* weight = model.parameters().find(name + ".weight");
    check(weight != nullptr && weight->shape.size() == 2 && name.starts_with("h."),
          "{} adapts a layer \"{}\", which the model does not have", path.string(), name);
    const auto index = static_cast<std::size_t>(weight - model.parameters().all().data());
    const std::int64_t out = weight->shape[0], in = weight->shape[1];
    const Shape& a = pair.first->shape;
    const Shape& b = pair.second->shape;
    check(a.size() == 2 && b.size() == 2 && a[1] == in && b[0] == out && a[0] == b[1] && a[0] >= 1,
          "{}: matrices of shapes {} and {} do not adapt the layer {} of shape {}", path.string(),
          to_string(a), to_string(b), name, to_string(weight->shape));
    const double rank = number_for(config, "r", "rank_pattern", name, config_path);
    check(rank == static_cast<double>(a[0]), "{} says that {} has rank {}, but its matrices have rank {}",
          config_path.string(), name, rank, a[0]);
    double alpha = number_for(config, "lora_alpha", "alpha_pattern", name, config_path);
    if (config.value("use_rslora", json()) == true) alpha *= std::sqrt(rank);  // alpha / sqrt(r)
    layers.push_back({name, index, in, out, a[0], alpha, 1});
    targets.push_back(name);
  }
  check(!layers.empty(), "{} holds no adapters", path.string());
  std::vector<std::string> asked;
  const json modules = config.value("target_modules", json());
  if (modules.is_array())
    for (const json& module : modules)
      if (module.is_string()) asked.push_back(module.get<std::string>());
  float dropout = 0;
  if (config.contains("lora_dropout") && config["lora_dropout"].is_number())
    dropout = config["lora_dropout"].get<float>();
  check(dropout >= 0 && dropout < 1, "{}: lora_dropout must be at least 0 and below 1", config_path.string());
  LoraAdapters adapters(model, layers, dropout, asked.empty() ? targets : asked);
  for (const Layer& layer : adapters.layers_) {
    const auto& pair = found[layer.name];
    for (const auto& [entry, index] : {std::pair(pair.first, layer.a), std::pair(pair.second, layer.b)}) {
      const Tensor values = Tensor::uninitialized(entry->shape);
      file.read(*entry, values.span());
      adapters.parameters_[index].value.copy_from(values);
    }
  }
  adapters.parameters_.round_values();
  return adapters;
}

}  // namespace llm
