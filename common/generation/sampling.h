// From logits to one token: greedy, temperature, top-k and top-p sampling.
//
// Top-k is from Fan et al. 2018 (section 5.4), top-p ("nucleus") from Holtzman et al. 2020. The random
// number is a function of (seed, sequence, position), so a sample does not depend on how many others are
// drawn beside it. Chapter 5 explains it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace llm {

struct SamplingOptions {
  float temperature = 1;   // logits are divided by it; 0 is greedy: always the most probable token
  std::int64_t top_k = 0;  // keep only the k most probable tokens; 0 keeps all
  float top_p = 1;         // then keep the fewest tokens whose probabilities reach p; 1 keeps all
  std::uint64_t seed = 0;
};

/// UsageError, with the sentence to print, unless temperature >= 0, top_k >= 0 and 0 < top_p <= 1.
void validate(const SamplingOptions& options);

struct Candidate {
  std::int32_t token = 0;
  double probability = 0;
};

/// The tokens that the options leave, most probable first (ties: lower id first), with probabilities that
/// sum to 1. With temperature 0 it is one token. Error if a logit is NaN or none is finite.
std::vector<Candidate> candidates(std::span<const float> logits, const SamplingOptions& options);

/// Draws one token: the first candidate at which the running sum of probabilities exceeds a uniform number
/// that depends only on (options.seed, sequence, position). Errors as `candidates`.
std::int32_t sample_token(std::span<const float> logits, const SamplingOptions& options,
                          std::uint64_t sequence, std::uint64_t position);

}  // namespace llm
