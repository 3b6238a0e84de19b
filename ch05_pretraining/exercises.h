// The exercises of chapter 5. Write your answers in exercises.cpp; `./book check ch05` says how far they are,
// `./book hint 5.2` helps.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tests/exercises/not_started.h"

namespace llm::exercises::ch05 {

/// 5.1 The learning rate of step 0, 1, 2, ... of a run of `steps` steps.
///   step < warmup:   a straight line, peak (step + 1) / (warmup + 1)
///   then:            half a cosine from `peak` at step = warmup down to `floor` at step = steps
///   step >= steps:   `floor`
double scheduled_rate(std::int64_t step, double peak, double floor, std::int64_t warmup, std::int64_t steps);

/// 5.2 One AdamW step, number t (the first is t = 1), in place (Loshchilov and Hutter 2019, algorithm 2). For
/// every parameter w with gradient g and moments m and v, all spans of equal size:
///   m = beta1 m + (1 - beta1) g            v = beta2 v + (1 - beta2) g^2
///   m^ = m / (1 - beta1^t)                 v^ = v / (1 - beta2^t)
///   w = w - rate decay w - rate m^ / (sqrt(v^) + eps)
/// The decay uses w as it was before the step, and is no part of m and v.
void adamw_step(std::span<float> w, std::span<float> m, std::span<float> v, std::span<const float> g,
                double rate, double beta1, double beta2, double eps, double decay, std::int64_t t);

/// 5.3 Clips gradients by their global norm: all arrays together are one vector. If its Euclidean norm is
/// larger than `limit`, every element is multiplied by limit / norm; otherwise nothing changes. Sum in
/// double. Returns the norm before clipping.
double clip_gradients(std::vector<std::span<float>> gradients, double limit);

struct Choice {
  std::int32_t token;
  double probability;
};

/// 5.4 The tokens that top-k and then top-p sampling leave, most probable first (of equals the lower token
/// first), with probabilities that sum to 1. k = 0 keeps all tokens, p = 1 keeps all that k left.
///   1. softmax of logits / temperature (temperature > 0);
///   2. the k most probable tokens, their probabilities scaled to sum to 1;
///   3. of these the fewest, from the most probable on, whose sum is at least p, scaled again.
std::vector<Choice> sampling_choices(std::span<const float> logits, double temperature, std::int64_t k,
                                     double p);

}  // namespace llm::exercises::ch05
