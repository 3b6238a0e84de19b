// Generation: the model's next token, drawn, appended, and again, over a cache of keys and values.
//
// The cache makes a token cost one position instead of all positions so far. Several sequences run as one
// batch, which is what makes two hundred stories a matter of seconds: the weights are read once per step
// for all of them. Chapter 5 explains it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "common/generation/sampling.h"
#include "common/model/gpt.h"

namespace llm {

struct GenerateOptions {
  SamplingOptions sampling;
  std::int64_t max_new_tokens = 256;
  std::optional<std::int32_t> stop_token;  // generation ends when it is drawn; it is not part of the result
};

struct Generated {
  std::vector<std::int32_t> tokens;  // the new ones, without the prompt and without the stop token
  bool stopped = false;              // the stop token came; otherwise max_new_tokens ran out
};

/// UsageError or Error, with the sentence to print, unless `prompt` and `options` are such that `generate`
/// can begin.
void check_generation(const GptStage& model, std::span<const std::int32_t> prompt,
                      const GenerateOptions& options);

/// Continues `prompt` (at least one token). `on_token`, if given, sees each new token as it is drawn and ends
/// the generation by returning false. Where the text outgrows the model's context, the newest half of it is
/// read again from position 0, and generation goes on from there. Sequence number 0 of the seed.
Generated generate(const GptStage& model, std::span<const std::int32_t> prompt,
                   const GenerateOptions& options, const std::function<bool(std::int32_t)>& on_token = {});

/// `count` different continuations of one prompt: number i is drawn with sequence number i of the seed.
/// At most `batch` run side by side. `on_done`, if given, is told how many are finished.
std::vector<Generated> generate_many(const GptStage& model, std::span<const std::int32_t> prompt,
                                     std::int64_t count, const GenerateOptions& options,
                                     std::int64_t batch = 64,
                                     const std::function<void(std::int64_t)>& on_done = {});

}  // namespace llm
