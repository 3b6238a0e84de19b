// The primitives of ops.h, each: check the arguments, then compute on the tensors' device (ops/cpu or
// ops/cuda). Attention, losses and the optimizer are in ops_attention.cpp, ops_loss.cpp and
// ops_optimizer.cpp.
#include "common/ops/ops.h"

#include "common/ops/checks.h"
#include "common/ops/cpu/gemm.h"
#include "common/ops/cpu/kernels.h"
#include "common/ops/cuda/gemm.h"
#include "common/ops/cuda/kernels.h"

namespace llm {

namespace {

const float* data_or_null(const Tensor& t) {
  return t.defined() ? t.data() : nullptr;
}
float* mutable_or_null(const Tensor& t) {
  return t.defined() ? t.data() : nullptr;
}

}  // namespace

std::string describe_gemm(Device device) {
  return device == Device::cpu ? cpu::describe_gemm() : cuda::describe_gemm();
}

void gemm(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
          const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
          std::int64_t ldc) {
  cpu::multiply({transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc});
}

void linear_forward(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& b) {
  const Checks check{"linear_forward", "x", x};
  check.rank("w", w, 2);
  const std::int64_t out = w.dim(0), in = w.dim(1);
  const std::int64_t rows = check.rows("x", x, in);
  check.same_rows("y", y, out, rows);
  if (b.defined()) check.shape("b", b, {out});
  if (check.on_cuda()) return cuda::linear_forward(y, x, w, b);
  cpu::linear_forward(y.data(), x.data(), w.data(), data_or_null(b), rows, in, out);
}

void linear_gelu_forward(const Tensor& y, const Tensor& pre, const Tensor& x, const Tensor& w,
                         const Tensor& b) {
  const Checks check{"linear_gelu_forward", "x", x};
  check.rank("w", w, 2);
  const std::int64_t out = w.dim(0), in = w.dim(1);
  const std::int64_t rows = check.rows("x", x, in);
  check.same_rows("pre", pre, out, rows);
  check.same_shape("y", y, "pre", pre);
  if (b.defined()) check.shape("b", b, {out});
  if (check.on_cuda()) return cuda::linear_gelu_forward(y, pre, x, w, b);
  cpu::linear_forward(pre.data(), x.data(), w.data(), data_or_null(b), rows, in, out);
  cpu::gelu_forward(y.data(), pre.data(), pre.numel());
}

void linear_backward(const Tensor& dx, const Tensor& dw, const Tensor& db, const Tensor& dy, const Tensor& x,
                     const Tensor& w) {
  const Checks check{"linear_backward", "x", x};
  check.rank("w", w, 2);
  const std::int64_t out = w.dim(0), in = w.dim(1);
  const std::int64_t rows = check.rows("x", x, in);
  check.same_rows("dy", dy, out, rows);
  if (dw.defined()) check.same_shape("dw", dw, "w", w, DType::f32);
  if (dx.defined()) check.same_rows("dx", dx, in, rows);
  if (db.defined()) check.shape("db", db, {out}, DType::f32);
  if (check.on_cuda()) return cuda::linear_backward(dx, dw, db, dy, x, w);
  cpu::linear_backward(mutable_or_null(dx), mutable_or_null(dw), mutable_or_null(db), dy.data(), x.data(),
                       w.data(), rows, in, out);
}

namespace {

struct MatrixSize {
  std::int64_t rows, columns, stride;
};
MatrixSize size_of_matrix(const MatrixColumns& m, const char* name) {
  llm::check(m.tensor.defined() && m.tensor.rank() >= 1, "matrix_product: {} is not defined", name);
  const std::int64_t stride = m.tensor.dim(-1);
  const std::int64_t columns = m.columns < 0 ? stride - m.first : m.columns;
  llm::check(stride > 0 && m.first >= 0 && columns >= 0 && m.first + columns <= stride,
             "matrix_product: columns {} to {} are not within {} of shape {}", m.first, m.first + columns - 1,
             name, to_string(m.tensor.shape()));
  return {m.tensor.numel() / stride, columns, stride};
}
const void* first_element(const MatrixColumns& m) {
  return static_cast<const std::byte*>(m.tensor.raw()) +
         static_cast<std::size_t>(m.first) * size_of(m.tensor.dtype());
}

}  // namespace

void matrix_product(const MatrixColumns& c, const MatrixColumns& a, const MatrixColumns& b,
                    const ProductOptions& o) {
  const Checks check{"matrix_product", "a", a.tensor};
  const MatrixSize as = size_of_matrix(a, "a"), bs = size_of_matrix(b, "b"), cs = size_of_matrix(c, "c");
  check.tensor("b", b.tensor);
  if (c.tensor.dtype() != DType::f32 || c.tensor.device() != check.device) check.tensor("c", c.tensor);
  const std::int64_t m = o.transpose_a ? as.columns : as.rows, k = o.transpose_a ? as.rows : as.columns;
  const std::int64_t n = o.transpose_b ? bs.rows : bs.columns;
  llm::check(k == (o.transpose_b ? bs.columns : bs.rows) && cs.rows == m && cs.columns == n,
             "matrix_product: ({}, {}){} times ({}, {}){} does not give ({}, {})", as.rows, as.columns,
             o.transpose_a ? " transposed" : "", bs.rows, bs.columns, o.transpose_b ? " transposed" : "",
             cs.rows, cs.columns);
  if (m == 0 || n == 0) return;
  if (check.on_cuda())
    return cuda::gemm({.transpose_a = o.transpose_a,
                       .transpose_b = o.transpose_b,
                       .m = m,
                       .n = n,
                       .k = k,
                       .alpha = o.alpha,
                       .inputs = a.tensor.dtype(),
                       .a = first_element(a),
                       .lda = as.stride,
                       .b = first_element(b),
                       .ldb = bs.stride,
                       .beta = o.beta,
                       .output = c.tensor.dtype(),
                       .c = const_cast<void*>(first_element(c)),
                       .ldc = cs.stride});
  gemm(o.transpose_a, o.transpose_b, m, n, k, o.alpha, static_cast<const float*>(first_element(a)), as.stride,
       static_cast<const float*>(first_element(b)), bs.stride, o.beta, c.tensor.data() + c.first, cs.stride);
}

namespace {

/// What both directions of the embedding check. `y` and the tables are the values, or their gradients.
/// Returns the shard with its size filled in.
VocabularyShard check_embedding(const Checks& check, const Tensor& y, const Tensor& tokens,
                                const Tensor& token_table, const Tensor& position_table,
                                std::int64_t first_position, VocabularyShard shard, DType table_dtype) {
  check.rank("tokens", tokens, 2, DType::i32);
  check.rank("the token table", token_table, 2, table_dtype);
  check.rank("the position table", position_table, 2, table_dtype);
  const std::int64_t channels = token_table.dim(1);
  check.rows("the position table", position_table, channels, table_dtype);
  check.shape(check.first_name, y, {tokens.dim(0), tokens.dim(1), channels});
  llm::check(first_position >= 0 && first_position + tokens.dim(1) <= position_table.dim(0),
             "{}: positions {} to {} are not within a position table of {} rows", check.function,
             first_position, first_position + tokens.dim(1), position_table.dim(0));
  shard = check_shard(check, shard, token_table.dim(0));
  if (check.on_cuda()) return shard;  // the kernels look at the ids themselves: ops/cuda/ids.cuh
  for (const std::int32_t token : tokens.span<std::int32_t>())
    llm::check(token >= 0 && token < shard.whole, "{}: token id {} is not within the vocabulary of {}",
               check.function, token, shard.whole);
  return shard;
}

}  // namespace

void embedding_forward(const Tensor& y, const Tensor& tokens, const Tensor& token_table,
                       const Tensor& position_table, std::int64_t first_position,
                       const VocabularyShard& part) {
  const Checks check{"embedding_forward", "y", y};
  const VocabularyShard shard =
      check_embedding(check, y, tokens, token_table, position_table, first_position, part, check.dtype);
  if (check.on_cuda())
    return cuda::embedding_forward(y, tokens, token_table, position_table, first_position, shard);
  const std::int64_t channels = token_table.dim(1);
  cpu::embedding_forward(y.data(), tokens.data<std::int32_t>(), token_table.data(),
                         position_table.data() + first_position * channels, tokens.dim(0), tokens.dim(1),
                         channels, shard.first, token_table.dim(0));
}

void embedding_backward(const Tensor& dtoken_table, const Tensor& dposition_table, const Tensor& dy,
                        const Tensor& tokens, std::int64_t first_position, const VocabularyShard& part) {
  const Checks check{"embedding_backward", "dy", dy};
  const VocabularyShard shard =
      check_embedding(check, dy, tokens, dtoken_table, dposition_table, first_position, part, DType::f32);
  if (check.on_cuda())
    return cuda::embedding_backward(dtoken_table, dposition_table, dy, tokens, first_position, shard);
  const std::int64_t channels = dtoken_table.dim(1);
  cpu::embedding_backward(dtoken_table.data(), dposition_table.data() + first_position * channels, dy.data(),
                          tokens.data<std::int32_t>(), tokens.dim(0), tokens.dim(1), channels, shard.first,
                          dtoken_table.dim(0));
}

void layer_norm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                        const Tensor& gamma, const Tensor& beta, float eps) {
  const Checks check{"layer_norm_forward", "x", x};
  check.rank("gamma", gamma, 1);
  const std::int64_t channels = gamma.dim(0);
  const std::int64_t rows = check.rows("x", x, channels);
  check.same_rows("y", y, channels, rows);
  check.count("mean", mean, rows, DType::f32);
  check.count("rstd", rstd, rows, DType::f32);
  if (beta.defined()) check.shape("beta", beta, {channels});
  if (check.on_cuda()) return cuda::layer_norm_forward(y, mean, rstd, x, gamma, beta, eps);
  cpu::layer_norm_forward(y.data(), mean.data(), rstd.data(), x.data(), gamma.data(), data_or_null(beta),
                          rows, channels, eps);
}

void add_layer_norm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean, const Tensor& rstd,
                            const Tensor& a, const Tensor& b, const Tensor& gamma, const Tensor& beta,
                            float eps) {
  const Checks check{"add_layer_norm_forward", "a", a};
  check.rank("gamma", gamma, 1);
  const std::int64_t channels = gamma.dim(0);
  const std::int64_t rows = check.rows("a", a, channels);
  check.same_shape("b", b, "a", a);
  check.same_shape("sum", sum, "a", a);
  check.same_rows("y", y, channels, rows);
  check.count("mean", mean, rows, DType::f32);
  check.count("rstd", rstd, rows, DType::f32);
  if (beta.defined()) check.shape("beta", beta, {channels});
  if (check.on_cuda()) return cuda::add_layer_norm_forward(sum, y, mean, rstd, a, b, gamma, beta, eps);
  cpu::add_layer_norm_forward(sum.data(), y.data(), mean.data(), rstd.data(), a.data(), b.data(),
                              gamma.data(), data_or_null(beta), rows, channels, eps);
}

void layer_norm_backward(const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta, const Tensor& dy,
                         const Tensor& x, const Tensor& gamma, const Tensor& mean, const Tensor& rstd,
                         const Tensor& dresidual) {
  const Checks check{"layer_norm_backward", "x", x};
  check.rank("gamma", gamma, 1);
  const std::int64_t channels = gamma.dim(0);
  const std::int64_t rows = check.rows("x", x, channels);
  check.same_rows("dx", dx, channels, rows);
  check.same_rows("dy", dy, channels, rows);
  check.shape("dgamma", dgamma, {channels}, DType::f32);
  if (dbeta.defined()) check.shape("dbeta", dbeta, {channels}, DType::f32);
  check.count("mean", mean, rows, DType::f32);
  check.count("rstd", rstd, rows, DType::f32);
  if (dresidual.defined()) check.same_rows("dresidual", dresidual, channels, rows);
  if (check.on_cuda())
    return cuda::layer_norm_backward(dx, dgamma, dbeta, dy, x, gamma, mean, rstd, dresidual);
  cpu::layer_norm_backward(dx.data(), dgamma.data(), mutable_or_null(dbeta), dy.data(), x.data(),
                           gamma.data(), mean.data(), rstd.data(), data_or_null(dresidual), rows, channels);
}

void gelu_forward(const Tensor& y, const Tensor& x) {
  const Checks check{"gelu_forward", "x", x};
  check.tensor("x", x);
  check.same_shape("y", y, "x", x);
  if (check.on_cuda()) return cuda::gelu_forward(y, x);
  cpu::gelu_forward(y.data(), x.data(), x.numel());
}

void gelu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& y) {
  const Checks check{"gelu_backward", "x", x};
  check.tensor("x", x);
  check.same_shape("dx", dx, "x", x);
  check.same_shape("dy", dy, "x", x);
  check.same_shape("y", y, "x", x);
  if (check.on_cuda()) return cuda::gelu_backward(dx, dy, x);
  cpu::gelu_backward(dx.data(), dy.data(), x.data(), y.data(), x.numel());
}

void add(const Tensor& y, const Tensor& a, const Tensor& b) {
  const Checks check{"add", "a", a};
  check.tensor("a", a);
  check.same_shape("b", b, "a", a);
  check.same_shape("y", y, "a", a);
  if (check.on_cuda()) return cuda::add(y, a, b);
  cpu::add(y.data(), a.data(), b.data(), a.numel());
}

void cast(const Tensor& y, const Tensor& x) {
  const auto f32_or_bf16 = [](std::string_view name, const Tensor& t) {
    llm::check(t.defined(), "cast: {} is not defined", name);
    llm::check(t.dtype() != DType::i32, "cast: {} must be f32 or bf16, but it is i32", name);
  };
  f32_or_bf16("x", x);
  f32_or_bf16("y", y);
  llm::check(y.device() == x.device(), "cast: x is on {}, but y is on {}", name(x.device()),
             name(y.device()));
  llm::check(y.shape() == x.shape(), "cast: y has shape {}, but x has {}", to_string(y.shape()),
             to_string(x.shape()));
  if (y.dtype() == x.dtype()) return y.copy_from(x);
  if (x.device() == Device::cuda) return cuda::cast(y, x);
  if (x.dtype() == DType::f32)
    cpu::cast(y.data<BFloat16>(), x.data(), x.numel());
  else
    cpu::cast(y.data(), x.data<BFloat16>(), x.numel());
}

void dropout(const Tensor& y, const Tensor& x, float p, const Philox& rng, std::uint64_t first_index) {
  const Checks check{"dropout", "x", x};
  check.tensor("x", x);
  check.same_shape("y", y, "x", x);
  llm::check(p >= 0 && p < 1, "dropout: the probability must be at least 0 and less than 1, got {}", p);
  if (p == 0) {
    if (y.raw() != x.raw()) y.copy_from(x);
    return;
  }
  if (check.on_cuda()) return cuda::dropout(y, x, p, rng, first_index);
  cpu::dropout(y.data(), x.data(), x.numel(), p, rng, first_index);
}

void softmax_forward(const Tensor& y, const Tensor& x) {
  const Checks check{"softmax_forward", "x", x};
  check.tensor("x", x);
  const std::int64_t columns = x.rank() == 0 ? 1 : x.dim(-1);
  const std::int64_t rows = check.rows("x", x, columns);
  check.same_shape("y", y, "x", x);
  if (check.on_cuda()) return cuda::softmax_forward(y, x);
  cpu::softmax_forward(y.data(), x.data(), rows, columns);
}

void softmax_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) {
  const Checks check{"softmax_backward", "y", y};
  check.tensor("y", y);
  const std::int64_t columns = y.rank() == 0 ? 1 : y.dim(-1);
  const std::int64_t rows = check.rows("y", y, columns);
  check.same_shape("dx", dx, "y", y);
  check.same_shape("dy", dy, "y", y);
  if (check.on_cuda()) return cuda::softmax_backward(dx, dy, y);
  cpu::softmax_backward(dx.data(), dy.data(), y.data(), rows, columns);
}

}  // namespace llm
