// The primitives of ops.h, each: check the arguments, then compute on the tensors' device. This build has one
// device, the CPU (ops/cpu). Attention and losses are in ops_attention.cpp and ops_loss.cpp.
#include "common/ops/ops.h"

#include "common/ops/checks.h"
#include "common/ops/cpu/gemm.h"
#include "common/ops/cpu/kernels.h"

namespace llm {

namespace {

const float* data_or_null(const Tensor& t) {
  return t.defined() ? t.data() : nullptr;
}
float* mutable_or_null(const Tensor& t) {
  return t.defined() ? t.data() : nullptr;
}

}  // namespace

void gemm(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
          const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
          std::int64_t ldc) {
  cpu::multiply({transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc});
}

void linear_forward(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& b) {
  const Checks check{"linear_forward"};
  check.rank("w", w, 2);
  const std::int64_t out = w.dim(0), in = w.dim(1);
  const std::int64_t rows = check.rows("x", x, in);
  check.same_rows("y", y, out, rows);
  if (b.defined()) check.shape("b", b, {out});
  cpu::linear_forward(y.data(), x.data(), w.data(), data_or_null(b), rows, in, out);
}

void linear_backward(const Tensor& dx, const Tensor& dw, const Tensor& db, const Tensor& dy, const Tensor& x,
                     const Tensor& w) {
  const Checks check{"linear_backward"};
  check.rank("w", w, 2);
  const std::int64_t out = w.dim(0), in = w.dim(1);
  const std::int64_t rows = check.rows("x", x, in);
  check.same_rows("dy", dy, out, rows);
  check.same_shape("dw", dw, "w", w);
  if (dx.defined()) check.same_rows("dx", dx, in, rows);
  if (db.defined()) check.shape("db", db, {out});
  cpu::linear_backward(mutable_or_null(dx), dw.data(), mutable_or_null(db), dy.data(), x.data(), w.data(),
                       rows, in, out);
}

namespace {

/// What both directions of the embedding check. `y` and the tables are the values, or their gradients.
void check_embedding(const Checks& check, std::string_view y_name, const Tensor& y, const Tensor& tokens,
                     const Tensor& token_table, const Tensor& position_table, std::int64_t first_position) {
  check.rank("tokens", tokens, 2, DType::i32);
  check.rank("the token table", token_table, 2);
  check.rank("the position table", position_table, 2);
  const std::int64_t channels = token_table.dim(1);
  check.rows("the position table", position_table, channels);
  check.shape(y_name, y, {tokens.dim(0), tokens.dim(1), channels});
  llm::check(first_position >= 0 && first_position + tokens.dim(1) <= position_table.dim(0),
             "{}: positions {} to {} are not within a position table of {} rows", check.function,
             first_position, first_position + tokens.dim(1), position_table.dim(0));
  const std::int64_t vocabulary = token_table.dim(0);
  for (const std::int32_t token : tokens.span<std::int32_t>())
    llm::check(token >= 0 && token < vocabulary, "{}: token id {} is not within the vocabulary of {}",
               check.function, token, vocabulary);
}

}  // namespace

void embedding_forward(const Tensor& y, const Tensor& tokens, const Tensor& token_table,
                       const Tensor& position_table, std::int64_t first_position) {
  check_embedding({"embedding_forward"}, "y", y, tokens, token_table, position_table, first_position);
  const std::int64_t channels = token_table.dim(1);
  cpu::embedding_forward(y.data(), tokens.data<std::int32_t>(), token_table.data(),
                         position_table.data() + first_position * channels, tokens.dim(0), tokens.dim(1),
                         channels);
}

void embedding_backward(const Tensor& dtoken_table, const Tensor& dposition_table, const Tensor& dy,
                        const Tensor& tokens, std::int64_t first_position) {
  check_embedding({"embedding_backward"}, "dy", dy, tokens, dtoken_table, dposition_table, first_position);
  const std::int64_t channels = dtoken_table.dim(1);
  cpu::embedding_backward(dtoken_table.data(), dposition_table.data() + first_position * channels, dy.data(),
                          tokens.data<std::int32_t>(), tokens.dim(0), tokens.dim(1), channels);
}

void layer_norm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                        const Tensor& gamma, const Tensor& beta, float eps) {
  const Checks check{"layer_norm_forward"};
  check.rank("gamma", gamma, 1);
  const std::int64_t channels = gamma.dim(0);
  const std::int64_t rows = check.rows("x", x, channels);
  check.same_rows("y", y, channels, rows);
  check.count("mean", mean, rows);
  check.count("rstd", rstd, rows);
  if (beta.defined()) check.shape("beta", beta, {channels});
  cpu::layer_norm_forward(y.data(), mean.data(), rstd.data(), x.data(), gamma.data(), data_or_null(beta),
                          rows, channels, eps);
}

void layer_norm_backward(const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta, const Tensor& dy,
                         const Tensor& x, const Tensor& gamma, const Tensor& mean, const Tensor& rstd,
                         const Tensor& dresidual) {
  const Checks check{"layer_norm_backward"};
  check.rank("gamma", gamma, 1);
  const std::int64_t channels = gamma.dim(0);
  const std::int64_t rows = check.rows("x", x, channels);
  check.same_rows("dx", dx, channels, rows);
  check.same_rows("dy", dy, channels, rows);
  check.shape("dgamma", dgamma, {channels});
  if (dbeta.defined()) check.shape("dbeta", dbeta, {channels});
  check.count("mean", mean, rows);
  check.count("rstd", rstd, rows);
  if (dresidual.defined()) check.same_rows("dresidual", dresidual, channels, rows);
  cpu::layer_norm_backward(dx.data(), dgamma.data(), mutable_or_null(dbeta), dy.data(), x.data(),
                           gamma.data(), mean.data(), rstd.data(), data_or_null(dresidual), rows, channels);
}

void gelu_forward(const Tensor& y, const Tensor& x) {
  const Checks check{"gelu_forward"};
  check.tensor("x", x);
  check.same_shape("y", y, "x", x);
  cpu::gelu_forward(y.data(), x.data(), x.numel());
}

void gelu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x) {
  const Checks check{"gelu_backward"};
  check.tensor("x", x);
  check.same_shape("dx", dx, "x", x);
  check.same_shape("dy", dy, "x", x);
  cpu::gelu_backward(dx.data(), dy.data(), x.data(), x.numel());
}

void add(const Tensor& y, const Tensor& a, const Tensor& b) {
  const Checks check{"add"};
  check.tensor("a", a);
  check.same_shape("b", b, "a", a);
  check.same_shape("y", y, "a", a);
  cpu::add(y.data(), a.data(), b.data(), a.numel());
}

void dropout(const Tensor& y, const Tensor& x, float p, const Philox& rng, std::uint64_t first_index) {
  const Checks check{"dropout"};
  check.tensor("x", x);
  check.same_shape("y", y, "x", x);
  llm::check(p >= 0 && p < 1, "dropout: the probability must be at least 0 and less than 1, got {}", p);
  if (p == 0) {
    if (y.raw() != x.raw()) y.copy_from(x);
    return;
  }
  cpu::dropout(y.data(), x.data(), x.numel(), p, rng, first_index);
}

void softmax_forward(const Tensor& y, const Tensor& x) {
  const Checks check{"softmax_forward"};
  check.tensor("x", x);
  const std::int64_t columns = x.rank() == 0 ? 1 : x.dim(-1);
  const std::int64_t rows = check.rows("x", x, columns);
  check.same_shape("y", y, "x", x);
  cpu::softmax_forward(y.data(), x.data(), rows, columns);
}

void softmax_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) {
  const Checks check{"softmax_backward"};
  check.tensor("y", y);
  const std::int64_t columns = y.rank() == 0 ? 1 : y.dim(-1);
  const std::int64_t rows = check.rows("y", y, columns);
  check.same_shape("dx", dx, "y", y);
  check.same_shape("dy", dy, "y", y);
  cpu::softmax_backward(dx.data(), dy.data(), y.data(), rows, columns);
}

void adamw_update(const Tensor& values, const Tensor& first_moment, const Tensor& second_moment,
                  const Tensor& gradients, const AdamWStep& options) {
  const Checks check{"adamw_update"};
  check.tensor("values", values);
  check.count("first_moment", first_moment, values.numel());
  check.count("second_moment", second_moment, values.numel());
  check.count("gradients", gradients, values.numel());
  llm::check(options.step >= 1, "adamw_update: steps are counted from 1, got {}", options.step);
  cpu::adamw_update(values.data(), first_moment.data(), second_moment.data(), gradients.data(),
                    values.numel(), options);
}

double squared_norm(const Tensor& x) {
  Checks{"squared_norm"}.tensor("x", x);
  return cpu::squared_norm(x.data(), x.numel());
}

}  // namespace llm
