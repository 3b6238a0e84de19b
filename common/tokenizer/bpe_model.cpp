// BPE models as files: vocab.json and merges.txt, and tiktoken's rank files. See bpe_model.h.
#include "common/tokenizer/bpe_model.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <unordered_map>
#include <unordered_set>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/tokenizer/config_file.h"
#include "common/tokenizer/tokenizer.h"

namespace llm {
namespace {

constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 30;

std::uint64_t pair_key(const BpeMerge& merge) {
  return std::uint64_t{static_cast<std::uint32_t>(merge.left)} << 32 |
         static_cast<std::uint32_t>(merge.right);
}

// Calls body(line, number) for each line, numbers from 1; a carriage return at the end is not part of the
// line.
template <typename Body>
void for_each_line(std::string_view text, Body body) {
  for (std::int64_t number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    body(line, number);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
}

constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string to_base64(std::string_view bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t n = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j)
      group = group << 8 | (j < n ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    for (std::size_t j = 0; j < 4; ++j) text += j <= n ? kBase64[group >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

// False if `text` is not base64.
bool from_base64(std::string_view text, std::string& bytes) {
  bytes.clear();
  if (text.empty() || text.size() % 4 != 0) return false;
  std::size_t padding = 0;
  while (padding < 2 && text[text.size() - 1 - padding] == '=') ++padding;
  for (std::size_t i = 0; i < text.size(); i += 4) {
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 4; ++j) {
      const bool pad = i + j >= text.size() - padding;
      const std::size_t value = pad ? 0 : kBase64.find(text[i + j]);
      if (value == std::string_view::npos) return false;
      group = group << 6 | static_cast<std::uint32_t>(value);
    }
    for (int shift = 16; shift >= 0; shift -= 8) bytes += static_cast<char>(group >> shift & 255);
  }
  bytes.resize(bytes.size() - padding);
  return true;
}

}  // namespace

void check_bpe_model(const BpeModel& model, std::string_view source) {
  const auto n = static_cast<std::int32_t>(model.tokens.size());
  std::vector<bool> special(model.tokens.size());
  for (const std::int32_t id : model.special_tokens) {
    check(id >= 0 && id < n, "{}: the special token {} is not in the vocabulary of {}", source, id, n);
    special[static_cast<std::size_t>(id)] = true;
  }
  std::unordered_set<std::string_view> seen;
  seen.reserve(model.tokens.size());
  std::array<bool, 256> has_byte{};
  for (std::size_t id = 0; id < model.tokens.size(); ++id) {
    const std::string& token = model.tokens[id];
    check(!token.empty(), "{}: token {} is empty", source, id);
    if (special[id]) continue;
    if (!seen.insert(token).second) fail("{}: the token \"{}\" is there twice", source, spell_bytes(token));
    if (token.size() == 1) has_byte[static_cast<unsigned char>(token[0])] = true;
  }
  const auto missing = std::find(has_byte.begin(), has_byte.end(), false) - has_byte.begin();
  check(missing == 256, "{}: the byte {} has no token; byte-level BPE needs all 256", source, missing);
  std::unordered_set<std::uint64_t> pairs;
  pairs.reserve(model.merges.size());
  for (std::size_t rank = 0; rank < model.merges.size(); ++rank) {
    const BpeMerge& m = model.merges[rank];
    for (const std::int32_t id : {m.left, m.right, m.result})
      check(id >= 0 && id < n && !special[static_cast<std::size_t>(id)],
            "{}: merge {} has the token {}, which is not one that text is made of", source, rank, id);
    const std::string& left = model.tokens[static_cast<std::size_t>(m.left)];
    const std::string& right = model.tokens[static_cast<std::size_t>(m.right)];
    const std::string& result = model.tokens[static_cast<std::size_t>(m.result)];
    const bool joins =
        result.size() == left.size() + right.size() && result.starts_with(left) && result.ends_with(right);
    if (!joins)
      fail("{}: merge {} makes \"{}\" of \"{}\" and \"{}\"", source, rank, spell_bytes(result),
           spell_bytes(left), spell_bytes(right));
    if (!pairs.insert(pair_key(m)).second)
      fail("{}: merge {} (\"{}\" and \"{}\") is there twice", source, rank, spell_bytes(left),
           spell_bytes(right));
  }
}

BpeModel read_bpe_files(const std::filesystem::path& vocab_json, const std::filesystem::path& merges_txt,
                        const std::optional<std::vector<std::string>>& special_tokens) {
  BpeModel model;
  const std::vector<std::string> spellings = read_vocabulary(vocab_json);
  std::unordered_map<std::string_view, std::int32_t> ids;
  ids.reserve(spellings.size());
  for (std::size_t id = 0; id < spellings.size(); ++id)
    check(ids.emplace(spellings[id], static_cast<std::int32_t>(id)).second,
          "{}: the token \"{}\" is there twice", vocab_json.string(), spellings[id]);
  std::vector<std::string> names = special_tokens.value_or(std::vector<std::string>{});
  if (!special_tokens && ids.contains(kEndOfText)) names.emplace_back(kEndOfText);
  std::vector<bool> special(spellings.size());
  for (const std::string& name : names) {
    const auto at = ids.find(name);
    check(at != ids.end(), "{} has no token \"{}\", which should be a special token", vocab_json.string(),
          name);
    model.special_tokens.push_back(at->second);
    special[static_cast<std::size_t>(at->second)] = true;
  }
  model.tokens.reserve(spellings.size());
  try {
    for (std::size_t id = 0; id < spellings.size(); ++id)
      model.tokens.push_back(special[id] ? spellings[id] : unspell_bytes(spellings[id]));
  } catch (const Error& error) {
    fail("{}: {}", vocab_json.string(), error.what());
  }

  const std::string merges = read_file(merges_txt, kMaxFileBytes);
  std::string joined;
  for_each_line(merges, [&](std::string_view line, std::int64_t number) {
    if (line.empty() || (number == 1 && line.starts_with("#version"))) return;
    const std::size_t space = line.find(' ');
    check(space != std::string_view::npos && space > 0 && space + 1 < line.size() &&
              line.find(' ', space + 1) == std::string_view::npos,
          "{}, line {}: expected two tokens with a space between them", merges_txt.string(), number);
    const std::string_view left = line.substr(0, space), right = line.substr(space + 1);
    const auto id_of = [&](std::string_view token) {
      const auto at = ids.find(token);
      check(at != ids.end(), "{}, line {}: the token \"{}\" is not in {}", merges_txt.string(), number, token,
            vocab_json.filename().string());
      return at->second;
    };
    joined.assign(left).append(right);
    model.merges.push_back({id_of(left), id_of(right), id_of(joined)});
  });
  check_bpe_model(model, vocab_json.parent_path().string());
  return model;
}

void write_bpe_files(const BpeModel& model, const std::filesystem::path& folder) {
  std::vector<bool> special(model.tokens.size());
  for (const std::int32_t id : model.special_tokens) special[static_cast<std::size_t>(id)] = true;
  std::vector<std::string> spellings;
  spellings.reserve(model.tokens.size());
  for (std::size_t id = 0; id < model.tokens.size(); ++id)
    spellings.push_back(special[id] ? model.tokens[id] : spell_bytes(model.tokens[id]));
  std::string merges = "#version: 0.2\n";
  for (const BpeMerge& m : model.merges)
    merges += spellings[static_cast<std::size_t>(m.left)] + " " +
              spellings[static_cast<std::size_t>(m.right)] + "\n";
  write_vocabulary(folder / "vocab.json", spellings);
  write_file(folder / "merges.txt", merges);
}

BpeModel read_tiktoken_file(const std::filesystem::path& path,
                            const std::vector<std::string>& special_tokens) {
  const std::string text = read_file(path, kMaxFileBytes);
  BpeModel model;
  std::string bytes;
  for_each_line(text, [&](std::string_view line, std::int64_t number) {
    if (line.empty()) return;
    const std::size_t space = line.find(' ');
    std::int64_t rank = -1;
    const char* end = line.data() + line.size();
    check(space != std::string_view::npos && from_base64(line.substr(0, space), bytes) &&
              std::from_chars(line.data() + space + 1, end, rank).ptr == end && space + 1 < line.size(),
          "{}, line {}: expected a token in base64, a space and its rank", path.string(), number);
    check(rank == static_cast<std::int64_t>(model.tokens.size()),
          "{}, line {}: expected the rank {}, found {}", path.string(), number, model.tokens.size(), rank);
    model.tokens.push_back(bytes);
  });
  check(!model.tokens.empty(), "{} holds no tokens", path.string());

  std::unordered_map<std::string_view, std::int32_t> ids;
  for (std::size_t id = 0; id < model.tokens.size(); ++id)
    ids.emplace(model.tokens[id], static_cast<std::int32_t>(id));
  for (std::size_t id = 0; id < model.tokens.size(); ++id) {
    const std::string_view token = model.tokens[id];
    for (std::size_t cut = 1; cut < token.size(); ++cut) {
      const auto left = ids.find(token.substr(0, cut)), right = ids.find(token.substr(cut));
      if (left != ids.end() && right != ids.end())
        model.merges.push_back({left->second, right->second, static_cast<std::int32_t>(id)});
    }
  }
  for (const std::string& name : special_tokens) {
    model.special_tokens.push_back(static_cast<std::int32_t>(model.tokens.size()));
    model.tokens.push_back(name);
  }
  check_bpe_model(model, path.string());
  return model;
}

void write_tiktoken_file(const BpeModel& model, const std::filesystem::path& path) {
  const std::size_t n = model.tokens.size() - model.special_tokens.size();
  for (const std::int32_t id : model.special_tokens)
    check(static_cast<std::size_t>(id) >= n,
          "{}: a rank file numbers its tokens without gaps, but the special token {} stands between them",
          path.string(), id);
  std::string text;
  for (std::size_t id = 0; id < n; ++id)
    text += to_base64(model.tokens[id]) + " " + std::to_string(id) + "\n";
  write_file(path, text);
}

}  // namespace llm
