// gemm by Eigen: always there, and the reference for the others. Chapter 3.
#include <Eigen/Core>

#include "common/core/threads.h"
#include "common/ops/ops.h"

namespace llm {

namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using View = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;
using ConstView = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;

template <typename A, typename B>
void product(View c, const A& a, const B& b, float alpha, float beta) {
  if (beta == 0) {
    c.noalias() = alpha * a * b;
  } else {
    if (beta != 1) c *= beta;
    c.noalias() += alpha * a * b;
  }
}

}  // namespace

void gemm(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
          const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
          std::int64_t ldc) {
  const View c_view(c, m, n, Eigen::OuterStride<>(ldc));
  const ConstView av(a, transpose_a ? k : m, transpose_a ? m : k, Eigen::OuterStride<>(lda));
  const ConstView bv(b, transpose_b ? n : k, transpose_b ? k : n, Eigen::OuterStride<>(ldb));
  if (transpose_a && transpose_b)
    product(c_view, av.transpose(), bv.transpose(), alpha, beta);
  else if (transpose_a)
    product(c_view, av.transpose(), bv, alpha, beta);
  else if (transpose_b)
    product(c_view, av, bv.transpose(), alpha, beta);
  else
    product(c_view, av, bv, alpha, beta);
}

std::string describe_gemm() {
  return "Eigen";
}

}  // namespace llm
