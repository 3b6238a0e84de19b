// Every numerical primitive of a GPT, forward and backward side by side. Outputs come first.
//
// Rules that hold for all of them:
//   * Each function checks shapes, dtypes and devices first; a mismatch names both sides.
//   * All tensors of a call are on one device, which computes: the CPU (ops/cpu) or the device cuda
//   (ops/cuda).
//   * Tensors are f32 unless said otherwise; token ids are i32. On cuda, activations and the parameters they
//   meet may
//     be bf16, all alike; sums are f32 even so, and gradients of parameters, statistics and losses are f32.
//   * Leading dimensions are flattened: a "row" is one vector along the last dimension, N is the number of
//   rows.
//   * Gradients of activations (dx) are overwritten. Gradients of parameters (dw, db, ...) are
//     accumulated, so that several micro-batches add up.
//   * Outputs may not overlap inputs unless the comment says "in place".
//   * Every output element is computed whole by one thread: no result depends on the thread count.
//
// Sizes in comments: B sequences, T positions, C channels, H heads, D = C / H, V vocabulary, L layers.
// Chapters 3 and 4 explain the functions in this order.
#pragma once

#include <cstdint>
#include <string>

#include "common/core/philox.h"
#include "common/core/tensor.h"

namespace llm {

// ---- matrix products and linear layers ------------------------------------------------------------

/// C = alpha * op(A) op(B) + beta * C for row-major matrices: op(A) is (m, k), op(B) is (k, n), C (m, n).
/// `a_rows` etc. are leading dimensions (elements from one row to the next as stored).
/// The one door to the matrix library. Chapter 3.
void gemm(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
          const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
          std::int64_t ldc);

/// The matrix library on a device, for a program's first line ("oneDNN 2.6.3").
std::string describe_gemm(Device device);

/// y = x w^T + b.  x (..., I), w (O, I), b (O) or undefined, y (..., O).
void linear_forward(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& b);
/// pre = x w^T + b, y = gelu(pre), in one go where the device can. Backward: gelu_backward, then
/// linear_backward.
void linear_gelu_forward(const Tensor& y, const Tensor& pre, const Tensor& x, const Tensor& w,
                         const Tensor& b);
/// dx = dy w, dw += dy^T x, db += column sums of dy; each may be undefined: it is then not wanted.
void linear_backward(const Tensor& dx, const Tensor& dw, const Tensor& db, const Tensor& dy, const Tensor& x,
                     const Tensor& w);

/// Columns [first, first + columns) of a tensor's rows, as a matrix. All columns by default.
struct MatrixColumns {
  const Tensor& tensor;
  std::int64_t first = 0;
  std::int64_t columns = -1;
};
struct ProductOptions {
  bool transpose_a = false, transpose_b = false;
  float alpha = 1, beta = 0;
};
/// c = alpha op(a) op(b) + beta c. c may be f32 where a and b are bf16. Chapter 7's adapters are made of it.
void matrix_product(const MatrixColumns& c, const MatrixColumns& a, const MatrixColumns& b,
                    const ProductOptions& options = {});

// ---- embedding ----------------------------------------------------------------------------------

/// Which rows of a vocabulary's table a rank holds when several share it (chapter 6): those from `first` on,
/// of `whole`. By default the table is the whole vocabulary.
struct VocabularyShard {
  std::int64_t first = 0;
  std::int64_t whole = 0;  // 0: as many as the table has rows
};

/// y[b, t] = token_table[tokens[b, t]] + position_table[first_position + t].
/// tokens (B, T) i32, token_table (V, C), position_table (>= first_position + T, C), y (B, T, C).
/// Error if a token id is outside [0, V); on cuda it comes with the next copy to the CPU
/// (core/device_report.h). Of a shard, rows of y whose token another rank has are 0, so that the ranks' y add
/// up to the whole's, to the bit.
void embedding_forward(const Tensor& y, const Tensor& tokens, const Tensor& token_table,
                       const Tensor& position_table, std::int64_t first_position = 0,
                       const VocabularyShard& shard = {});
/// Of a shard, the tokens of other ranks are passed over; the positions are not.
void embedding_backward(const Tensor& dtoken_table, const Tensor& dposition_table, const Tensor& dy,
                        const Tensor& tokens, std::int64_t first_position = 0,
                        const VocabularyShard& shard = {});

// ---- layer norm (Ba et al. 2016) ------------------------------------------------------------------

/// y = (x - mean) * rstd * gamma + beta for each row, with rstd = 1 / sqrt(variance + eps).
/// x, y (..., C); gamma (C); beta (C) or undefined; mean, rstd (N) are saved for backward.
void layer_norm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                        const Tensor& gamma, const Tensor& beta, float eps);
/// sum = a + b, then y = the layer norm of sum: the residual connection and what follows it. sum may be a or
/// b (in place). Backward is layer_norm_backward with x = sum; its dx is the gradient of a and of b.
void add_layer_norm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean, const Tensor& rstd,
                            const Tensor& a, const Tensor& b, const Tensor& gamma, const Tensor& beta,
                            float eps);
/// `dresidual`, if defined, is added to dx: dx = dresidual + d(layer norm); it may be dx itself (in place).
void layer_norm_backward(const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta, const Tensor& dy,
                         const Tensor& x, const Tensor& gamma, const Tensor& mean, const Tensor& rstd,
                         const Tensor& dresidual);

// ---- elementwise --------------------------------------------------------------------------------

/// GELU, tanh form (Hendrycks and Gimpel 2016, section 2): y = 0.5 x (1 + tanh(sqrt(2/pi)(x + 0.044715
/// x^3))). May be in place (y == x).
void gelu_forward(const Tensor& y, const Tensor& x);
/// dx = dy * gelu'(x), where y = gelu(x). May be in place (dx == dy). (The CPU finds the slope from x and y
/// together faster than from x. A GPU, which would take longer to read y, leaves it alone.)
void gelu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& y);

/// y = a + b. May be in place (y == a). The residual connection; its backward is a copy or an add.
void add(const Tensor& y, const Tensor& a, const Tensor& b);

/// y = x as another dtype: f32 to bf16 rounds to nearest even.
void cast(const Tensor& y, const Tensor& x);

/// Inverted dropout: y = x * mask / (1 - p); the mask of element i is rng.uniform(first_index + i) >= p,
/// so it is never stored: backward is the same call on dy. p in [0, 1). May be in place.
void dropout(const Tensor& y, const Tensor& x, float p, const Philox& rng, std::uint64_t first_index = 0);

// ---- softmax ------------------------------------------------------------------------------------

/// Each row: y = exp(x - max) / sum. Rows of -inf only are an Error-free row of NaN, as in PyTorch.
void softmax_forward(const Tensor& y, const Tensor& x);
void softmax_backward(const Tensor& dx, const Tensor& dy, const Tensor& y);

// ---- causal multi-head attention (Vaswani et al. 2017, section 3.2) ---------------------------------

struct AttentionOptions {
  std::int64_t heads = 1;
  float dropout = 0;              // on the attention weights
  Philox rng = {};                // with dropout: element ((b H + h) T + i) T + j of the weights
  std::uint64_t first_index = 0;  // ... counted from here
  std::int64_t all_heads = 0;     // ... with this as H, where these heads are some of more; 0: heads
};

/// qkv (B, T, 3C): for each position q, k, v, each of heads x D. y (B, T, C).
/// Stores all weights: weights (B, H, T, T), zero above the diagonal, before dropout.
void attention_naive_forward(const Tensor& y, const Tensor& weights, const Tensor& qkv,
                             const AttentionOptions& options);
void attention_naive_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& weights, const Tensor& qkv,
                              const AttentionOptions& options);

/// The same result without ever storing the T x T scores (Milakov and Gimelshein 2018; Dao et al. 2022):
/// keys are taken block by block with a running maximum and sum; lse (B, H, T) = log sum exp of each row's
/// scores is all that is saved, and backward recomputes the weights from it.
void attention_flash_forward(const Tensor& y, const Tensor& lse, const Tensor& qkv,
                             const AttentionOptions& options);
void attention_flash_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& y, const Tensor& lse,
                              const Tensor& qkv, const AttentionOptions& options);

/// One new position per sequence over a cache. qkv (B, 1, 3C); key_cache, value_cache (B, H, S, D) hold
/// `length` positions and receive the new one at index `length` (Error if length >= S). y (B, 1, C).
void attention_decode(const Tensor& y, const Tensor& key_cache, const Tensor& value_cache, const Tensor& qkv,
                      std::int64_t length, std::int64_t heads);

/// Writes the keys and values of qkv (B, T, 3C) into positions [first, first + T) of the caches.
void attention_fill_cache(const Tensor& key_cache, const Tensor& value_cache, const Tensor& qkv,
                          std::int64_t first, std::int64_t heads);

// ---- cross-entropy --------------------------------------------------------------------------------

/// losses[i] = log sum exp(logits[i]) - logits[i, targets[i]]; 0 where targets[i] is -1 (ignored).
/// logits (..., V), targets i32 (N elements), losses (N elements). Error if a target is outside [-1, V); on
/// cuda with the next copy to the CPU.
void cross_entropy_forward(const Tensor& losses, const Tensor& logits, const Tensor& targets);
/// dlogits = scale * (softmax(logits) - one_hot(target)), zero rows where ignored. May be in place.
void cross_entropy_backward(const Tensor& dlogits, const Tensor& logits, const Tensor& targets, float scale);

/// The head and its loss at once: logits = x w^T exist only for some rows at a time.
/// x (..., C), w (V, C), losses as above.
void linear_cross_entropy_forward(const Tensor& losses, const Tensor& x, const Tensor& w,
                                  const Tensor& targets);
/// Forward and backward together (each block of logits is turned into its gradient at once):
/// dx overwritten, dw accumulated unless undefined, both for sum_i scale * weights[i] * losses[i]. `weights`
/// (N) f32; undefined: all 1.
void linear_cross_entropy(const Tensor& losses, const Tensor& dx, const Tensor& dw, const Tensor& x,
                          const Tensor& w, const Tensor& targets, float scale,
                          const Tensor& weights = Tensor());

// The same over a vocabulary that several ranks share (Shoeybi et al. 2019, section 3): each has the logits
// of its shard, and per row only three numbers pass between them. With `highest` the largest of all ranks'
// highest:
//   loss = log(sum of the ranks' total exp(highest_of_rank - highest)) + highest - sum of the ranks' right.

/// highest, total, right (N) f32: the row's largest logit, its sum of exp(logit - highest), and its target's
/// logit, or 0 if another rank has it. logits (..., V / t), targets as above, of the whole vocabulary.
void shard_cross_entropy_statistics(const Tensor& highest, const Tensor& total, const Tensor& right,
                                    const Tensor& logits, const Tensor& targets,
                                    const VocabularyShard& shard);
/// total *= exp(highest - new_highest): to be added up with those of other ranks. (N) f32 all.
void shard_cross_entropy_rescale(const Tensor& total, const Tensor& highest, const Tensor& new_highest);
/// losses (N) from the statistics of all ranks; 0 where targets[i] is -1.
void shard_cross_entropy_losses(const Tensor& losses, const Tensor& highest, const Tensor& total,
                                const Tensor& right, const Tensor& targets);
/// dlogits = scale * weights[i] * (softmax(logits) - one_hot(target)) of this shard, given the statistics of
/// all ranks; zero rows where ignored. May be in place. `weights` (N) f32; undefined: all 1.
void shard_cross_entropy_backward(const Tensor& dlogits, const Tensor& logits, const Tensor& targets,
                                  const Tensor& highest, const Tensor& total, float scale,
                                  const VocabularyShard& shard, const Tensor& weights = Tensor());

// ---- optimizer ------------------------------------------------------------------------------------

/// The constants are double: 1 - beta2 computed from a float 0.999 is off by 1e-5 of itself.
struct AdamWStep {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  std::int64_t step = 1;      // counted from 1, for the bias corrections
  double gradient_scale = 1;  // multiplies the gradient first (clipping)
};

/// One AdamW update in place (Loshchilov and Hutter 2019, algorithm 2): all four f32 and of equal count.
/// `copy` (bf16, of the same count), if defined, receives the new values: what a model that computes in bf16
/// reads.
void adamw_update(const Tensor& values, const Tensor& first_moment, const Tensor& second_moment,
                  const Tensor& gradients, const AdamWStep& options, const Tensor& copy = Tensor());

/// Sum of squares of all elements, in double, summed in an order that depends only on the count. On cuda the
/// host waits for it.
double squared_norm(const Tensor& x);

}  // namespace llm
