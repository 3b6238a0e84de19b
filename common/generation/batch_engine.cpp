// Continuous batching. See batch_engine.h.
#include "common/generation/batch_engine.h"

#include <algorithm>
#include <optional>

#include "common/core/error.h"
#include "common/core/threads.h"
#include "common/generation/sampling.h"

namespace llm {

BatchEngine::BatchEngine(const GptStage& model, std::int64_t rows) : model_(model) {
  if (rows < 1 || rows > 4096)
    fail_usage("the number of sequences at a time must be 1 to 4096, got {}", rows);
  places_.resize(static_cast<std::size_t>(rows));
  cache_ = model.make_cache(rows, model.config().context);
  logits_ = Tensor({rows, model.config().vocab_size});
}

std::int64_t BatchEngine::cache_bytes() const {
  std::size_t bytes = 0;
  for (const Tensor& keys : cache_.keys) bytes += 2 * keys.bytes();
  return static_cast<std::int64_t>(bytes);
}

std::int64_t BatchEngine::join(std::span<const std::int32_t> prompt, const GenerateOptions& options,
                               std::uint64_t number) {
  check_generation(model_, prompt, options);
  if (options.max_new_tokens < 1)
    fail_usage("at least one new token must be asked for, got {}", options.max_new_tokens);
  const auto free = std::find_if(places_.begin(), places_.end(), [](const Place& p) { return !p.taken; });
  check(free != places_.end(), "all {} sequences that run at a time are taken", rows());
  *free = {.taken = true,
           .id = next_id_++,
           .text = {prompt.begin(), prompt.end()},
           .in_cache = 0,
           .unread = std::min(static_cast<std::int64_t>(prompt.size()), model_.config().context),
           .left = options.max_new_tokens,
           .options = options,
           .number = number};
  ++running_;
  return free->id;
}

void BatchEngine::leave(std::int64_t id) {
  for (Place& place : places_)
    if (place.taken && place.id == id) {
      place = {};
      --running_;
    }
}

std::span<float> BatchEngine::logits_of(std::size_t row) const {
  const auto vocabulary = static_cast<std::size_t>(model_.config().vocab_size);
  return logits_.span().subspan(row * vocabulary, vocabulary);
}

/// Positions are learned from 0 to the context's end and cannot be shifted: where a text outgrows the
/// context, its newest half is read again.
void BatchEngine::make_room(Place& place) const {
  const std::int64_t context = model_.config().context;
  if (place.in_cache + place.unread <= context) return;
  place.in_cache = 0;
  place.unread =
      std::min(std::max<std::int64_t>(context / 2, 1), static_cast<std::int64_t>(place.text.size()));
}

/// Several tokens of one sequence, from position 0 on.
void BatchEngine::read(std::size_t row) {
  const Place& place = places_[row];
  const auto i = static_cast<std::int64_t>(row);
  const std::span<const std::int32_t> tokens =
      std::span(place.text).last(static_cast<std::size_t>(place.unread));
  KvCache own = cache_.rows(i, i + 1);
  own.scratch = prompt_scratch_;
  model_.decode(logits_.slice(i, i + 1), own, Tensor::from(tokens, {1, place.unread}));
  prompt_scratch_ = own.scratch;
}

/// One token of each of these sequences, whose rows ascend.
void BatchEngine::read_together(const std::vector<std::size_t>& rows) {
  std::vector<std::int32_t> tokens;
  std::vector<CachePlace> places;
  for (const std::size_t row : rows) {
    const Place& place = places_[row];
    const bool reads = place.taken && place.unread == 1;
    tokens.push_back(reads ? place.text.back() : 0);
    places.push_back({static_cast<std::int64_t>(row), reads ? place.in_cache : 0});
  }
  const auto count = static_cast<std::int64_t>(rows.size());
  const Tensor logits =
      rows.size() == places_.size() ? logits_ : Tensor::uninitialized({count, model_.config().vocab_size});
  model_.decode(logits, cache_, Tensor::from(tokens, {count, 1}), places);
  if (rows.size() == places_.size()) return;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto from = static_cast<std::int64_t>(i), to = static_cast<std::int64_t>(rows[i]);
    logits_.slice(to, to + 1).copy_from(logits.slice(from, from + 1));
  }
}

std::span<const BatchEngine::Drawn> BatchEngine::step() {
  std::vector<std::size_t> order;  // of joining
  for (std::size_t row = 0; row < places_.size(); ++row)
    if (places_[row].taken) order.push_back(row);
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return places_[a].id < places_[b].id; });

  std::vector<std::size_t> ready, together;  // rows whose logits this step computes; those with one token
  std::optional<std::size_t> newcomer;
  for (const std::size_t row : order) {
    make_room(places_[row]);
    if (places_[row].unread == 1)
      together.push_back(row);
    else if (!newcomer)
      newcomer = row;
    else
      continue;
    ready.push_back(row);
  }
  drawn_.clear();
  if (ready.empty()) return drawn_;
  if (model_.placement().device == Device::cuda && !together.empty()) {
    // The library's product may add up in another order for another number of rows, and costs nearly the
    // same: all rows go, so that no result depends on how many are taken. The others write to position 0,
    // where a prompt will be written before anybody reads.
    for (std::size_t row = 0; row < places_.size(); ++row)
      if (std::find(together.begin(), together.end(), row) == together.end()) together.push_back(row);
  }
  std::sort(together.begin(), together.end());
  if (!together.empty()) read_together(together);
  if (newcomer) read(*newcomer);

  std::vector<std::int32_t> tokens(ready.size());
  parallel_for(static_cast<std::int64_t>(ready.size()), 1 + 8192 / model_.config().vocab_size,
               [&](std::int64_t begin, std::int64_t end) {
                 for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
                   const Place& place = places_[ready[i]];
                   tokens[i] = sample_token(logits_of(ready[i]), place.options.sampling, place.number,
                                            static_cast<std::uint64_t>(place.text.size()));
                 }
               });

  for (std::size_t i = 0; i < ready.size(); ++i) {
    Place& place = places_[ready[i]];
    Finish finish = Finish::none;
    if (place.options.stop_token == tokens[i]) {
      finish = Finish::stop;
    } else {
      place.text.push_back(tokens[i]);
      place.in_cache += place.unread;
      place.unread = 1;
      if (--place.left == 0) finish = Finish::length;
    }
    drawn_.push_back({place.id, tokens[i], finish});
    if (finish == Finish::none) continue;
    place = {};
    --running_;
  }
  return drawn_;
}

}  // namespace llm
