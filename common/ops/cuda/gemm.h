// A matrix product on the device, as the kernels ask for it. On a GPU cuBLASLt computes it
// (gemm_cublaslt.cpp); in the software GPU the CPU's product does (gemm_emulated.cpp). Chapter 3.
#pragma once

#include "common/core/tensor.h"

namespace llm::cuda {

/// C = alpha op(A) op(B) + beta C, row-major: op(A) is (m, k), op(B) is (k, n), C (m, n); lda etc. are
/// elements from one row to the next as stored. A and B are f32 or bf16, sums are f32, C is f32 or as A and
/// B.
struct Product {
  bool transpose_a = false, transpose_b = false;
  std::int64_t m = 0, n = 0, k = 0;
  float alpha = 1;
  DType inputs = DType::f32;
  const void* a = nullptr;
  std::int64_t lda = 0;
  const void* b = nullptr;
  std::int64_t ldb = 0;
  float beta = 0;
  DType output = DType::f32;
  void* c = nullptr;
  std::int64_t ldc = 0;
  const void* bias = nullptr;  // (n), of the dtype of C: added to every row
  void* gelu = nullptr;        // (m, n), leading dimension ldc: C is written, and gelu(C) here. Needs a bias
};

/// Launches it. False, with nothing done, if it asks for a gelu that cannot be had at these sizes: the caller
/// then does it by itself.
bool try_gemm(const Product& product);
/// Without gelu.
void gemm(const Product& product);

/// The matrix library behind it ("cuBLASLt 13.0.2").
std::string describe_gemm();

}  // namespace llm::cuda
