// Generation over the key-value cache, one sequence or many at once. See generate.h.
#include "common/generation/generate.h"

#include <algorithm>

#include "common/core/error.h"

namespace llm {

namespace {

/// One of the sequences that run side by side in a batch.
struct Running {
  std::uint64_t number;            // its sequence number for the random draws
  std::vector<std::int32_t> text;  // prompt and what was generated
  Generated* result;
};

/// Keeps the caches' rows `kept` (increasing) and forgets the others.
void keep_rows(KvCache& cache, const std::vector<std::size_t>& kept) {
  const auto compact = [&](Tensor& t) {
    const auto row = [&](std::size_t i) {
      return t.slice(static_cast<std::int64_t>(i), static_cast<std::int64_t>(i) + 1);
    };
    for (std::size_t i = 0; i < kept.size(); ++i)
      if (kept[i] != i) row(i).copy_from(row(kept[i]));
    t = t.slice(0, static_cast<std::int64_t>(kept.size()));
  };
  for (Tensor& keys : cache.keys) compact(keys);
  for (Tensor& values : cache.values) compact(values);
}

/// The newest `length` tokens of every sequence, as (B, length).
Tensor newest(const std::vector<Running>& running, std::int64_t length) {
  Tensor tokens = Tensor::uninitialized({static_cast<std::int64_t>(running.size()), length}, DType::i32);
  std::int32_t* out = tokens.data<std::int32_t>();
  for (const Running& r : running) out = std::copy(r.text.end() - length, r.text.end(), out);
  return tokens;
}

/// Runs all sequences (of equal length) to their end. Those that stop leave the batch.
void run_batch(const GptStage& model, std::vector<Running> running, const GenerateOptions& options,
               const std::function<bool(std::int32_t)>& on_token, const std::function<void()>& on_end) {
  const std::int64_t context = model.config().context;
  const std::int64_t vocabulary = model.config().vocab_size;
  const auto prompt_length = static_cast<std::int64_t>(running.front().text.size());
  KvCache cache = model.make_cache(static_cast<std::int64_t>(running.size()),
                                   std::min(context, prompt_length + options.max_new_tokens));
  Tensor logits_buffer({static_cast<std::int64_t>(running.size()), vocabulary});
  std::int64_t unread =
      std::min(prompt_length, context);  // tokens at the end of the text not yet in the cache

  for (std::int64_t drawn = 0; drawn < options.max_new_tokens && !running.empty(); ++drawn) {
    if (cache.length + unread > cache.capacity) {
      // Positions are learned from 0 to the context's end and cannot be shifted: read the newest half again.
      cache.length = 0;
      unread = std::min<std::int64_t>(std::max<std::int64_t>(context / 2, 1), prompt_length + drawn);
    }
    const Tensor logits = logits_buffer.slice(0, static_cast<std::int64_t>(running.size()));
    model.decode(logits, cache, newest(running, unread));
    unread = 1;

    std::vector<std::size_t> kept;
    for (std::size_t i = 0; i < running.size(); ++i) {
      Running& r = running[i];
      const auto row = logits.span().subspan(i * static_cast<std::size_t>(vocabulary),
                                             static_cast<std::size_t>(vocabulary));
      const std::int32_t token =
          sample_token(row, options.sampling, r.number, static_cast<std::uint64_t>(r.text.size()));
      if (options.stop_token == token) {
        r.result->stopped = true;
        on_end();
        continue;
      }
      r.text.push_back(token);
      r.result->tokens.push_back(token);
      if (on_token && !on_token(token)) {
        on_end();
        continue;
      }
      kept.push_back(i);
    }
    if (kept.size() == running.size()) continue;
    keep_rows(cache, kept);
    std::vector<Running> rest;
    for (const std::size_t i : kept) rest.push_back(std::move(running[i]));
    running = std::move(rest);
  }
  for (std::size_t i = 0; i < running.size(); ++i) on_end();
}

}  // namespace

void check_generation(const GptStage& model, std::span<const std::int32_t> prompt,
                      const GenerateOptions& options) {
  validate(options.sampling);
  if (prompt.empty()) fail_usage("the prompt is empty; generation needs at least one token to go on from");
  if (options.max_new_tokens < 0)
    fail_usage("the number of new tokens must not be negative, got {}", options.max_new_tokens);
  for (const std::int32_t token : prompt)
    check(token >= 0 && token < model.config().vocab_size,
          "the prompt has token {}, the model's vocabulary has {}; prompt and model need the same tokenizer",
          token, model.config().vocab_size);
}

Generated generate(const GptStage& model, std::span<const std::int32_t> prompt,
                   const GenerateOptions& options, const std::function<bool(std::int32_t)>& on_token) {
  check_generation(model, prompt, options);
  Generated result;
  if (options.max_new_tokens > 0)
    run_batch(model, {{0, {prompt.begin(), prompt.end()}, &result}}, options, on_token, [] {});
  return result;
}

std::vector<Generated> generate_many(const GptStage& model, std::span<const std::int32_t> prompt,
                                     std::int64_t count, const GenerateOptions& options, std::int64_t batch,
                                     const std::function<void(std::int64_t)>& on_done) {
  check_generation(model, prompt, options);
  if (count < 0) fail_usage("the number of samples must not be negative, got {}", count);
  if (batch < 1) fail_usage("at least one sequence must run at a time, got {}", batch);
  std::vector<Generated> results(static_cast<std::size_t>(count));
  if (options.max_new_tokens == 0) return results;
  std::int64_t done = 0;
  for (std::int64_t first = 0; first < count; first += batch) {
    std::vector<Running> running;
    for (std::int64_t i = first; i < std::min(count, first + batch); ++i)
      running.push_back({static_cast<std::uint64_t>(i),
                         {prompt.begin(), prompt.end()},
                         &results[static_cast<std::size_t>(i)]});
    run_batch(model, std::move(running), options, {}, [&] {
      ++done;
      if (on_done) on_done(done);
    });
  }
  return results;
}

}  // namespace llm
