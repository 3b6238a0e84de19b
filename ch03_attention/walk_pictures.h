// Attention weights as pictures: in the terminal and as SVG.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/tokenizer/tokenizer.h"

namespace llm::ch03 {

/// A token as one can read it, in quotes: ' kite'.
std::string readable_token(const Tokenizer& tokenizer, std::int32_t id);

/// The tokens of a text with bars between.
std::string show_tokens(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids);

/// weights (T, T), row t: what token t looks at. `causal` leaves what lies right of the diagonal blank.
void show_heat_map(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids, const float* weights,
                   bool causal, const std::string& title, const std::filesystem::path& svg_file);

}  // namespace llm::ch03
