// Encoding with byte-level BPE. See bpe_tokenizer.h.
#include "common/tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <bit>
#include <queue>

#include "common/core/error.h"
#include "common/core/threads.h"
#include "common/tokenizer/config_file.h"
#include "common/tokenizer/piece_cache.h"
#include "common/tokenizer/split.h"

namespace llm {
namespace {

// Up to this many bytes, looking at all neighbours again after each merge is faster than a heap.
constexpr std::size_t kScanBytes = 96;

// A text longer than two of these is encoded in parts of this size, in parallel.
constexpr std::size_t kPartBytes = std::size_t{1} << 18;

}  // namespace

MergeTable::MergeTable(const std::vector<BpeMerge>& merges) {
  const std::size_t size = std::bit_ceil(2 * merges.size() + 2);  // at most half full
  shift_ = 64 - std::countr_zero(size);
  entries_.resize(size);
  std::int32_t rank = 0;
  for (const BpeMerge& merge : merges) {
    const std::uint64_t pair =
        std::uint64_t{static_cast<std::uint32_t>(merge.left)} << 32 | static_cast<std::uint32_t>(merge.right);
    std::size_t i = slot(pair);
    while (entries_[i].pair != ~std::uint64_t{0}) i = (i + 1) & (size - 1);
    entries_[i] = {pair, rank++, merge.result};
  }
}

const MergeTable::Entry* MergeTable::find(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair =
      std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  for (std::size_t i = slot(pair);; i = (i + 1) & (entries_.size() - 1)) {
    if (entries_[i].pair == pair) return &entries_[i];
    if (entries_[i].pair == ~std::uint64_t{0}) return nullptr;
  }
}

BpeTokenizer::BpeTokenizer(BpeModel model) : model_(std::move(model)), merges_(model_.merges) {
  check_bpe_model(model_, "the BPE model");
  byte_ids_.fill(-1);
  std::vector<bool> special(model_.tokens.size());
  for (const std::int32_t id : model_.special_tokens) special[static_cast<std::size_t>(id)] = true;
  for (std::size_t id = 0; id < model_.tokens.size(); ++id) {
    const std::string& token = model_.tokens[id];
    if (token.size() == 1 && !special[id])
      byte_ids_[static_cast<unsigned char>(token[0])] = static_cast<std::int32_t>(id);
  }
}

BpeTokenizer::~BpeTokenizer() = default;

std::string_view BpeTokenizer::token_bytes(std::int32_t id) const {
  check(id >= 0 && id < vocab_size(), "there is no token {}: the vocabulary has {} tokens", id, vocab_size());
  return model_.tokens[static_cast<std::size_t>(id)];
}

void BpeTokenizer::encode_piece_scan(std::string_view piece, std::vector<std::int32_t>& ids) const {
  constexpr std::int32_t kNone = INT32_MAX;
  if (piece.empty()) return;
  struct Symbol {
    std::int32_t id;
    std::int32_t rank;    // of the merge with the symbol after it
    std::int32_t result;  // of that merge
  };
  Symbol on_stack[kScanBytes];
  std::vector<Symbol> on_heap;
  Symbol* symbols = on_stack;
  if (piece.size() > kScanBytes) {
    on_heap.resize(piece.size());
    symbols = on_heap.data();
  }
  std::size_t n = piece.size();
  const auto look = [&](std::size_t i) {  // the merge of symbols i and i + 1
    const MergeTable::Entry* merge = i + 1 < n ? merges_.find(symbols[i].id, symbols[i + 1].id) : nullptr;
    symbols[i].rank = merge ? merge->rank : kNone;
    symbols[i].result = merge ? merge->result : 0;
  };
  for (std::size_t i = 0; i < n; ++i) symbols[i].id = byte_ids_[static_cast<unsigned char>(piece[i])];
  for (std::size_t i = 0; i < n; ++i) look(i);

  while (n > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < n; ++i)
      if (symbols[i].rank < symbols[best].rank) best = i;
    if (symbols[best].rank == kNone) break;
    symbols[best].id = symbols[best].result;
    std::copy(symbols + best + 2, symbols + n, symbols + best + 1);
    --n;
    look(best);
    if (best > 0) look(best - 1);
  }
  for (std::size_t i = 0; i < n; ++i) ids.push_back(symbols[i].id);
}

void BpeTokenizer::encode_piece_heap(std::string_view piece, std::vector<std::int32_t>& ids) const {
  check(piece.size() < (std::size_t{1} << 31),
        "a piece of text without white space has {} bytes, at most {} fit", piece.size(),
        (std::int64_t{1} << 31) - 1);
  const auto n = static_cast<std::int32_t>(piece.size());
  // A linked list of symbols: a merge keeps the left one and takes the right one out.
  struct Symbol {
    std::int32_t id, previous, next;
  };
  std::vector<Symbol> symbols(piece.size());
  for (std::int32_t i = 0; i < n; ++i)
    symbols[static_cast<std::size_t>(i)] = {
        byte_ids_[static_cast<unsigned char>(piece[static_cast<std::size_t>(i)])], i - 1,
        i + 1 < n ? i + 1 : -1};

  struct Candidate {
    std::int32_t rank, at;  // position of the left symbol
    std::int32_t left, right, result;
  };
  // On top: the lowest rank, of equals the leftmost.
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
  };
  std::vector<Candidate> heap;
  const auto candidate_at = [&](std::int32_t at) {
    const Symbol& symbol = symbols[static_cast<std::size_t>(at)];
    if (symbol.next < 0) return false;
    const std::int32_t right = symbols[static_cast<std::size_t>(symbol.next)].id;
    const MergeTable::Entry* merge = merges_.find(symbol.id, right);
    if (!merge) return false;
    heap.push_back({merge->rank, at, symbol.id, right, merge->result});
    return true;
  };
  for (std::int32_t i = 0; i < n; ++i) candidate_at(i);
  std::make_heap(heap.begin(), heap.end(), later);

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Candidate best = heap.back();
    heap.pop_back();
    // A candidate is out of date if one of its two symbols has changed since.
    Symbol& left = symbols[static_cast<std::size_t>(best.at)];
    if (left.id != best.left || left.next < 0) continue;
    Symbol& right = symbols[static_cast<std::size_t>(left.next)];
    if (right.id != best.right) continue;
    left.id = best.result;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = best.at;
    if (candidate_at(best.at)) std::push_heap(heap.begin(), heap.end(), later);
    if (left.previous >= 0 && candidate_at(left.previous)) std::push_heap(heap.begin(), heap.end(), later);
  }
  for (std::int32_t i = n > 0 ? 0 : -1; i >= 0; i = symbols[static_cast<std::size_t>(i)].next)
    ids.push_back(symbols[static_cast<std::size_t>(i)].id);
}

void BpeTokenizer::encode_part(std::string_view text, PieceCache& cache,
                               std::vector<std::int32_t>& ids) const {
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = piece_end(text, begin);
    const std::size_t length = end - begin;
    const std::string_view piece = text.substr(begin, length);
    if (length <= PieceCache::kMaxBytes) {
      const PieceCache::Key key = PieceCache::key(text, begin, length);
      PieceCache::Slot& slot = cache.slot(key);
      if (!PieceCache::holds(slot, key)) {
        const std::size_t before = ids.size();
        encode_piece_scan(piece, ids);
        const std::size_t count = ids.size() - before;
        if (count <= PieceCache::kMaxTokens) {
          slot.key = key;
          slot.count = static_cast<std::uint32_t>(count);
          std::copy(ids.begin() + static_cast<std::ptrdiff_t>(before), ids.end(), slot.ids);
        }
      } else {
        ids.insert(ids.end(), slot.ids, slot.ids + slot.count);
      }
    } else if (length <= kScanBytes) {
      encode_piece_scan(piece, ids);
    } else {
      encode_piece_heap(piece, ids);
    }
    begin = end;
  }
}

void BpeTokenizer::encode_append(std::string_view text, std::vector<std::int32_t>& ids) const {
  if (text.size() <= 2 * kPartBytes || thread_count() == 1) {
    std::unique_ptr<PieceCache> cache = take_cache();
    if (ids.empty()) ids.reserve(text.size() / 3);
    encode_part(text, *cache, ids);
    give_back(std::move(cache));
    return;
  }
  const std::vector<std::string_view> parts = split_parts(text, kPartBytes);
  std::vector<std::vector<std::int32_t>> part_ids(parts.size());
  parallel_for(static_cast<std::int64_t>(parts.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    std::unique_ptr<PieceCache> cache = take_cache();
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      part_ids[i].reserve(parts[i].size() / 3);
      encode_part(parts[i], *cache, part_ids[i]);
    }
    give_back(std::move(cache));
  });
  std::size_t total = ids.size();
  for (const auto& part : part_ids) total += part.size();
  ids.reserve(total);
  for (const auto& part : part_ids) ids.insert(ids.end(), part.begin(), part.end());
}

std::unique_ptr<PieceCache> BpeTokenizer::take_cache() const {
  {
    const std::lock_guard lock(caches_mutex_);
    if (!caches_.empty()) {
      std::unique_ptr<PieceCache> cache = std::move(caches_.back());
      caches_.pop_back();
      return cache;
    }
  }
  return std::make_unique<PieceCache>();
}

void BpeTokenizer::give_back(std::unique_ptr<PieceCache> cache) const {
  const std::lock_guard lock(caches_mutex_);
  caches_.push_back(std::move(cache));
}

void BpeTokenizer::save(const std::filesystem::path& folder) const {
  write_bpe_files(model_, folder);
  std::vector<std::string> names;
  for (const std::int32_t id : model_.special_tokens)
    names.push_back(model_.tokens[static_cast<std::size_t>(id)]);
  write_tokenizer_config(folder, {"bpe", names});
}

}  // namespace llm
