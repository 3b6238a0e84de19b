// The exercises of chapter 3: attention on the CPU in six functions, which you write in exercises.cpp, then
// on the GPU in six kernels, which you write in exercises.cu. `./book check ch03` says how far you are,
// `./book hint 3.1` helps.
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

/// 3.5 The causal mask, in place. `scores` holds any number of matrices (queries, keys), one after the other.
/// The keys are those of all tokens so far, the queries those of the last `queries` of them (queries <=
/// keys): query i belongs to token keys - queries + i. What a query must not see becomes -infinity, so that
/// its weight becomes 0. With queries = keys this is the triangle of the text, "One head"; with fewer, some
/// keys were kept from before.
void causal_mask(std::span<float> scores, std::int64_t queries, std::int64_t keys);

/// 3.6 The backward pass of one head of causal attention (that of 3.2): given dy = d(loss)/dy, (T, D), the
/// gradients with respect to q, k and v, (T, D) each. The text: "Backward" has the three lines.
struct HeadGradients {
  std::vector<float> dq, dk, dv;
};
HeadGradients causal_head_backward(std::span<const float> dy, std::span<const float> q,
                                   std::span<const float> k, std::span<const float> v,
                                   std::int64_t head_size);

// ---- On the GPU, in exercises.cu ----
//
// From here on all pointers are addresses of device memory, which only kernels can touch. Each function
// launches a kernel that you write; the result is there when the kernel has run. All sizes are at least 1 and
// all products of sizes fit in an int. Without a GPU the kernels run on the software GPU, which reports what
// goes wrong in them.

/// 3.7 A first kernel: y[i] += a x[i] for 0 <= i < n. One thread per element; neighbouring threads take
/// neighbouring elements. The text: "A GPU".
void scale_add(float* y, const float* x, float a, int n);

/// 3.8 A warp reduction: y[r] = sum_c x[r, c], for x (rows, columns). One warp per row; its lanes exchange
/// values with shuffles: no shared memory, no atomics, not the library's warp_sum. The text: "Threads that
/// talk".
void row_sums(float* y, const float* x, int rows, int columns);

/// 3.9 Softmax of long rows: y[r, .] = softmax(x[r, .]), for x (rows, columns). One block per row, of a fixed
/// number of threads (say 256); a row may be shorter or much longer than that. The library's warp_sum and
/// warp_max are yours to use, its block_sum and block_max are what you are to write. Entries are finite, of
/// any size. The text: "Threads that talk".
void block_softmax(float* y, const float* x, int rows, int columns);

/// 3.10 A tiled matrix product: c = a b, for a (M, K), b (K, N), c (M, N). Blocks of 16 x 16 threads make
/// tiles of 16 x 16 of c; tiles of a and b go through shared memory, so that each element is read from global
/// memory once per tile and not once per thread. Sizes need not be multiples of 16. The text: "Tiles in
/// shared memory".
void tiled_product(float* c, const float* a, const float* b, int M, int N, int K);

/// 3.11 Online softmax: as 3.9, but one warp per row, and x is read twice only: once for maximum and sum
/// together, once to write y. The text: "Without the matrix" has the rule, "Softmax in one pass" how lanes
/// join their results.
void online_softmax(float* y, const float* x, int rows, int columns);

/// 3.12 Flash attention, forward: one head of causal attention (that of 3.2), q, k, v and y (T, kHeadSize),
/// and lse[t] = log sum_{j <= t} exp(q[t] . k[j] / sqrt(D)). No matrix of scores in global memory, and every
/// block of queries reads each key and value once. The text: "The ladder".
inline constexpr int kHeadSize = 32;
void flash_head(float* y, float* lse, const float* q, const float* k, const float* v, int T);

}  // namespace llm::exercises::ch03
