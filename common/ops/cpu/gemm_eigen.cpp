// The matrix product by Eigen (LLM_BLAS=eigen): nothing to install, and an independent answer to test
// against.
#include <Eigen/Core>

#include "common/ops/cpu/gemm_pieces.h"

namespace llm {

namespace cpu {

namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using View = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;
using ConstView = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;

template <typename A, typename B>
void assign(View c, const A& a, const B& b, float alpha, float beta) {
  if (beta == 0) {
    c.noalias() = alpha * a * b;
  } else {
    if (beta != 1) c *= beta;
    c.noalias() += alpha * a * b;
  }
}

}  // namespace

void multiply(const Product& whole) {
  multiply_pieces(whole, [](const Product& o) {
    const View c(o.c, o.m, o.n, Eigen::OuterStride<>(o.ldc));
    const ConstView a(o.a, o.transpose_a ? o.k : o.m, o.transpose_a ? o.m : o.k, Eigen::OuterStride<>(o.lda));
    const ConstView b(o.b, o.transpose_b ? o.n : o.k, o.transpose_b ? o.k : o.n, Eigen::OuterStride<>(o.ldb));
    if (o.transpose_a && o.transpose_b)
      assign(c, a.transpose(), b.transpose(), o.alpha, o.beta);
    else if (o.transpose_a)
      assign(c, a.transpose(), b, o.alpha, o.beta);
    else if (o.transpose_b)
      assign(c, a, b.transpose(), o.alpha, o.beta);
    else
      assign(c, a, b, o.alpha, o.beta);
  });
}

}  // namespace cpu

std::string cpu::describe_gemm() {
  return fmt::format("Eigen {}.{}.{}", EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION);
}

}  // namespace llm
