// Windows at random offsets, or documents of like length. See sampler.h.
#include "common/training/sampler.h"

#include <algorithm>

#include "common/core/error.h"

namespace llm {

namespace {

// Documents are shuffled, then sorted by length within groups of this many steps: long enough that neighbours
// in length are close, short enough that every group is a fair sample of the corpus.
constexpr std::int64_t kGroupSteps = 16;

}  // namespace

SampleKind parse_sample_kind(const std::string& name) {
  if (name == "windows") return SampleKind::windows;
  if (name == "documents") return SampleKind::documents;
  fail_usage("there is no way of sampling named '{}'; use windows or documents", name);
}

TrainingSampler::TrainingSampler(const TokenView& tokens, SampleKind kind, std::int32_t separator,
                                 std::int64_t length, std::int64_t batch, std::int64_t micro_batches,
                                 std::uint64_t seed)
    : tokens_(tokens),
      kind_(kind),
      separator_(separator),
      length_(length),
      batch_(batch),
      micro_batches_(micro_batches),
      seed_(seed) {
  check(batch >= 1 && micro_batches >= 1, "a step needs at least one row, got {} batches of {}",
        micro_batches, batch);
  if (kind == SampleKind::windows) {
    check(tokens.size() > length,
          "the training tokens are {}, too few for a context of {}; take a shorter context", tokens.size(),
          length);
    return;
  }
  documents_ = document_ranges(tokens, separator);
  const auto rows = batch * micro_batches;
  check(static_cast<std::int64_t>(documents_.size()) >= rows,
        "the training data holds {} documents, too few for a step of {} rows", documents_.size(), rows);
  for (const TokenRange& d : documents_)
    check(d.size() < length,
          "a document of {} tokens and its end do not fit in a context of {}; take a longer context or "
          "sample windows",
          d.size(), length);
}

const std::vector<std::int64_t>& TrainingSampler::epoch_order(std::int64_t epoch) const {
  if (epoch == cached_epoch_) return cached_order_;
  const std::int64_t rows = batch_ * micro_batches_;
  const auto steps = static_cast<std::int64_t>(documents_.size()) / rows;
  std::vector<std::int64_t> order =
      shuffled_order(static_cast<std::int64_t>(documents_.size()), seed_, epoch);
  order.resize(static_cast<std::size_t>(steps * rows));
  std::vector<std::int64_t> result;
  result.reserve(order.size());
  for (std::int64_t first = 0; first < steps; first += kGroupSteps) {
    const std::int64_t last = std::min(first + kGroupSteps, steps);
    std::stable_sort(order.begin() + first * rows, order.begin() + last * rows, [&](auto a, auto b) {
      return documents_[static_cast<std::size_t>(a)].size() < documents_[static_cast<std::size_t>(b)].size();
    });
    // The steps of a group in random order, so that lengths do not come in waves.
    for (const std::int64_t i : shuffled_order(last - first, seed_ + 1, epoch * 1000003 + first)) {
      const auto begin = order.begin() + (first + i) * rows;
      result.insert(result.end(), begin, begin + rows);
    }
  }
  cached_order_ = std::move(result);
  cached_epoch_ = epoch;
  return cached_order_;
}

std::vector<TokenRange> TrainingSampler::documents_of(std::int64_t step) const {
  const std::int64_t rows = batch_ * micro_batches_;
  const auto steps = static_cast<std::int64_t>(documents_.size()) / rows;
  const std::vector<std::int64_t>& order = epoch_order(step / steps);
  std::vector<TokenRange> documents;
  for (std::int64_t row = 0; row < rows; ++row)
    documents.push_back(
        documents_[static_cast<std::size_t>(order[static_cast<std::size_t>(step % steps * rows + row)])]);
  return documents;
}

Batch TrainingSampler::get(std::int64_t step, std::int64_t micro) const {
  if (kind_ == SampleKind::windows)
    return make_batch(tokens_, random_starts(tokens_.size(), length_, seed_, step, micro * batch_, batch_),
                      length_);
  const std::vector<TokenRange> all = documents_of(step);
  return make_document_batch(
      tokens_,
      std::span(all).subspan(static_cast<std::size_t>(micro * batch_), static_cast<std::size_t>(batch_)),
      separator_, length_);
}

std::int64_t TrainingSampler::target_count(std::int64_t step) const {
  if (kind_ == SampleKind::windows) return batch_ * micro_batches_ * length_;
  std::int64_t count = 0;
  for (const TokenRange& d : documents_of(step)) count += d.size() + 1;
  return count;
}

double TrainingSampler::steps_per_epoch() const {
  const auto rows = static_cast<double>(batch_ * micro_batches_);
  if (kind_ == SampleKind::documents) return static_cast<double>(documents_.size()) / rows;
  return static_cast<double>(tokens_.size()) / (rows * static_cast<double>(length_));
}

}  // namespace llm
