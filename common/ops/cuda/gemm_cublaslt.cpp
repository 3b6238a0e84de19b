// Matrix products on a GPU: cuBLASLt, with bias and GELU in the product's epilogue, so that C is written once
// and not read again.
//
// cuBLASLt counts in columns: a row-major (m, n) matrix is its column-major (n, m). C = op(A) op(B) is
// therefore asked for as C^T = op(B)^T op(A)^T, which only swaps the operands.
//
// Which of its kernels is best for a product is asked once per kind of product and kept, with the
// descriptors; a call then only launches. The workspace is allocated once. f32 means f32: inputs are not cut
// to TF32.
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>

#include "common/core/device_memory.h"
#include "common/ops/cuda/gemm.h"

namespace llm::cuda {

namespace {

constexpr std::size_t kWorkspace = std::size_t{32}
                                   << 20;  // what NVIDIA advises for Hopper; also split sums fit

void must(cublasStatus_t status, const char* what) {
  check(status == CUBLAS_STATUS_SUCCESS, "{} failed in cuBLASLt: {}", what, cublasLtGetStatusString(status));
}

cudaDataType_t type_of(DType dtype) {
  return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

/// The largest power of two up to 256 that divides an address; 256 for null.
std::int64_t alignment(const void* address) {
  const auto a = reinterpret_cast<std::uintptr_t>(address);
  return a % 256 == 0 ? 256 : static_cast<std::int64_t>(a & (~a + 1));
}

/// Everything that the choice of a kernel depends on.
using Kind = std::array<std::int64_t, 16>;
Kind kind_of(const Product& o) {
  return {o.transpose_a,
          o.transpose_b,
          o.m,
          o.n,
          o.k,
          o.lda,
          o.ldb,
          o.ldc,
          static_cast<std::int64_t>(o.inputs),
          static_cast<std::int64_t>(o.output),
          o.beta != 0,
          o.bias == nullptr ? 0 : alignment(o.bias),
          o.gelu == nullptr ? 0 : alignment(o.gelu),
          alignment(o.a),
          alignment(o.b),
          alignment(o.c)};
}

struct Plan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t kernel{};
  bool possible = false;
};

template <typename V>
void set(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute, const V& value) {
  must(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof value), "describing a product");
}
template <typename V>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
         const V& value) {
  must(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
       "choosing a kernel");
}

/// The addresses that a call brings. With gelu, cuBLASLt's result is gelu(C) and C is its "auxiliary" output.
void set_addresses(cublasLtMatmulDesc_t product, const Product& o) {
  if (o.bias != nullptr) set(product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, o.bias);
  if (o.gelu != nullptr) set(product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, o.c);
}

/// The library's state: one per process, for the one device.
struct Library {
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;
  std::mutex mutex;
  std::map<Kind, Plan> plans;

  Library() {
    must(cublasLtCreate(&handle), "starting");
    workspace = device_allocate(kWorkspace);
  }

  const Plan& plan(const Product& o) {
    const auto [it, is_new] = plans.try_emplace(kind_of(o));
    Plan& p = it->second;
    if (!is_new) return p;
    must(cublasLtMatmulDescCreate(&p.product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
    const cublasOperation_t left = o.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t right = o.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    set(p.product, CUBLASLT_MATMUL_DESC_TRANSA, left);
    set(p.product, CUBLASLT_MATMUL_DESC_TRANSB, right);
    const cublasLtEpilogue_t epilogue = o.gelu != nullptr   ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS
                                        : o.bias != nullptr ? CUBLASLT_EPILOGUE_BIAS
                                                            : CUBLASLT_EPILOGUE_DEFAULT;
    set(p.product, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    if (o.gelu != nullptr) set(p.product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, o.ldc);
    set_addresses(p.product, o);

    const auto layout = [](DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
      cublasLtMatrixLayout_t made = nullptr;
      must(cublasLtMatrixLayoutCreate(&made, type_of(dtype), static_cast<std::uint64_t>(columns),
                                      static_cast<std::uint64_t>(rows), stride),
           "describing a matrix");
      return made;
    };
    p.a = o.transpose_a ? layout(o.inputs, o.k, o.m, o.lda) : layout(o.inputs, o.m, o.k, o.lda);
    p.b = o.transpose_b ? layout(o.inputs, o.n, o.k, o.ldb) : layout(o.inputs, o.k, o.n, o.ldb);
    p.c = layout(o.output, o.m, o.n, o.ldc);

    cublasLtMatmulPreference_t preference = nullptr;
    must(cublasLtMatmulPreferenceCreate(&preference), "choosing a kernel");
    const void* const result = o.gelu != nullptr ? o.gelu : o.c;
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(alignment(o.b)));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<std::uint32_t>(alignment(o.a)));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        static_cast<std::uint32_t>(alignment(result)));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        static_cast<std::uint32_t>(alignment(result)));
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle, p.product, p.b, p.a, p.c, p.c, preference, 1, &found, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    p.possible = status == CUBLAS_STATUS_SUCCESS && count > 0;
    if (p.possible) p.kernel = found.algo;
    return p;
  }
};

Library& library() {
  static auto* instance = new Library;  // lives as long as the device
  return *instance;
}

}  // namespace

bool try_gemm(const Product& o) {
  if (o.m == 0 || o.n == 0) return true;
  // The auxiliary output wants rows of a multiple of 8 elements that begin at a multiple of 16 bytes.
  if (o.gelu != nullptr && (o.output != DType::bf16 || o.ldc % 8 != 0 || alignment(o.c) < 16)) return false;
  Library& l = library();
  const std::lock_guard lock(l.mutex);
  const Plan& p = l.plan(o);
  if (!p.possible) {
    check(o.gelu != nullptr, "cuBLASLt has no kernel for a product of ({}, {}) and ({}, {}), {} into {}", o.m,
          o.k, o.k, o.n, name(o.inputs), name(o.output));
    return false;
  }
  set_addresses(p.product, o);
  void* const result = o.gelu != nullptr ? o.gelu : o.c;
  must(cublasLtMatmul(l.handle, p.product, &o.alpha, o.b, p.b, o.a, p.a, &o.beta, result, p.c, result, p.c,
                      &p.kernel, l.workspace, kWorkspace, device_stream()),
       "a product");
  return true;
}

void gemm(const Product& product) {
  check(product.gelu == nullptr, "gemm: gelu is for try_gemm");
  try_gemm(product);
}

std::string describe_gemm() {
  const auto version = cublasLtGetVersion();  // 130000 is 13.0.0
  return fmt::format("cuBLASLt {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace llm::cuda
