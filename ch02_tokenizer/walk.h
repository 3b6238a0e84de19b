// The walk through chapter 2, on the documents of chapter 1.
#pragma once

#include <cstdint>
#include <filesystem>

#include "common/cli/metrics.h"

namespace llm::ch02 {

/// Prints the chapter's examples and leaves work/ch02_tokenizer: the tokenizer and the shards. Makes
/// work/ch01_data if it is missing.
void walk(const std::filesystem::path& work, std::uint64_t seed, MetricsWriter& metrics);

}  // namespace llm::ch02
