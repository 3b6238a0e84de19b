// Learning BPE merges from text.
//
// Start with bytes; count all neighbours; make the most frequent pair one token; repeat. Merges happen within
// pieces (split.h), and text repeats its pieces, so it is enough to keep each distinct piece once, with how
// often it occurs; and after a merge only the pairs beside it change their counts. Chapter 2 explains it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/tokenizer/bpe_model.h"

namespace llm {

/// Distinct pieces (as views into the texts they came from) and how often each occurs.
using PieceCounts = std::unordered_map<std::string_view, std::int64_t>;

/// Cuts the texts into pieces and counts them, on all threads. The texts must outlive the result.
PieceCounts count_pieces(std::span<const std::string_view> texts);

/// Counts the pieces of a corpus that comes in parts and does not fit into memory at once.
class PieceCounter {
 public:
  /// The texts may go away afterwards.
  void add(std::span<const std::string_view> texts);
  const PieceCounts& counts() const { return counts_; }

 private:
  std::deque<std::string> pieces_;  // what counts_ views
  PieceCounts counts_;
};

struct BpeTrainerOptions {
  std::int64_t vocab_size = 1024;  // all tokens: 256 bytes, merges, special tokens
  std::vector<std::string> special_tokens = {"<|endoftext|>"};
  std::int64_t min_count = 2;  // pairs that occur less often are not merged
  /// Called after each merge with the model so far (no special tokens yet) and how often the pair occurred.
  /// May throw, which ends the training.
  std::function<void(const BpeModel&, std::int64_t)> on_merge;
};

/// Learns the merges. Ids: the 256 bytes in GPT-2's order, then one per merge, then the special tokens.
///
/// Of pairs that are equally frequent the one with the smaller left id comes first, then the smaller right
/// id. This is the rule of Hugging Face's tokenizers, whose ByteLevelBPETokenizer learns the same merges from
/// the same text. The result depends on the counts only: not on threads, nor on the order of texts. Two
/// merges may make the same bytes; the token is there once. If the text has too few pairs the vocabulary is
/// smaller than asked for. UsageError if vocab_size is below 256 + special tokens or above 1,000,000.
BpeModel train_bpe(const PieceCounts& pieces, const BpeTrainerOptions& options);

}  // namespace llm
