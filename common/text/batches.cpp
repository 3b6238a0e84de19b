#include "common/text/batches.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "common/core/error.h"
#include "common/core/philox.h"
#include "common/core/torch_random.h"

namespace llm {

namespace {

void check_length(std::int64_t length) {
  check(length >= 1, "a window needs at least one token, got a length of {}", length);
}

/// A window needs one token more than its length: the last target.
void check_window_fits(std::int64_t token_count, std::int64_t length) {
  check_length(length);
  check(token_count > length, "{} tokens are too few for one window of {} and the token behind it",
        token_count, length);
}

}  // namespace

void TokenView::copy(std::int64_t begin, std::span<std::int32_t> out) const {
  if (wide_) {
    std::memcpy(out.data(), static_cast<const std::int32_t*>(data_) + begin, out.size_bytes());
  } else {
    const auto* from = static_cast<const std::uint16_t*>(data_) + begin;
    std::copy(from, from + out.size(), out.data());
  }
}

Batch make_batch(const TokenView& tokens, std::span<const std::int64_t> starts, std::int64_t length) {
  check_length(length);
  const auto rows = static_cast<std::int64_t>(starts.size());
  const Batch batch{Tensor::uninitialized({rows, length}, DType::i32),
                    Tensor::uninitialized({rows, length}, DType::i32)};
  fill_batch(batch, tokens, starts);
  return batch;
}

void fill_batch(const Batch& batch, const TokenView& tokens, std::span<const std::int64_t> starts) {
  const Shape& shape = batch.inputs.shape();
  check(shape.size() == 2 && shape == batch.targets.shape() &&
            shape[0] == static_cast<std::int64_t>(starts.size()),
        "a batch of {} windows needs inputs and targets of shape ({}, T), got {} and {}", starts.size(),
        starts.size(), to_string(shape), to_string(batch.targets.shape()));
  const std::int64_t length = shape[1];
  const std::span<std::int32_t> inputs = batch.inputs.span<std::int32_t>();
  const std::span<std::int32_t> targets = batch.targets.span<std::int32_t>();
  for (std::size_t row = 0; row < starts.size(); ++row) {
    const std::int64_t start = starts[row];
    check(start >= 0 && start < tokens.size() - length,
          "a window of {} at token {} leaves the {} tokens there are", length, start, tokens.size());
    const auto at = row * static_cast<std::size_t>(length);
    tokens.copy(start, inputs.subspan(at, static_cast<std::size_t>(length)));
    tokens.copy(start + 1, targets.subspan(at, static_cast<std::size_t>(length)));
  }
}

std::vector<std::int64_t> sliding_starts(std::int64_t token_count, std::int64_t length, std::int64_t stride) {
  check(stride >= 1, "the stride between windows must be at least 1, got {}", stride);
  check_window_fits(token_count, length);
  std::vector<std::int64_t> starts(static_cast<std::size_t>((token_count - length - 1) / stride + 1));
  for (std::size_t i = 0; i < starts.size(); ++i) starts[i] = static_cast<std::int64_t>(i) * stride;
  return starts;
}

std::vector<std::int64_t> document_starts(const TokenView& tokens, std::int32_t separator,
                                          std::int64_t length) {
  check_window_fits(tokens.size(), length);
  std::vector<std::int64_t> starts;
  for (std::int64_t i = 0; i + length < tokens.size(); ++i)
    if (tokens[i] == separator) starts.push_back(i);
  check(!starts.empty(),
        "no document begins {} tokens before the end: token {}, which separates them, is not there", length,
        separator);
  return starts;
}

std::vector<std::int64_t> shuffled_order(std::int64_t n, std::uint64_t seed, std::int64_t epoch) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(std::max<std::int64_t>(n, 0)));
  std::iota(order.begin(), order.end(), 0);
  PhiloxSequence random(seed, stream_id("shuffle") + static_cast<std::uint64_t>(epoch));
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  return order;
}

std::vector<std::int64_t> torch_loader_order(std::int64_t n, TorchRandom& random) {
  (void)random.random();  // the base seed of the workers, drawn even if there are none
  TorchRandom own(static_cast<std::uint64_t>(random.random()));
  return own.randperm(n);
}

std::vector<std::int64_t> reorder(std::span<const std::int64_t> starts, std::span<const std::int64_t> order) {
  std::vector<std::int64_t> result(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    check(order[i] >= 0 && order[i] < static_cast<std::int64_t>(starts.size()),
          "there is no window {} among {}", order[i], starts.size());
    result[i] = starts[static_cast<std::size_t>(order[i])];
  }
  return result;
}

std::int64_t batch_count(std::int64_t n, std::int64_t batch_size, bool drop_last) {
  check(batch_size >= 1, "a batch needs at least one row, got {}", batch_size);
  return n / batch_size + (!drop_last && n % batch_size != 0 ? 1 : 0);
}

std::span<const std::int64_t> batch_starts(std::span<const std::int64_t> starts, std::int64_t batch_size,
                                           std::int64_t i) {
  const auto n = static_cast<std::int64_t>(starts.size());
  check(i >= 0 && i < batch_count(n, batch_size, false), "there is no batch {} of {} in {} windows", i,
        batch_size, n);
  const std::int64_t first = i * batch_size;
  return starts.subspan(static_cast<std::size_t>(first),
                        static_cast<std::size_t>(std::min(batch_size, n - first)));
}

std::int64_t random_choice(std::int64_t n, std::uint64_t seed, std::int64_t step, std::int64_t row) {
  constexpr std::int64_t kLimit = std::int64_t{1} << 32;
  check(n >= 1, "there is nothing to choose from");
  check(step >= 0 && step < kLimit && row >= 0 && row < kLimit, "step {} and row {} must be in [0, 2^32)",
        step, row);
  const auto words = Philox{seed, stream_id("batch")}.block((static_cast<std::uint64_t>(step) << 32) |
                                                            static_cast<std::uint64_t>(row));
  const std::uint64_t word = (std::uint64_t{words[0]} << 32) | words[1];
  // The high half of word * n. Its bias, n / 2^64, is beyond anything one could measure.
  return static_cast<std::int64_t>((static_cast<unsigned __int128>(word) * static_cast<std::uint64_t>(n)) >>
                                   64);
}

std::vector<std::int64_t> random_starts(std::int64_t token_count, std::int64_t length, std::uint64_t seed,
                                        std::int64_t step, std::int64_t first_row, std::int64_t count) {
  check_window_fits(token_count, length);
  check(count >= 1, "a batch needs at least one row, got {}", count);
  std::vector<std::int64_t> starts(static_cast<std::size_t>(count));
  for (std::int64_t row = 0; row < count; ++row)
    starts[static_cast<std::size_t>(row)] = random_choice(token_count - length, seed, step, first_row + row);
  return starts;
}

std::vector<std::int64_t> random_starts(std::span<const std::int64_t> candidates, std::uint64_t seed,
                                        std::int64_t step, std::int64_t first_row, std::int64_t count) {
  check(count >= 1, "a batch needs at least one row, got {}", count);
  const auto n = static_cast<std::int64_t>(candidates.size());
  std::vector<std::int64_t> starts(static_cast<std::size_t>(count));
  for (std::int64_t row = 0; row < count; ++row)
    starts[static_cast<std::size_t>(row)] =
        candidates[static_cast<std::size_t>(random_choice(n, seed, step, first_row + row))];
  return starts;
}

std::vector<TokenRange> document_ranges(const TokenView& tokens, std::int32_t separator) {
  std::vector<TokenRange> ranges;
  std::int64_t begin = 0;
  for (std::int64_t i = 0; i <= tokens.size(); ++i) {
    if (i < tokens.size() && tokens[i] != separator) continue;
    if (i > begin) ranges.push_back({begin, i});
    begin = i + 1;
  }
  return ranges;
}

Batch make_document_batch(const TokenView& tokens, std::span<const TokenRange> documents,
                          std::int32_t separator, std::int64_t max_length) {
  check(!documents.empty(), "a batch needs at least one document");
  std::int64_t longest = 0;
  for (const TokenRange& document : documents) {
    check(document.begin >= 0 && document.size() >= 0 && document.end <= tokens.size(),
          "a document of tokens [{}, {}) leaves the {} tokens there are", document.begin, document.end,
          tokens.size());
    longest = std::max(longest, document.size() + 1);
  }
  check(longest <= max_length, "a document of {} tokens and its end do not fit in a context of {}",
        longest - 1, max_length);
  const auto rows = static_cast<std::int64_t>(documents.size());
  const Batch batch{Tensor::uninitialized({rows, longest}, DType::i32),
                    Tensor::uninitialized({rows, longest}, DType::i32)};
  std::fill_n(batch.inputs.data<std::int32_t>(), batch.inputs.numel(), separator);
  std::fill_n(batch.targets.data<std::int32_t>(), batch.targets.numel(), -1);
  for (std::int64_t row = 0; row < rows; ++row) {
    const TokenRange& document = documents[static_cast<std::size_t>(row)];
    const auto size = static_cast<std::size_t>(document.size());
    std::int32_t* inputs = batch.inputs.data<std::int32_t>() + row * longest;
    std::int32_t* targets = batch.targets.data<std::int32_t>() + row * longest;
    tokens.copy(document.begin, {inputs + 1, size});
    tokens.copy(document.begin, {targets, size});
    targets[size] = separator;
  }
  return batch;
}

}  // namespace llm
