// The artifacts of chapters 1 and 2 for the programs of later chapters: there, or made now.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>

namespace llm {

/// Returns `work`/ch02_tokenizer, a token folder of the story world. What is missing of it is made as the
/// walks of chapters 1 and 2 make it (20 MB of stories in `work`/ch01_data, a vocabulary of 1,024), which
/// takes some seconds; `say` is told so beforehand.
std::filesystem::path story_token_folder(const std::filesystem::path& work, std::uint64_t seed,
                                         const std::function<void(std::string_view)>& say);

}  // namespace llm
