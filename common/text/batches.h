// From a stream of tokens to (input, target) batches: every sampler is a list of window starts.
//
// A language model learns to say the next token, so the target of a window is the same window moved one
// token on:
//
//   tokens   5 9 2 7 1 4        start 1, length 3:   input  9 2 7
//                                                    target 2 7 1
//
// How a corpus is sampled is then only the question which starts a batch takes: all at a stride (the
// sliding windows of PyTorch-based texts), random ones (nanoGPT, llm.c), those at which a document
// begins (our stories), or one after the other (evaluation). The functions here make such lists and turn
// starts into tensors; none keeps state, so a resumed run needs none. Chapter 1 explains it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/core/tensor.h"

namespace llm {

class TorchRandom;

/// Token ids as they lie in memory, 16 bits (a mapped shard) or 32 bits (an encoder's output).
class TokenView {
 public:
  TokenView(std::span<const std::uint16_t> tokens)  // NOLINT(google-explicit-constructor): a view
      : data_(tokens.data()), size_(static_cast<std::int64_t>(tokens.size())), wide_(false) {}
  TokenView(std::span<const std::int32_t> tokens)  // NOLINT(google-explicit-constructor)
      : data_(tokens.data()), size_(static_cast<std::int64_t>(tokens.size())), wide_(true) {}
  TokenView(const std::vector<std::uint16_t>& tokens)  // NOLINT(google-explicit-constructor)
      : TokenView(std::span<const std::uint16_t>(tokens)) {}
  TokenView(const std::vector<std::int32_t>& tokens)  // NOLINT(google-explicit-constructor)
      : TokenView(std::span<const std::int32_t>(tokens)) {}

  std::int64_t size() const { return size_; }
  std::int32_t operator[](std::int64_t i) const {
    return wide_ ? static_cast<const std::int32_t*>(data_)[i] : static_cast<const std::uint16_t*>(data_)[i];
  }
  /// Writes tokens [begin, begin + out.size()) to `out`.
  void copy(std::int64_t begin, std::span<std::int32_t> out) const;

 private:
  const void* data_;
  std::int64_t size_;
  bool wide_;
};

/// What a training step takes: both (B, T), i32. A target of -1 does not count towards the loss.
struct Batch {
  Tensor inputs;
  Tensor targets;
};

/// Row b is the window at starts[b]: inputs tokens [s, s + T), targets [s + 1, s + T + 1). Error if one
/// leaves the tokens.
Batch make_batch(const TokenView& tokens, std::span<const std::int64_t> starts, std::int64_t length);
/// The same into existing tensors of shape (B, T), so that a training loop allocates once.
void fill_batch(const Batch& batch, const TokenView& tokens, std::span<const std::int64_t> starts);

// ---- lists of starts ------------------------------------------------------------------------------

/// 0, stride, 2 stride, ... as long as a window and the token behind it fit. stride == length: every token is
/// a target once; smaller: windows overlap. Error if not even one fits.
std::vector<std::int64_t> sliding_starts(std::int64_t token_count, std::int64_t length, std::int64_t stride);

/// Every position at which token `separator` stands with a whole window behind it: the window's input begins
/// with the separator and its targets with a whole document, as in generation, whose prompt is the separator.
/// Error if there is none.
std::vector<std::int64_t> document_starts(const TokenView& tokens, std::int32_t separator,
                                          std::int64_t length);

/// {0, ..., n - 1} in an order drawn from (seed, epoch) with Philox (Fisher and Yates).
std::vector<std::int64_t> shuffled_order(std::int64_t n, std::uint64_t seed, std::int64_t epoch = 0);

/// The order in which PyTorch's DataLoader(shuffle=True) visits n items, drawing from `random` what it draws:
/// two seeds, of which the second starts a generator of its own for torch.randperm.
std::vector<std::int64_t> torch_loader_order(std::int64_t n, TorchRandom& random);

/// starts[order[0]], starts[order[1]], ...
std::vector<std::int64_t> reorder(std::span<const std::int64_t> starts, std::span<const std::int64_t> order);

/// Number of batches of `batch_size` in n windows; the last may be smaller unless `drop_last`.
std::int64_t batch_count(std::int64_t n, std::int64_t batch_size, bool drop_last);
/// The starts of batch `i` of them.
std::span<const std::int64_t> batch_starts(std::span<const std::int64_t> starts, std::int64_t batch_size,
                                           std::int64_t i);

// ---- random batches: pure functions of (seed, step, row) ------------------------------------------

/// A uniform number in {0, ..., n - 1}, the same for the same (seed, step, row). `row` counts over the whole
/// step, whichever micro-batch or rank works on it, and is below 2^32, as is `step`.
std::int64_t random_choice(std::int64_t n, std::uint64_t seed, std::int64_t step, std::int64_t row);

/// Starts of rows [first_row, first_row + count) of training step `step`, anywhere in the tokens. Error if
/// token_count is not greater than length.
std::vector<std::int64_t> random_starts(std::int64_t token_count, std::int64_t length, std::uint64_t seed,
                                        std::int64_t step, std::int64_t first_row, std::int64_t count);
/// The same out of a given list, such as `document_starts`.
std::vector<std::int64_t> random_starts(std::span<const std::int64_t> candidates, std::uint64_t seed,
                                        std::int64_t step, std::int64_t first_row, std::int64_t count);

// ---- documents of a shard -------------------------------------------------------------------------

/// Tokens [begin, end), the separator behind them not among them.
struct TokenRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
};

/// The documents between separators, in order. Empty ones are left out; a last one without a separator
/// counts.
std::vector<TokenRange> document_ranges(const TokenView& tokens, std::int32_t separator);

/// One document per row, for losses per document: inputs are the separator and the document, targets the
/// document and the separator. Rows are as long as the longest, shorter ones are filled up with inputs of the
/// separator and targets of -1. Error if a document is longer than max_length - 1.
Batch make_document_batch(const TokenView& tokens, std::span<const TokenRange> documents,
                          std::int32_t separator, std::int64_t max_length);

}  // namespace llm
