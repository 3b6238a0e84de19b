// The BPE trainer. See bpe_trainer.h.
#include "common/tokenizer/bpe_trainer.h"

#include <algorithm>
#include <mutex>
#include <queue>
#include <set>

#include "common/core/error.h"
#include "common/core/threads.h"
#include "common/tokenizer/split.h"

namespace llm {
namespace {

constexpr std::size_t kPartBytes = std::size_t{1} << 20;

// A distinct piece as the tokens it is made of so far.
struct Word {
  std::vector<std::int32_t> symbols;
  std::int64_t count = 0;
};

struct PairInfo {
  std::int64_t count = 0;             // occurrences in the text
  std::vector<std::int32_t> words{};  // where it occurs, or did once
};

using Pair = std::uint64_t;  // left id << 32 | right id: compares as (left, right)

Pair make_pair_key(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

struct PairHash {
  std::size_t operator()(Pair pair) const {
    pair *= 0x9E3779B97F4A7C15u;
    return pair ^ (pair >> 32);
  }
};

using Pairs = std::unordered_map<Pair, PairInfo, PairHash>;

// An entry of the queue. Its count may be out of date, which shows when it comes to the top.
struct Candidate {
  std::int64_t count;
  Pair pair;
  // The order of std::priority_queue: the greatest is on top. More frequent first, then smaller ids.
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

std::vector<Word> make_words(const PieceCounts& pieces, const std::array<std::int32_t, 256>& byte_ids) {
  std::vector<Word> words;
  words.reserve(pieces.size());
  for (const auto& [piece, count] : pieces) {
    if (piece.size() < 2) continue;  // nothing to merge
    Word word{{}, count};
    word.symbols.reserve(piece.size());
    for (const char byte : piece) word.symbols.push_back(byte_ids[static_cast<unsigned char>(byte)]);
    words.push_back(std::move(word));
  }
  return words;
}

Pairs count_pairs(const std::vector<Word>& words) {
  Pairs pairs;
  for (std::size_t w = 0; w < words.size(); ++w) {
    const std::vector<std::int32_t>& s = words[w].symbols;
    for (std::size_t i = 0; i + 1 < s.size(); ++i) {
      PairInfo& info = pairs[make_pair_key(s[i], s[i + 1])];
      info.count += words[w].count;
      const auto index = static_cast<std::int32_t>(w);
      if (info.words.empty() || info.words.back() != index) info.words.push_back(index);
    }
  }
  return pairs;
}

// Replaces left, right by result in one word, from left to right, and keeps the counts of the pairs around.
// Appends to `grown` the pairs that became more frequent.
void merge_word(std::int32_t index, Word& word, std::int32_t left, std::int32_t right, std::int32_t result,
                Pairs& pairs, std::vector<Pair>& grown) {
  std::vector<std::int32_t>& s = word.symbols;
  const auto add = [&](std::int32_t a, std::int32_t b) {
    const Pair pair = make_pair_key(a, b);
    PairInfo& info = pairs[pair];
    info.count += word.count;
    if (info.words.empty() || info.words.back() != index) info.words.push_back(index);
    grown.push_back(pair);
  };
  const auto remove = [&](std::int32_t a, std::int32_t b) { pairs[make_pair_key(a, b)].count -= word.count; };
  std::size_t out = 0;
  for (std::size_t i = 0; i < s.size();) {
    if (i + 1 < s.size() && s[i] == left && s[i + 1] == right) {
      if (out > 0) {
        remove(s[out - 1], left);
        add(s[out - 1], result);
      }
      if (i + 2 < s.size()) {
        remove(right, s[i + 2]);
        add(result, s[i + 2]);
      }
      s[out++] = result;
      i += 2;
    } else {
      s[out++] = s[i++];
    }
  }
  s.resize(out);
}

}  // namespace

PieceCounts count_pieces(std::span<const std::string_view> texts) {
  // Parts of about one size, whatever the sizes of the texts.
  std::vector<std::string_view> parts;
  for (const std::string_view text : texts) {
    if (text.size() <= kPartBytes) {
      parts.push_back(text);
    } else {
      for (const std::string_view part : split_parts(text, kPartBytes)) parts.push_back(part);
    }
  }
  PieceCounts total;
  std::mutex mutex;
  // One count per thread: adding them up takes its time.
  const auto all = static_cast<std::int64_t>(parts.size());
  parallel_for(all, (all + thread_count() - 1) / thread_count(), [&](std::int64_t begin, std::int64_t end) {
    PieceCounts counts;
    for (std::int64_t p = begin; p < end; ++p) {
      const std::string_view part = parts[static_cast<std::size_t>(p)];
      for (std::size_t at = 0; at < part.size();) {
        const std::size_t next = piece_end(part, at);
        ++counts[part.substr(at, next - at)];
        at = next;
      }
    }
    const std::lock_guard lock(mutex);
    if (total.empty()) {
      total = std::move(counts);
    } else {
      for (const auto& [piece, count] : counts) total[piece] += count;
    }
  });
  return total;
}

void PieceCounter::add(std::span<const std::string_view> texts) {
  for (const auto& [piece, count] : count_pieces(texts)) {
    const auto known = counts_.find(piece);
    if (known != counts_.end())
      known->second += count;
    else
      counts_.emplace(pieces_.emplace_back(piece), count);
  }
}

BpeModel train_bpe(const PieceCounts& pieces, const BpeTrainerOptions& options) {
  const auto special = static_cast<std::int64_t>(options.special_tokens.size());
  if (options.vocab_size < 256 + special || options.vocab_size > 1'000'000)
    fail_usage(
        "a byte-level BPE vocabulary of {} tokens is not possible: at least {} (256 bytes, {} special), at "
        "most "
        "1000000",
        options.vocab_size, 256 + special, special);
  const std::set<std::string> names(options.special_tokens.begin(), options.special_tokens.end());
  check(names.size() == options.special_tokens.size() && !names.contains(""),
        "special tokens must have names, each its own");

  BpeModel model;
  std::array<std::int32_t, 256> byte_ids{};
  std::unordered_map<std::string, std::int32_t> ids;
  for (const std::uint8_t byte : byte_order()) {
    byte_ids[byte] = static_cast<std::int32_t>(model.tokens.size());
    model.tokens.emplace_back(1, static_cast<char>(byte));
    ids[model.tokens.back()] = byte_ids[byte];
  }

  std::vector<Word> words = make_words(pieces, byte_ids);
  Pairs pairs = count_pairs(words);
  std::vector<Candidate> first;
  first.reserve(pairs.size());
  for (const auto& [pair, info] : pairs) first.push_back({info.count, pair});
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(first));

  const std::int64_t wanted = options.vocab_size - special;
  std::vector<Pair> grown;
  while (static_cast<std::int64_t>(model.tokens.size()) < wanted && !queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    const auto found = pairs.find(best.pair);
    if (found == pairs.end()) continue;
    if (found->second.count != best.count) {  // it has changed since: back to where it belongs now
      if (found->second.count > 0) queue.push({found->second.count, best.pair});
      continue;
    }
    if (best.count < std::max<std::int64_t>(options.min_count, 1)) break;

    const auto left = static_cast<std::int32_t>(best.pair >> 32);
    const auto right = static_cast<std::int32_t>(best.pair & 0xffffffffu);
    std::string bytes =
        model.tokens[static_cast<std::size_t>(left)] + model.tokens[static_cast<std::size_t>(right)];
    const auto [known, is_new] =
        ids.emplace(std::move(bytes), static_cast<std::int32_t>(model.tokens.size()));
    const std::int32_t result = known->second;
    if (is_new) model.tokens.push_back(known->first);
    // A pair can come back when a later merge makes its left or right bytes anew; the rule is then known
    // already.
    const auto same = [&](const BpeMerge& m) { return m.left == left && m.right == right; };
    if (is_new || std::none_of(model.merges.begin(), model.merges.end(), same))
      model.merges.push_back({left, right, result});

    const std::vector<std::int32_t> where = std::move(found->second.words);
    pairs.erase(found);
    grown.clear();
    for (const std::int32_t w : where)
      merge_word(w, words[static_cast<std::size_t>(w)], left, right, result, pairs, grown);
    pairs.erase(best.pair);  // merging "aaa" touches the pair itself
    std::sort(grown.begin(), grown.end());
    grown.erase(std::unique(grown.begin(), grown.end()), grown.end());
    for (const Pair pair : grown)
      if (const auto at = pairs.find(pair); at != pairs.end() && at->second.count > 0)
        queue.push({at->second.count, pair});

    if (options.on_merge) options.on_merge(model, best.count);
  }

  for (const std::string& name : options.special_tokens) {
    model.special_tokens.push_back(static_cast<std::int32_t>(model.tokens.size()));
    model.tokens.push_back(name);
  }
  return model;
}

}  // namespace llm
