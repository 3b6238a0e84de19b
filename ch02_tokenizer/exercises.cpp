// Your answers to the exercises of chapter 2. What each function must do is in exercises.h.
#include "ch02_tokenizer/exercises.h"

#include "common/core/error.h"

namespace llm::exercises::ch02 {

// 2.1
Pair most_frequent_pair(std::span<const std::int32_t> ids) {
  not_started();  // your code instead of this line
}

// 2.2
std::vector<std::int32_t> merge_pair(std::span<const std::int32_t> ids, Pair pair, std::int32_t new_id) {
  not_started();  // your code instead of this line
}

// 2.3
std::vector<std::int32_t> encode_bytes(std::string_view bytes, std::span<const Pair> merges) {
  not_started();  // your code instead of this line
}

// 2.4
std::vector<float> embed(std::span<const std::int32_t> ids, std::int64_t length,
                         std::span<const float> token_table, std::span<const float> position_table,
                         std::int64_t channels) {
  not_started();  // your code instead of this line
}

}  // namespace llm::exercises::ch02
