// The exercises of chapter 3: attention in four functions. You write them in exercises.cpp; `./book check
// ch03` says how far you are, `./book hint 3.1` helps.
//
// Matrices are flat and row-major: x of shape (T, C) has x[t, c] at x[t * C + c].
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tests/exercises/not_started.h"

namespace llm::exercises::ch03 {

/// 3.1 Softmax of one row, in place: x[i] = exp(x[i]) / sum_j exp(x[j]). At least one entry; entries of any
/// size (1e30 is fine), and -infinity, which gets the weight 0 (at least one entry is finite). The text:
/// "Scores become weights".
void softmax_row(std::span<float> x);

/// 3.2 One head of causal attention. q, k, v: (T, D) each, with T = q.size() / head_size; the result is (T,
/// D):
///
///     y[t] = sum over j <= t of w[t, j] v[j],   w[t, .] = softmax over j <= t of q[t] . k[j] / sqrt(D)
///
/// The text: "One head".
std::vector<float> causal_head(std::span<const float> q, std::span<const float> k, std::span<const float> v,
                               std::int64_t head_size);

/// 3.3 Cut channels into heads and back. x is (B, T, C), where C = heads x D; the heads' form is (B, heads,
/// T, D):
///
///     split[b, h, t, d] = x[b, t, h D + d]
///
/// merge_heads(split_heads(x)) is x. The text: "Several heads".
std::vector<float> split_heads(std::span<const float> x, std::int64_t batch, std::int64_t tokens,
                               std::int64_t channels, std::int64_t heads);
std::vector<float> merge_heads(std::span<const float> split, std::int64_t batch, std::int64_t tokens,
                               std::int64_t channels, std::int64_t heads);

/// 3.4 The backward pass of softmax for one row: given its result y and dy = d(loss)/dy, returns dx =
/// d(loss)/dx:
///
///     dx[i] = y[i] (dy[i] - sum_j y[j] dy[j])
///
/// The text: "Backward" derives it. Takes O(n), without a Jacobian matrix.
std::vector<float> softmax_backward_row(std::span<const float> dy, std::span<const float> y);

}  // namespace llm::exercises::ch03
