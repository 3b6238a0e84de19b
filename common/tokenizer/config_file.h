// tokenizer_config.json: which kind of tokenizer a folder holds, and its special tokens. And the reader of
// vocabularies in JSON, which all kinds share.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace llm {

struct TokenizerConfig {
  std::string kind;  // "bpe", "char", "byte"; empty if the file names none, as Hugging Face's do not
  std::vector<std::string> special_tokens;
};

/// Reads `folder`/tokenizer_config.json; nothing if it is not there. Error if it is not a JSON object or has
/// values of the wrong type.
std::optional<TokenizerConfig> read_tokenizer_config(const std::filesystem::path& folder);

/// Writes it. For "bpe" it also says what Hugging Face's AutoTokenizer wants to know.
void write_tokenizer_config(const std::filesystem::path& folder, const TokenizerConfig& config);

/// Reads a JSON object of strings to ids: result[id] is the string. Error if it is not one, or if ids are not
/// 0 ... n - 1, each once.
std::vector<std::string> read_vocabulary(const std::filesystem::path& path);

/// Writes it, in the order of ids.
void write_vocabulary(const std::filesystem::path& path, const std::vector<std::string>& tokens);

}  // namespace llm
