// Files that people fine-tune on. Chapter 7 explains them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/finetuning/examples.h"

namespace llm {

/// `label TAB text` lines; labels become numbers in the order of `names`. Error names the line.
std::vector<LabelledText> read_labelled_lines(const std::filesystem::path& path,
                                              const std::vector<std::string>& names);

struct InstructionEntry {
  std::string instruction, input, output;
  std::string chosen, rejected;  // where the file has preferences
};
/// A JSON array of objects with "instruction", "input", "output", and perhaps "chosen" and "rejected". Error
/// names the entry.
std::vector<InstructionEntry> read_instructions(const std::filesystem::path& path);

}  // namespace llm
