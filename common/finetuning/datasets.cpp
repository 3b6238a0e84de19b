// Labelled lines and instructions. See datasets.h.
#include "common/finetuning/datasets.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/core/error.h"
#include "common/core/file.h"

namespace llm {

std::vector<LabelledText> read_labelled_lines(const std::filesystem::path& path,
                                              const std::vector<std::string>& names) {
  const std::string text = read_file(path);
  std::vector<LabelledText> texts;
  std::size_t line = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = std::min(text.find('\n', begin), text.size());
    ++line;
    std::string content = text.substr(begin, end - begin);
    begin = end + 1;
    if (content.ends_with('\r')) content.pop_back();
    if (content.empty()) continue;
    const std::size_t tab = content.find('\t');
    check(tab != std::string::npos, "{}, line {}: expected a label, a tab and a text", path.string(), line);
    const auto label = std::ranges::find(names, content.substr(0, tab));
    check(label != names.end() && tab + 1 < content.size(),
          "{}, line {}: expected one of the labels {}, a tab and a text", path.string(), line,
          fmt::join(names, ", "));
    texts.push_back({content.substr(tab + 1), label - names.begin()});
  }
  check(!texts.empty(), "{} holds no lines", path.string());
  return texts;
}

std::vector<InstructionEntry> read_instructions(const std::filesystem::path& path) {
  const auto json = nlohmann::json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  check(json.is_array() && !json.empty(), "{} is no JSON array of instructions", path.string());
  std::vector<InstructionEntry> all;
  for (const auto& entry : json) {
    const auto text = [&](const char* key, bool needed) {
      const bool there = entry.is_object() && entry.contains(key) && entry[key].is_string();
      check(there || !needed, "{}: entry {} has no text \"{}\"", path.string(), all.size(), key);
      return there ? entry[key].get<std::string>() : std::string();
    };
    all.push_back({text("instruction", true), text("input", false), text("output", true),
                   text("chosen", false), text("rejected", false)});
    check(!all.back().output.empty(), "{}: entry {} has an empty output", path.string(), all.size() - 1);
  }
  return all;
}

}  // namespace llm
