// What every tokenizer can do: turn text into integers and back.
//
// Three kinds stand behind this interface: byte-level BPE (bpe_tokenizer.h), one token per Unicode
// character and one per byte (simple_tokenizers.h). All are immutable once made, so one tokenizer can be
// used from many threads. Chapter 2 explains them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llm {

/// The token between documents, in GPT-2's spelling.
inline constexpr std::string_view kEndOfText = "<|endoftext|>";

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// "bpe", "char" or "byte".
  virtual std::string_view kind() const = 0;

  /// Number of tokens; ids are 0 ... vocab_size() - 1.
  virtual std::int64_t vocab_size() const = 0;

  /// The bytes a token stands for (for a special token, its name). The view lives as long as the tokenizer.
  /// Error if there is no such id.
  virtual std::string_view token_bytes(std::int32_t id) const = 0;

  /// The tokens that stand for no text, such as <|endoftext|>.
  virtual std::span<const std::int32_t> special_tokens() const = 0;

  /// Appends the tokens of ordinary text: "<|endoftext|>" in it is thirteen characters like any others.
  /// Large texts are encoded on all threads. Error (with nothing appended) if the text holds something this
  /// tokenizer has no token for; bpe and byte take any bytes.
  virtual void encode_append(std::string_view text, std::vector<std::int32_t>& ids) const = 0;

  /// Writes the tokenizer's files and tokenizer_config.json into `folder`, which is made if missing.
  virtual void save(const std::filesystem::path& folder) const = 0;

  /// The tokens of ordinary text.
  std::vector<std::int32_t> encode(std::string_view text) const;

  /// The tokens of text in which the names of special tokens stand for those tokens (for prompts that a
  /// program put together; never for text from outside, which could smuggle them in).
  std::vector<std::int32_t> encode_with_special(std::string_view text) const;

  /// encode() of many texts, spread over all threads.
  std::vector<std::vector<std::int32_t>> encode_batch(std::span<const std::string_view> texts) const;

  /// The bytes of the tokens, one after the other; special tokens give their names. Not always UTF-8: a token
  /// may end within a character. Error if an id is not in the vocabulary.
  std::string decode(std::span<const std::int32_t> ids) const;

  /// The id of <|endoftext|>, if this tokenizer has one.
  std::optional<std::int32_t> end_of_text() const;
};

/// Reads a tokenizer from a folder: the kind that its tokenizer_config.json names, or, with only vocab.json
/// and merges.txt (as GPT-2's come), byte-level BPE with <|endoftext|> as special token if it is in the
/// vocabulary. Error (one sentence) if files are missing or damaged.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder);

}  // namespace llm
