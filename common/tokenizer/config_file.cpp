// Reading and writing tokenizer_config.json and vocab.json. See config_file.h.
#include "common/tokenizer/config_file.h"

#include <nlohmann/json.hpp>

#include "common/core/error.h"
#include "common/core/file.h"

namespace llm {
namespace {

using nlohmann::json;

constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 30;

// Receives the events of the JSON parser and keeps to what a vocabulary is: {"string": id, ...}, nothing
// nested.
class VocabularyReader : public nlohmann::json_sax<json> {
 public:
  explicit VocabularyReader(const std::filesystem::path& path) : path_(path.string()) {}

  bool null() override { return wrong("null"); }
  bool boolean(bool) override { return wrong("a boolean"); }
  bool number_integer(number_integer_t value) override {
    fail("{}: token \"{}\" has the id {}; ids are 0 or more", path_, key_, value);
  }
  bool number_float(number_float_t, const string_t& text) override { return wrong(text); }
  bool string(string_t&) override { return wrong("a string"); }
  bool binary(binary_t&) override { return wrong("bytes"); }
  bool start_object(std::size_t) override {
    if (inside_) return wrong("an object");
    inside_ = true;
    return true;
  }
  bool start_array(std::size_t) override { return wrong("an array"); }
  bool end_array() override { return true; }
  bool end_object() override { return true; }
  bool key(string_t& name) override {
    key_ = name;
    return true;
  }
  bool number_unsigned(number_unsigned_t id) override {
    if (!inside_) return wrong("a number");
    check(id < kMaxFileBytes, "{}: token \"{}\" has the absurd id {}", path_, key_, id);
    entries.emplace_back(std::move(key_), id);
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail("{} is not valid JSON: something is wrong at byte {}", path_, position);
  }

  std::vector<std::pair<std::string, std::uint64_t>> entries;

 private:
  [[noreturn]] bool wrong(const std::string& found) const {
    if (!inside_) fail("{} holds {}, expected an object of tokens and ids", path_, found);
    fail("{}: token \"{}\" has {} where its id should be, a whole number", path_, key_, found);
  }
  std::string path_;
  std::string key_;
  bool inside_ = false;
};

}  // namespace

std::vector<std::string> read_vocabulary(const std::filesystem::path& path) {
  VocabularyReader reader(path);
  json::sax_parse(read_file(path, kMaxFileBytes), &reader);
  const std::size_t n = reader.entries.size();
  check(n > 0, "{} holds no tokens", path.string());
  std::vector<std::string> tokens(n);
  std::vector<bool> seen(n);
  for (auto& [token, id] : reader.entries) {
    check(id < n, "{}: token \"{}\" has the id {}, but with {} tokens ids end at {}", path.string(), token,
          id, n, n - 1);
    check(!seen[id], "{}: tokens \"{}\" and \"{}\" have the same id {}", path.string(), tokens[id], token,
          id);
    seen[id] = true;
    tokens[id] = std::move(token);
  }
  return tokens;
}

void write_vocabulary(const std::filesystem::path& path, const std::vector<std::string>& tokens) {
  std::string text = "{";
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    if (id > 0) text += ", ";
    text += json(tokens[id]).dump() + ": " + std::to_string(id);
  }
  write_file(path, text + "}\n");
}

std::optional<TokenizerConfig> read_tokenizer_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "tokenizer_config.json";
  if (!std::filesystem::exists(path)) return std::nullopt;
  const json root = json::parse(read_file(path, kMaxFileBytes), nullptr, false);
  check(!root.is_discarded(), "{} is not valid JSON", path.string());
  check(root.is_object(), "{} is not a JSON object", path.string());
  TokenizerConfig config;
  if (const auto kind = root.find("kind"); kind != root.end()) {
    check(kind->is_string(), "{}: \"kind\" is not a string", path.string());
    config.kind = kind->get<std::string>();
  }
  if (const auto special = root.find("special_tokens"); special != root.end()) {
    check(special->is_array(), "{}: \"special_tokens\" is not an array", path.string());
    for (const json& name : *special) {
      check(name.is_string() && !name.get_ref<const std::string&>().empty(),
            "{}: \"special_tokens\" holds something that is not a name", path.string());
      config.special_tokens.push_back(name.get<std::string>());
    }
  }
  return config;
}

void write_tokenizer_config(const std::filesystem::path& folder, const TokenizerConfig& config) {
  nlohmann::ordered_json root;
  root["kind"] = config.kind;
  root["special_tokens"] = config.special_tokens;
  if (config.kind == "bpe") {
    root["tokenizer_class"] = "GPT2Tokenizer";
    root["add_prefix_space"] = false;
    if (!config.special_tokens.empty())
      for (const char* role : {"bos_token", "eos_token", "unk_token"}) root[role] = config.special_tokens[0];
  }
  write_file(folder / "tokenizer_config.json", root.dump(2) + "\n");
}

}  // namespace llm
