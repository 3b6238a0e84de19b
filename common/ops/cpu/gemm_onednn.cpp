// The matrix product by oneDNN (LLM_BLAS=onednn).
#include <dnnl.h>
#include <omp.h>

#include "common/ops/cpu/gemm_pieces.h"

namespace llm {

void cpu::multiply(const Product& whole) {
  multiply_pieces(whole, [](const Product& o) {
    // oneDNN would start OpenMP threads of its own; the pool's threads each ask it for one.
    static thread_local const bool alone = (omp_set_num_threads(1), true);
    static_cast<void>(alone);
    const dnnl_status_t status = dnnl_sgemm(o.transpose_a ? 'T' : 'N', o.transpose_b ? 'T' : 'N', o.m, o.n,
                                            o.k, o.alpha, o.a, o.lda, o.b, o.ldb, o.beta, o.c, o.ldc);
    check(status == dnnl_success, "oneDNN's sgemm ({} x {} x {}) failed with status {}", o.m, o.n, o.k,
          static_cast<int>(status));
  });
}

std::string cpu::describe_gemm() {
  const dnnl_version_t* version = dnnl_version();
  return fmt::format("oneDNN {}.{}.{}", version->major, version->minor, version->patch);
}

}  // namespace llm
