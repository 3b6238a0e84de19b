// GPT-2 models as Hugging Face directories: config.json and model.safetensors, in and out.
// `transformers` reads what is written here, and its files are read here. Chapter 4 explains it.
#pragma once

#include <filesystem>

#include "common/model/config.h"
#include "common/model/gpt.h"

namespace llm {

/// Reads config.json. Error (one sentence) if it is missing, not JSON, not a GPT-2, or has absurd sizes.
GptConfig read_huggingface_config(const std::filesystem::path& folder);

/// Reads a whole model. Accepts f32, f16 and bf16 tensors, names with and without the prefix "transformer.",
/// tied and untied heads. Error names the first tensor that is missing, superfluous, of the wrong shape, or
/// not finite.
GptStage load_huggingface(const std::filesystem::path& folder);

/// Writes config.json and model.safetensors into `folder` (each file atomically).
void save_huggingface(const GptStage& model, const std::filesystem::path& folder);

}  // namespace llm
