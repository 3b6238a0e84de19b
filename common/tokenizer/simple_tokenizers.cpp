// Character and byte tokenizers. See simple_tokenizers.h.
#include "common/tokenizer/simple_tokenizers.h"

#include <utf8proc.h>

#include <set>

#include "common/core/error.h"
#include "common/tokenizer/config_file.h"
#include "common/tokenizer/split.h"

namespace llm {
namespace {

std::string utf8(std::int32_t code_point) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(code_point, bytes);
  return {reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length)};
}

constexpr std::array<char, 256> make_all_bytes() {
  std::array<char, 256> bytes{};
  for (std::size_t b = 0; b < 256; ++b) bytes[b] = static_cast<char>(b);
  return bytes;
}
constexpr std::array<char, 256> kAllBytes = make_all_bytes();
constexpr std::int32_t kByteEndOfText = 256;

}  // namespace

CharTokenizer::CharTokenizer(std::vector<std::int32_t> characters) {
  check(!characters.empty(), "a character tokenizer needs at least one character");
  ascii_.fill(-1);
  std::int32_t previous = -1;
  for (const std::int32_t c : characters) {
    check(c > previous && utf8proc_codepoint_valid(c),
          "the characters of a tokenizer must be sorted, each once");
    previous = c;
    const auto id = static_cast<std::int32_t>(tokens_.size());
    if (c < 128)
      ascii_[static_cast<std::size_t>(c)] = id;
    else
      others_[c] = id;
    tokens_.push_back(utf8(c));
  }
}

std::string_view CharTokenizer::token_bytes(std::int32_t id) const {
  check(id >= 0 && id < vocab_size(), "there is no token {}: the vocabulary has {} tokens", id, vocab_size());
  return tokens_[static_cast<std::size_t>(id)];
}

void CharTokenizer::encode_append(std::string_view text, std::vector<std::int32_t>& ids) const {
  const std::size_t before = ids.size();
  if (ids.empty()) ids.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    Character c{byte, 1};
    std::int32_t id = -1;
    if (byte < 128) {
      id = ascii_[byte];
    } else {
      c = character_at(text, i);
      const auto at = others_.find(c.code_point);
      if (at != others_.end()) id = at->second;
    }
    if (id < 0) {
      ids.resize(before);
      check(c.code_point >= 0,
            "byte {} of the text (0x{:02x}) is not valid UTF-8, and a character tokenizer knows "
            "only characters",
            i, byte);
      const bool visible = c.code_point > 0x20 && character_class(c.code_point) != CharacterClass::kSpace;
      fail("the character {}U+{:04X} at byte {} of the text is not one of the {} in the vocabulary",
           visible ? fmt::format("'{}' ", utf8(c.code_point)) : "", c.code_point, i, tokens_.size());
    }
    ids.push_back(id);
    i += c.length;
  }
}

void CharTokenizer::save(const std::filesystem::path& folder) const {
  write_vocabulary(folder / "vocab.json", tokens_);
  write_tokenizer_config(folder, {"char", {}});
}

CharTokenizer train_char_tokenizer(std::span<const std::string_view> texts) {
  std::array<bool, 128> ascii{};
  std::set<std::int32_t> characters;
  for (std::size_t t = 0; t < texts.size(); ++t) {
    const std::string_view text = texts[t];
    for (std::size_t i = 0; i < text.size();) {
      const auto byte = static_cast<unsigned char>(text[i]);
      if (byte < 128) {
        ascii[byte] = true;
        ++i;
        continue;
      }
      const Character c = character_at(text, i);
      check(c.code_point >= 0,
            "byte {} of text {} (0x{:02x}) is not valid UTF-8, and a character tokenizer knows "
            "only characters",
            i, t + 1, byte);
      characters.insert(c.code_point);
      i += c.length;
    }
  }
  for (std::int32_t c = 0; c < 128; ++c)
    if (ascii[static_cast<std::size_t>(c)]) characters.insert(c);
  check(!characters.empty(), "there is no text to take characters from");
  return CharTokenizer({characters.begin(), characters.end()});
}

std::string_view ByteTokenizer::token_bytes(std::int32_t id) const {
  check(id >= 0 && id <= kByteEndOfText, "there is no token {}: the vocabulary has 257 tokens", id);
  return id == kByteEndOfText ? kEndOfText : std::string_view(&kAllBytes[static_cast<std::size_t>(id)], 1);
}

std::span<const std::int32_t> ByteTokenizer::special_tokens() const {
  static constexpr std::int32_t kIds[] = {kByteEndOfText};
  return kIds;
}

void ByteTokenizer::encode_append(std::string_view text, std::vector<std::int32_t>& ids) const {
  const std::size_t before = ids.size();
  ids.resize(before + text.size());
  for (std::size_t i = 0; i < text.size(); ++i) ids[before + i] = static_cast<unsigned char>(text[i]);
}

void ByteTokenizer::save(const std::filesystem::path& folder) const {
  write_tokenizer_config(folder, {"byte", {std::string(kEndOfText)}});
}

}  // namespace llm
