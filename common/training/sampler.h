// Which tokens training step number n sees: a pure function of (seed, n), so that a resumed run needs no
// state.
//
// Two ways to cut a corpus: windows at random offsets, as nanoGPT and llm.c do, for text of any kind; and one
// document per row from its first token on, for short documents such as our stories, where the model then
// sees at training time exactly what it sees when it writes: an end-of-text token and then one story.
// Chapter 5 explains it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/text/batches.h"

namespace llm {

enum class SampleKind { windows, documents };

/// "windows" or "documents"; anything else is a UsageError.
SampleKind parse_sample_kind(const std::string& name);

class TrainingSampler {
 public:
  /// `tokens` must outlive the sampler. `length` is the context T. A step takes `micro_batches` batches of
  /// `batch` rows. Error if the tokens are too few for one window, or if a document is longer than the
  /// context holds.
  TrainingSampler(const TokenView& tokens, SampleKind kind, std::int32_t separator, std::int64_t length,
                  std::int64_t batch, std::int64_t micro_batches, std::uint64_t seed);

  /// Micro-batch `micro` of step `step`, (batch, T) with T at most `length`. With documents, the rows of a
  /// step are documents of about the same length, so that little is filled up; an epoch visits every document
  /// once.
  Batch get(std::int64_t step, std::int64_t micro) const;

  /// Number of targets that count (not -1) in all micro-batches of the step.
  std::int64_t target_count(std::int64_t step) const;

  /// Steps until every token or document was seen once, on average.
  double steps_per_epoch() const;

 private:
  const std::vector<std::int64_t>& epoch_order(std::int64_t epoch) const;
  std::vector<TokenRange> documents_of(std::int64_t step) const;

  TokenView tokens_;
  SampleKind kind_;
  std::int32_t separator_;
  std::int64_t length_, batch_, micro_batches_;
  std::uint64_t seed_;
  std::vector<TokenRange> documents_;
  mutable std::int64_t cached_epoch_ = -1;
  mutable std::vector<std::int64_t> cached_order_;
};

}  // namespace llm
