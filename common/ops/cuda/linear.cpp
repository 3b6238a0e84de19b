// Linear layers on the device: three matrix products around one weight, and a column sum. Chapter 3.
#include "common/ops/cuda/column_sums.h"
#include "common/ops/cuda/gemm.h"
#include "common/ops/cuda/kernels.h"

namespace llm::cuda {

namespace {

/// C = x w^T + b: (N, I) (I, O) -> (N, O).
Product forward(const Tensor& c, const Tensor& x, const Tensor& w, const Tensor& b) {
  const Index out = w.dim(0), in = w.dim(1);
  return {.transpose_b = true,
          .m = x.numel() / in,
          .n = out,
          .k = in,
          .inputs = x.dtype(),
          .a = x.raw(),
          .lda = in,
          .b = w.raw(),
          .ldb = in,
          .output = c.dtype(),
          .c = c.raw(),
          .ldc = out,
          .bias = b.raw()};
}

}  // namespace

void linear_forward(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& b) {
  gemm(forward(y, x, w, b));
}

void linear_gelu_forward(const Tensor& y, const Tensor& pre, const Tensor& x, const Tensor& w,
                         const Tensor& b) {
  Product product = forward(pre, x, w, b);
  if (!b.defined()) {
    gemm(product);
    return cuda::gelu_forward(y, pre);
  }
  product.gelu = y.raw();
  if (try_gemm(product)) return;
  product.gelu = nullptr;
  product.bias = nullptr;
  gemm(product);
  cuda::bias_gelu(y, pre, b);
}

void linear_backward(const Tensor& dx, const Tensor& dw, const Tensor& db, const Tensor& dy, const Tensor& x,
                     const Tensor& w) {
  const Index out = w.dim(0), in = w.dim(1), rows = x.numel() / in;
  if (rows == 0) return;
  if (dx.defined())  // (N, O) (O, I) -> (N, I)
    gemm({.m = rows,
          .n = in,
          .k = out,
          .inputs = dy.dtype(),
          .a = dy.raw(),
          .lda = out,
          .b = w.raw(),
          .ldb = in,
          .output = dx.dtype(),
          .c = dx.raw(),
          .ldc = in});
  if (dw.defined())  // (O, N) (N, I) -> (O, I), added in f32
    gemm({.transpose_a = true,
          .m = out,
          .n = in,
          .k = rows,
          .inputs = dy.dtype(),
          .a = dy.raw(),
          .lda = out,
          .b = x.raw(),
          .ldb = in,
          .beta = 1,
          .output = DType::f32,
          .c = dw.raw(),
          .ldc = in});
  if (db.defined()) add_column_sums(db.data(), dy, out);
}

}  // namespace llm::cuda
