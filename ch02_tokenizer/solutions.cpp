// Answers to the exercises of chapter 2, short rather than fast. The library's own are in common/tokenizer.
#include <map>
#include <utility>

#include "ch02_tokenizer/exercises.h"
#include "common/core/error.h"

namespace llm::exercises::ch02 {

// 2.1
Pair most_frequent_pair(std::span<const std::int32_t> ids) {
  std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> counts;  // sorted by left, then right
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) ++counts[{ids[i], ids[i + 1]}];
  Pair best;
  std::int64_t most = 0;
  for (const auto& [pair, count] : counts) {
    if (count > most) {  // not >=: of equals the first stays, and it is the smallest
      most = count;
      best = {pair.first, pair.second};
    }
  }
  return best;
}

// 2.2
std::vector<std::int32_t> merge_pair(std::span<const std::int32_t> ids, Pair pair, std::int32_t new_id) {
  std::vector<std::int32_t> merged;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i + 1 < ids.size() && ids[i] == pair.left && ids[i + 1] == pair.right) {
      merged.push_back(new_id);
      ++i;  // the right one is used up, too
    } else {
      merged.push_back(ids[i]);
    }
  }
  return merged;
}

// 2.3
std::vector<std::int32_t> encode_bytes(std::string_view bytes, std::span<const Pair> merges) {
  std::vector<std::int32_t> ids;
  for (const char byte : bytes) ids.push_back(static_cast<unsigned char>(byte));
  // Merge r makes the token 256 + r, which only later merges contain. So one pass over the merges, each
  // applied everywhere, takes the smallest r first at any time.
  for (std::size_t r = 0; r < merges.size(); ++r) {
    std::vector<std::int32_t> next;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const bool merge = i + 1 < ids.size() && merges[r] == Pair{ids[i], ids[i + 1]};
      next.push_back(merge ? static_cast<std::int32_t>(256 + r) : ids[i]);
      if (merge) ++i;
    }
    ids = std::move(next);
  }
  return ids;
}

// 2.4
std::vector<float> embed(std::span<const std::int32_t> ids, std::int64_t length,
                         std::span<const float> token_table, std::span<const float> position_table,
                         std::int64_t channels) {
  const auto C = static_cast<std::size_t>(channels);
  const auto T = static_cast<std::size_t>(length);
  const std::size_t V = token_table.size() / C;
  std::vector<float> x(ids.size() * C);
  for (std::size_t i = 0; i < ids.size(); ++i) {  // i = b T + t
    check(ids[i] >= 0 && static_cast<std::size_t>(ids[i]) < V, "token {} is not in the table of {}", ids[i],
          V);
    const std::size_t row = static_cast<std::size_t>(ids[i]);
    const std::size_t t = i % T;
    for (std::size_t c = 0; c < C; ++c) x[i * C + c] = token_table[row * C + c] + position_table[t * C + c];
  }
  return x;
}

}  // namespace llm::exercises::ch02
