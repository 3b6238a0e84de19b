// A matrix product as the kernels ask for it. One of gemm_builtin.cpp, gemm_eigen.cpp, gemm_onednn.cpp and
// gemm_openblas.cpp computes it: CMake's LLM_BLAS says which.
#pragma once

#include <string>

#include "common/ops/cpu/kernels.h"

namespace llm::cpu {

/// C = alpha op(A) op(B) + beta C, plus `bias` (n) to every row if it is not null. Row-major, as in gemm
/// (ops.h). Uses the thread pool; the result does not depend on the number of threads.
struct Product {
  bool transpose_a, transpose_b;
  Index m, n, k;
  float alpha;
  const float* a;
  Index lda;
  const float* b;
  Index ldb;
  float beta;
  float* c;
  Index ldc;
  const float* bias = nullptr;
};
void multiply(const Product& product);

/// The matrix library behind it ("oneDNN 2.6.3").
std::string describe_gemm();

}  // namespace llm::cpu
