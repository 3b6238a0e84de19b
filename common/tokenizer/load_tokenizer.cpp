// A tokenizer of any kind from its folder. See tokenizer.h.
#include "common/core/error.h"
#include "common/tokenizer/bpe_tokenizer.h"
#include "common/tokenizer/config_file.h"
#include "common/tokenizer/simple_tokenizers.h"
#include "common/tokenizer/split.h"

namespace llm {
namespace {

std::unique_ptr<Tokenizer> load_bpe(const std::filesystem::path& folder, const TokenizerConfig& config) {
  std::optional<std::vector<std::string>> special = config.special_tokens;
  if (config.kind.empty() && special->empty())
    special = std::nullopt;  // not our configuration: whatever is there
  return std::make_unique<BpeTokenizer>(
      read_bpe_files(folder / "vocab.json", folder / "merges.txt", special));
}

std::unique_ptr<Tokenizer> load_char(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "vocab.json";
  std::vector<std::int32_t> characters;
  for (const std::string& token : read_vocabulary(path)) {
    const Character c = token.empty() ? Character{} : character_at(token, 0);
    check(c.code_point >= 0 && c.length == token.size(), "{}: the token \"{}\" is not one character",
          path.string(), token);
    check(characters.empty() || c.code_point > characters.back(),
          "{}: the characters are not in the order of their code points (at \"{}\")", path.string(), token);
    characters.push_back(c.code_point);
  }
  return std::make_unique<CharTokenizer>(std::move(characters));
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder) {
  check(std::filesystem::exists(folder), "there is no folder {}", folder.string());
  check(std::filesystem::is_directory(folder), "{} is not a folder; a tokenizer is a folder",
        folder.string());
  const std::optional<TokenizerConfig> config = read_tokenizer_config(folder);
  const std::string kind = config ? config->kind : "";
  if (kind == "char") return load_char(folder);
  if (kind == "byte") return std::make_unique<ByteTokenizer>();
  check(kind.empty() || kind == "bpe",
        "{}/tokenizer_config.json names the kind \"{}\"; this program knows bpe, char and byte",
        folder.string(), kind);
  check(kind == "bpe" || std::filesystem::exists(folder / "vocab.json"),
        "{} holds no tokenizer: neither a tokenizer_config.json that names its kind, nor vocab.json",
        folder.string());
  return load_bpe(folder, config.value_or(TokenizerConfig{}));
}

}  // namespace llm
