// Byte-level BPE (Sennrich et al. 2016; on bytes, Radford et al. 2019): GPT-2's tokenizer.
//
// Text is cut into pieces (split.h); a piece begins as its bytes, and again and again the neighbours that
// come first in the list of merges become one token, until no neighbours are in the list. Text repeats
// itself, so a cache of pieces already encoded makes it fast (piece_cache.h). Chapter 2 explains it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/tokenizer/bpe_model.h"
#include "common/tokenizer/tokenizer.h"

namespace llm {

class PieceCache;

/// The merges as a hash table: (left, right) -> (rank, result).
class MergeTable {
 public:
  struct Entry {
    std::uint64_t pair = ~std::uint64_t{0};  // left << 32 | right; all ones: free
    std::int32_t rank = 0;
    std::int32_t result = 0;
  };
  explicit MergeTable(const std::vector<BpeMerge>& merges);
  /// nullptr if the pair does not merge.
  const Entry* find(std::int32_t left, std::int32_t right) const;

 private:
  std::size_t slot(std::uint64_t pair) const { return (pair * 0x9E3779B97F4A7C15u) >> shift_; }
  int shift_ = 0;
  std::vector<Entry> entries_;
};

class BpeTokenizer final : public Tokenizer {
 public:
  /// Error if the model does not hold together (check_bpe_model).
  explicit BpeTokenizer(BpeModel model);
  ~BpeTokenizer() override;

  std::string_view kind() const override { return "bpe"; }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(model_.tokens.size()); }
  std::string_view token_bytes(std::int32_t id) const override;
  std::span<const std::int32_t> special_tokens() const override { return model_.special_tokens; }
  void encode_append(std::string_view text, std::vector<std::int32_t>& ids) const override;
  void save(const std::filesystem::path& folder) const override;

  const BpeModel& model() const { return model_; }

  /// BPE of one piece, as the definition says: find the first merge among all neighbours, apply it, again.
  /// O(n^2); right for short pieces.
  void encode_piece_scan(std::string_view piece, std::vector<std::int32_t>& ids) const;
  /// The same tokens in O(n log n), with a heap of the possible merges; for long pieces.
  void encode_piece_heap(std::string_view piece, std::vector<std::int32_t>& ids) const;

 private:
  void encode_part(std::string_view text, PieceCache& cache, std::vector<std::int32_t>& ids) const;
  std::unique_ptr<PieceCache> take_cache() const;
  void give_back(std::unique_ptr<PieceCache> cache) const;

  BpeModel model_;
  std::array<std::int32_t, 256> byte_ids_{};
  MergeTable merges_;
  // Caches of pieces; each call that encodes works with one of its own.
  mutable std::mutex caches_mutex_;
  mutable std::vector<std::unique_ptr<PieceCache>> caches_;
};

}  // namespace llm
