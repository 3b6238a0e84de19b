// What all tokenizers share: batches, special tokens in text, decoding. See tokenizer.h.
#include "common/tokenizer/tokenizer.h"

#include "common/core/error.h"
#include "common/core/threads.h"

namespace llm {

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  encode_append(text, ids);
  return ids;
}

std::vector<std::int32_t> Tokenizer::encode_with_special(std::string_view text) const {
  std::vector<std::int32_t> ids;
  while (true) {
    // The special token that begins first; of two that begin together, the longer.
    std::size_t first = std::string_view::npos, length = 0;
    std::int32_t special = -1;
    for (const std::int32_t id : special_tokens()) {
      const std::string_view name = token_bytes(id);
      const std::size_t at = text.find(name);
      if (at == std::string_view::npos || name.empty()) continue;
      if (special < 0 || at < first || (at == first && name.size() > length)) {
        first = at;
        length = name.size();
        special = id;
      }
    }
    encode_append(text.substr(0, first), ids);
    if (special < 0) return ids;
    ids.push_back(special);
    text.remove_prefix(first + length);
  }
}

std::vector<std::vector<std::int32_t>> Tokenizer::encode_batch(
    std::span<const std::string_view> texts) const {
  std::vector<std::vector<std::int32_t>> ids(texts.size());
  if (texts.size() == 1) {  // here the threads are better used within the text
    encode_append(texts[0], ids[0]);
    return ids;
  }
  parallel_for(static_cast<std::int64_t>(texts.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      encode_append(texts[static_cast<std::size_t>(i)], ids[static_cast<std::size_t>(i)]);
  });
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  std::string text;
  text.reserve(ids.size() * 4);
  for (const std::int32_t id : ids) text += token_bytes(id);
  return text;
}

std::optional<std::int32_t> Tokenizer::end_of_text() const {
  for (const std::int32_t id : special_tokens())
    if (token_bytes(id) == kEndOfText) return id;
  return std::nullopt;
}

}  // namespace llm
