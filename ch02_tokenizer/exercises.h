// The exercises of chapter 2: a tokenizer in three functions, and the first layer of a GPT. You write them in
// exercises.cpp; `./book check ch02` says how far you are, `./book hint 2.1` helps.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tests/exercises/not_started.h"

namespace llm::exercises::ch02 {

/// Two neighbouring tokens.
struct Pair {
  std::int32_t left = 0;
  std::int32_t right = 0;
  bool operator==(const Pair&) const = default;
};

/// 2.1 The pair of neighbours that occurs most often in `ids` (at least two of them). Every position counts,
/// so 7 7 7 has the pair (7, 7) twice. Of pairs that are equally frequent the one with the smaller left id is
/// taken; of those, the one with the smaller right id. The text tells why in "Learning the merges".
Pair most_frequent_pair(std::span<const std::int32_t> ids);

/// 2.2 `ids` with every occurrence of `pair` replaced by `new_id`, from left to right: merging (7, 7) into 9
/// turns 7 7 7 into 9 7. What was replaced is used up.
std::vector<std::int32_t> merge_pair(std::span<const std::int32_t> ids, Pair pair, std::int32_t new_id);

/// 2.3 The tokens of `bytes`. They begin as the values of the bytes, 0 to 255. merges[r] says that its pair
/// may become token 256 + r. As long as any neighbours may merge: take the pair with the smallest r that is
/// there (not the one that stands first), and merge it wherever it occurs. The text shows it in "Encoding".
std::vector<std::int32_t> encode_bytes(std::string_view bytes, std::span<const Pair> merges);

/// 2.4 The first layer of a GPT, in flat row-major arrays. `ids` (B, T), `token_table` (V, C),
/// `position_table` (at least T, C); the result is x (B, T, C):
///
///     x[b, t, c] = token_table[ids[b, t], c] + position_table[t, c]
///
/// B is ids.size() / length, with length = T; C is `channels`. llm::Error if an id is not in the table
/// (see llm::check in common/core/error.h). The text: "From tokens to vectors".
std::vector<float> embed(std::span<const std::int32_t> ids, std::int64_t length,
                         std::span<const float> token_table, std::span<const float> position_table,
                         std::int64_t channels);

}  // namespace llm::exercises::ch02
