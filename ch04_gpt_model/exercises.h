// The exercises of chapter 4: the parts of a GPT that are not attention. You write them in exercises.cpp;
// `./book check ch04` says how far you are, `./book hint 4.1` helps.
//
// Matrices are flat and row-major: x of shape (N, C) has row n at x[n * C], ..., x[n * C + C - 1].
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tests/exercises/not_started.h"

namespace llm::exercises::ch04 {

/// 4.1 Layer norm of every row of x (N, C), with C = gamma.size() = beta.size():
///
///     y = (x - mean) / sqrt(variance + eps) * gamma + beta
///
/// mean and variance are those of the row; the variance is the mean of (x - mean)^2 (divided by C, not C -
/// 1). Rows may lie far from zero (all entries about 1000). The text: "Layer norm".
std::vector<float> layer_norm(std::span<const float> x, std::span<const float> gamma,
                              std::span<const float> beta, float eps);

/// 4.2 GELU of every entry, in the tanh form that GPT-2 has:
///
///     gelu(x) = 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
///
/// The text: "Feed-forward".
std::vector<float> gelu(std::span<const float> x);

/// 4.3 The number of parameters of a GPT-2: tables for `vocabulary` tokens and `context` positions; `layers`
/// blocks, each with two norms, the projection to q, k and v, the output projection, and a feed-forward part
/// that is four times as wide; a norm at the end; and the head, which is the token table again if `tied`,
/// else a matrix of its own. All linear layers but the head have biases; a norm has gamma and beta. The text:
/// "Counting".
std::int64_t count_parameters(std::int64_t vocabulary, std::int64_t context, std::int64_t channels,
                              std::int64_t layers, bool tied);

/// 4.4 The loss of a batch: logits (N, V) with V = `vocabulary`, targets (N). The mean, over the rows whose
/// target is not -1, of
///
///     log(sum_v exp(logits[n, v])) - logits[n, targets[n]]
///
/// Logits may be of any size (1000 is fine). 0 if all targets are -1. The text: "The loss".
double cross_entropy(std::span<const float> logits, std::int64_t vocabulary,
                     std::span<const std::int32_t> targets);

}  // namespace llm::exercises::ch04
