// The matrix product by OpenBLAS (LLM_BLAS=openblas), its serial build: the threads are ours.
#include <cblas.h>

#include "common/ops/cpu/gemm_pieces.h"

namespace llm {

void cpu::multiply(const Product& whole) {
  multiply_pieces(whole, [](const Product& o) {
    // A leading dimension of 0 (an empty matrix) is an error in BLAS.
    const auto at_least_1 = [](Index n) { return static_cast<blasint>(std::max<Index>(1, n)); };
    cblas_sgemm(CblasRowMajor, o.transpose_a ? CblasTrans : CblasNoTrans,
                o.transpose_b ? CblasTrans : CblasNoTrans, static_cast<blasint>(o.m),
                static_cast<blasint>(o.n), static_cast<blasint>(o.k), o.alpha, o.a, at_least_1(o.lda), o.b,
                at_least_1(o.ldb), o.beta, o.c, at_least_1(o.ldc));
  });
}

std::string cpu::describe_gemm() {
  return openblas_get_config();
}

}  // namespace llm
