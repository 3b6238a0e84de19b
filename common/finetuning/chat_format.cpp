// See chat_format.h.
#include "common/finetuning/chat_format.h"

#include <nlohmann/json.hpp>

#include "common/core/error.h"
#include "common/core/file.h"

namespace llm {

std::string ChatFormat::text(std::span<const Turn> turns) const {
  if (name == "chat") return chat_prompt(turns);
  std::string text;
  if (name == "alpaca") {
    for (const Turn& turn : turns)
      if (turn.speaker == "user") text = turn.text;
    return alpaca_prompt(text, "");
  }
  for (const Turn& turn : turns) {
    if (!text.empty()) text += '\n';
    text += turn.text;
  }
  return text;
}

std::vector<std::int32_t> ChatFormat::tokens(const Tokenizer& tokenizer, std::span<const Turn> turns) const {
  std::vector<std::int32_t> tokens;
  const std::string all = text(turns);
  if (const auto end = tokenizer.end_of_text(); end && (name != "plain" || all.empty()))
    tokens.push_back(*end);
  tokenizer.encode_append(all, tokens);
  return tokens;
}

std::vector<std::string> ChatFormat::stops() const {
  if (name == "chat") return {"\nUser:"};
  if (name == "alpaca") return {"\n### Instruction:"};
  return {};
}

ChatFormat load_chat_format(const std::filesystem::path& model_folder) {
  const std::filesystem::path file = model_folder / "finetuning.json";
  if (!std::filesystem::exists(file)) return {};
  const auto json = nlohmann::json::parse(read_file(file), nullptr, false);
  check(json.is_object() && json.contains("template") && json["template"].is_string(),
        "{} does not say which template the model was taught", file.string());
  ChatFormat format{json["template"].get<std::string>()};
  if (format.name != "chat" && format.name != "alpaca") format.name = "plain";  // "none", "unknown"
  return format;
}

}  // namespace llm
