// The walk through chapter 4: what the text explains, on real data, in the same order.
#pragma once

#include <cstdint>
#include <filesystem>

#include "common/cli/metrics.h"

namespace llm::ch04 {

/// Prints the chapter's examples and leaves work/ch04_gpt_model, an untrained model. Makes
/// work/ch02_tokenizer if it is missing.
void walk(const std::filesystem::path& work, std::uint64_t seed, MetricsWriter& metrics);

}  // namespace llm::ch04
