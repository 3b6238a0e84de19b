// The two simplest tokenizers: one token per Unicode character, one token per byte.
//
// Characters are what nanoGPT's shakespeare_char uses: the characters of the training text, sorted; nothing
// else can be encoded. Bytes can encode everything, in sequences that are as long as the text. Chapter 2
// explains them.
#pragma once

#include <array>
#include <unordered_map>

#include "common/tokenizer/tokenizer.h"

namespace llm {

/// No special tokens, so no <|endoftext|>: it is meant for one continuous text.
class CharTokenizer final : public Tokenizer {
 public:
  /// `characters`: code points, sorted, each once. Error if not.
  explicit CharTokenizer(std::vector<std::int32_t> characters);

  std::string_view kind() const override { return "char"; }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(tokens_.size()); }
  std::string_view token_bytes(std::int32_t id) const override;
  std::span<const std::int32_t> special_tokens() const override { return {}; }
  /// Error naming the first character that is not in the vocabulary and where it stands.
  void encode_append(std::string_view text, std::vector<std::int32_t>& ids) const override;
  void save(const std::filesystem::path& folder) const override;

 private:
  std::vector<std::string> tokens_;
  std::array<std::int32_t, 128> ascii_{};                  // id of an ASCII character, -1 if not there
  std::unordered_map<std::int32_t, std::int32_t> others_;  // of all other characters
};

/// The characters of the texts, sorted by code point. Error (with text number and offset) if one is not
/// UTF-8.
CharTokenizer train_char_tokenizer(std::span<const std::string_view> texts);

/// Tokens 0 ... 255 are the bytes, 256 is <|endoftext|>.
class ByteTokenizer final : public Tokenizer {
 public:
  std::string_view kind() const override { return "byte"; }
  std::int64_t vocab_size() const override { return 257; }
  std::string_view token_bytes(std::int32_t id) const override;
  std::span<const std::int32_t> special_tokens() const override;
  void encode_append(std::string_view text, std::vector<std::int32_t>& ids) const override;
  void save(const std::filesystem::path& folder) const override;
};

}  // namespace llm
