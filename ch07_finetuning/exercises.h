// The exercises of chapter 7: the ideas of fine-tuning, each in a few lines. You write them in exercises.cpp;
// `./book check ch07` says how far you are, `./book hint 7.1` helps.
//
// Matrices are flat and row-major: x of shape (N, C) has row n at x[n * C], ..., x[n * C + C - 1].
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tests/exercises/not_started.h"

namespace llm::exercises::ch07 {

/// 7.1 A classifier's head: hidden (B, T, C) are the model's outputs for B texts that were filled up to T
/// tokens; text b has lengths[b] tokens, 1 to T. weight is (K, C), bias (K). Returns logits (B, K):
///
///     logits[b, k] = bias[k] + sum_c weight[k, c] h[c]      h: the output at the text's last token
///
/// The text: "A new head".
std::vector<float> class_logits(std::span<const float> hidden, std::span<const std::int64_t> lengths,
                                std::int64_t tokens, std::int64_t channels, std::span<const float> weight,
                                std::span<const float> bias);

/// One example: its tokens, and the index of the first that belongs to the answer (at least 1).
struct Conversation {
  std::vector<std::int32_t> tokens;
  std::size_t answer = 0;
};
/// Both (B, T), row-major.
struct Rows {
  std::vector<std::int32_t> inputs, targets;
};
/// 7.2 A batch of examples. Row b has inputs tokens[0 ... n - 2] and targets tokens[1 ... n - 1] of its n
/// tokens, T is the largest n - 1. Behind the end, inputs are `padding` and targets -1. With `mask_prompt`
/// targets that are no part of the answer are -1, too. The text: "Masks".
Rows collate(std::span<const Conversation> examples, std::int32_t padding, bool mask_prompt);

/// 7.3 A linear layer with a LoRA adapter: x (N, I), w (O, I), a (r, I), b (O, r). Returns y (N, O):
///
///     y = x w^T + (alpha / r) (x a^T) b^T
///
/// The text: "LoRA".
std::vector<float> lora_forward(std::span<const float> x, std::span<const float> w, std::span<const float> a,
                                std::span<const float> b, std::int64_t in, std::int64_t out,
                                std::int64_t rank, float alpha);

struct LoraGradients {
  std::vector<float> dx, da, db;  // (N, I), (r, I), (O, r)
};
/// 7.4 Its backward pass: dy (N, O) is d loss / dy. w is frozen and has no gradient, but dx goes through it.
LoraGradients lora_backward(std::span<const float> dy, std::span<const float> x, std::span<const float> w,
                            std::span<const float> a, std::span<const float> b, std::int64_t in,
                            std::int64_t out, std::int64_t rank, float alpha);

/// 7.5 The one matrix (O, I) that does what 7.3's layer does: w + (alpha / r) b a.
std::vector<float> lora_merge(std::span<const float> w, std::span<const float> a, std::span<const float> b,
                              std::int64_t in, std::int64_t out, std::int64_t rank, float alpha);

struct PairLoss {
  double loss = 0;
  double dchosen = 0, drejected = 0;  // d loss / d chosen, d loss / d rejected
};
/// 7.6 DPO's loss of one pair, from the log-probabilities of both answers by the policy and by the reference:
///
///     z = beta ((chosen - reference_chosen) - (rejected - reference_rejected))      loss = -log sigmoid(z)
///
/// Log-probabilities of whole answers may be thousands apart. The text: "Preferences".
PairLoss dpo(double chosen, double rejected, double reference_chosen, double reference_rejected, double beta);

/// 7.7 The advantages of the answers of one group (two or more):
///
///     (reward - mean) / (deviation + 1e-4)      deviation: of a sample, the sum of squares divided by n - 1
///
/// The text: "Rewards".
std::vector<double> advantages(std::span<const double> rewards);

struct TokenGain {
  double gain = 0;
  double dlog = 0;  // d gain / d log p of the token
};
/// 7.8 What GRPO wants to be large at one token, with ratio = exp(now - old) of its log-probabilities now and
/// when it was written:
///
///     gain = min(ratio advantage, clamp(ratio, 1 - clip, 1 + clip) advantage)
///
/// The text: "Rewards".
TokenGain clipped_gain(double now, double old, double advantage, double clip);

/// 7.9 Which choice a model makes: scores[i] is the log-probability of choices[i] as a whole (ASCII). Plain,
/// the choice with the largest score; `normalised`, the largest score per character. Of equals the first. The
/// text: "Measuring".
std::size_t choose(std::span<const double> scores, std::span<const std::string> choices, bool normalised);

}  // namespace llm::exercises::ch07
