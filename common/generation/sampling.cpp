// Greedy, temperature, top-k and top-p sampling. See sampling.h.
#include "common/generation/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/core/error.h"
#include "common/core/philox.h"

namespace llm {

namespace {

/// The largest logit. Error on NaN, on +inf, and where nothing is finite: there is no distribution then.
float largest(std::span<const float> logits) {
  check(!logits.empty(), "sampling needs at least one logit");
  float max = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    check(!std::isnan(logits[i]), "the logit of token {} is not a number; the model's weights are damaged",
          i);
    max = std::max(max, logits[i]);
  }
  check(std::isfinite(max), "the largest logit is {}; the model's weights are damaged", max);
  return max;
}

bool more_probable(const Candidate& a, const Candidate& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.token < b.token;
}

void normalize(std::vector<Candidate>& all) {
  double sum = 0;
  for (const Candidate& c : all) sum += c.probability;
  for (Candidate& c : all) c.probability /= sum;
}

/// Softmax of logits / temperature, in the order of the ids. Computed in double: exp(x - max) / sum.
std::vector<Candidate> softmax(std::span<const float> logits, float temperature) {
  const double max = largest(logits);
  std::vector<Candidate> all(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    all[i] = {static_cast<std::int32_t>(i), std::exp((static_cast<double>(logits[i]) - max) / temperature)};
  normalize(all);
  return all;
}

void keep_top_k(std::vector<Candidate>& all, std::int64_t k) {
  if (k <= 0 || k >= static_cast<std::int64_t>(all.size())) return;
  std::nth_element(all.begin(), all.begin() + (k - 1), all.end(), more_probable);
  all.resize(static_cast<std::size_t>(k));
  normalize(all);
}

/// Needs `all` sorted. The token that makes the sum reach p is the last one kept.
void keep_top_p(std::vector<Candidate>& all, float p) {
  double sum = 0;
  std::size_t kept = 0;
  while (kept < all.size() && sum < static_cast<double>(p)) sum += all[kept++].probability;
  all.resize(std::max<std::size_t>(kept, 1));
  normalize(all);
}

/// 53 random bits in [0, 1): four words per (sequence, position), of which two are used.
double uniform(const SamplingOptions& options, std::uint64_t sequence, std::uint64_t position) {
  const Philox philox{options.seed, stream_id("sample")};
  const auto words = philox.block((sequence << 32) | (position & 0xffffffffu));
  const std::uint64_t bits = (std::uint64_t{words[0]} << 32) | words[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace

void validate(const SamplingOptions& options) {
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature))
    fail_usage("the temperature must be 0 (greedy) or a positive number, got {}", options.temperature);
  if (options.top_k < 0) fail_usage("top-k must be 0 (all tokens) or positive, got {}", options.top_k);
  if (!(options.top_p > 0 && options.top_p <= 1))
    fail_usage("top-p must be above 0 and at most 1, got {}", options.top_p);
}

std::vector<Candidate> candidates(std::span<const float> logits, const SamplingOptions& options) {
  validate(options);
  if (options.temperature == 0) {
    largest(logits);                                                   // for its checks
    const auto best = std::max_element(logits.begin(), logits.end());  // the first of equals
    return {{static_cast<std::int32_t>(best - logits.begin()), 1.0}};
  }
  std::vector<Candidate> all = softmax(logits, options.temperature);
  keep_top_k(all, options.top_k);
  std::sort(all.begin(), all.end(), more_probable);
  if (options.top_p < 1) keep_top_p(all, options.top_p);
  return all;
}

std::int32_t sample_token(std::span<const float> logits, const SamplingOptions& options,
                          std::uint64_t sequence, std::uint64_t position) {
  // Where nothing is cut off the order does not matter for the distribution, and sorting a vocabulary of
  // 50,000 for every token would cost more than a small model does.
  const bool all_tokens = options.temperature > 0 && options.top_k == 0 && options.top_p >= 1;
  if (all_tokens) validate(options);
  const auto choices = all_tokens ? softmax(logits, options.temperature) : candidates(logits, options);
  const double u = uniform(options, sequence, position);
  double sum = 0;
  for (const Candidate& c : choices) {
    sum += c.probability;
    if (u < sum) return c.token;
  }
  // Rounding can leave the sum a hair below 1: then it is the last token that has a probability.
  for (auto c = choices.rbegin(); c != choices.rend(); ++c)
    if (c->probability > 0) return c->token;
  return choices.back().token;
}

}  // namespace llm
