// The walk through chapter 3: what the text explains, on a sentence of a story, in the same order.
#pragma once

#include <cstdint>
#include <filesystem>

#include "common/cli/metrics.h"

namespace llm::ch03 {

/// Prints the chapter's examples and leaves pictures in work/ch03_attention. Makes work/ch02_tokenizer if it
/// is missing.
void walk(const std::filesystem::path& work, std::uint64_t seed, MetricsWriter& metrics);

/// Its second half, on the device at hand: what memory accesses cost, a matrix product in two ways, attention
/// in four.
void walk_on_the_device(std::uint64_t seed, MetricsWriter& metrics);

/// The attention of a trained model (a Hugging Face folder with its tokenizer) on `text`: one layer, counted
/// from 0, all heads, in the terminal and as pictures in work/ch03_attention.
void show_model(const std::filesystem::path& model, const std::string& text, std::int64_t layer,
                const std::filesystem::path& work);

}  // namespace llm::ch03
