// The device's matrix product where there is no GPU: the CPU's, on the software GPU's memory. bf16 goes
// through f32, which is what a tensor core does as well: products and sums of bf16 inputs are f32.
#include <vector>

#include "common/core/device_backend.h"
#include "common/ops/cpu/gemm.h"
#include "common/ops/cuda/gemm.h"

namespace llm::cuda {

namespace {

/// A matrix as floats: where it is if it is f32, else converted into `buffer`. `stride` becomes that of the
/// result.
const float* as_floats(const void* from, DType dtype, std::int64_t rows, std::int64_t columns,
                       std::int64_t& stride, std::vector<float>& buffer) {
  if (dtype == DType::f32 || from == nullptr) return static_cast<const float*>(from);
  buffer.resize(static_cast<std::size_t>(rows * columns));
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t i = 0; i < columns; ++i)
      buffer[static_cast<std::size_t>(row * columns + i)] =
          static_cast<float>(static_cast<const BFloat16*>(from)[row * stride + i]);
  stride = columns;
  return buffer.data();
}

/// Error unless rows of a matrix lie within one block of device memory, as they must on a GPU.
void check_matrix(const char* name, const void* matrix, DType dtype, std::int64_t rows, std::int64_t columns,
                  std::int64_t stride) {
  if (rows == 0 || columns == 0) return;
  const auto block = device_backend::block_of(matrix);
  check(block.begin != nullptr, "gemm: {} is not in the device's memory", name);
  const auto begin = static_cast<const std::byte*>(matrix) - block.begin;
  const auto end = begin + ((rows - 1) * stride + columns) * static_cast<std::int64_t>(size_of(dtype));
  check(end <= static_cast<std::int64_t>(block.bytes), "gemm: {} reaches to byte {} of a block of {}", name,
        end, block.bytes);
}

}  // namespace

bool try_gemm(const Product& o) {
  if (o.gelu != nullptr) return false;
  if (o.m == 0 || o.n == 0) return true;
  check_matrix("A", o.a, o.inputs, o.transpose_a ? o.k : o.m, o.transpose_a ? o.m : o.k, o.lda);
  check_matrix("B", o.b, o.inputs, o.transpose_b ? o.n : o.k, o.transpose_b ? o.k : o.n, o.ldb);
  check_matrix("C", o.c, o.output, o.m, o.n, o.ldc);
  const device_backend::Unlocked unlocked;
  std::vector<float> a_floats, b_floats, bias_floats, c_floats;
  std::int64_t lda = o.lda, ldb = o.ldb, ldc = o.ldc, ignored = o.n;
  const float* a =
      as_floats(o.a, o.inputs, o.transpose_a ? o.k : o.m, o.transpose_a ? o.m : o.k, lda, a_floats);
  const float* b =
      as_floats(o.b, o.inputs, o.transpose_b ? o.n : o.k, o.transpose_b ? o.k : o.n, ldb, b_floats);
  const float* bias = as_floats(o.bias, o.output, 1, o.n, ignored, bias_floats);
  float* c = static_cast<float*>(o.c);
  if (o.output == DType::bf16) {
    c_floats.resize(static_cast<std::size_t>(o.m * o.n));
    c = c_floats.data();
    ldc = o.n;
    if (o.beta != 0) {
      std::int64_t stride = o.ldc;
      as_floats(o.c, o.output, o.m, o.n, stride, c_floats);
    }
  }
  cpu::multiply({o.transpose_a, o.transpose_b, o.m, o.n, o.k, o.alpha, a, lda, b, ldb, o.beta, c, ldc, bias});
  for (std::int64_t row = 0; row < o.m; ++row) {
    if (o.output == DType::bf16)
      for (std::int64_t i = 0; i < o.n; ++i)
        static_cast<BFloat16*>(o.c)[row * o.ldc + i] = BFloat16(c[row * ldc + i]);
    if (device_backend::watcher != nullptr)
      device_backend::watcher->written(
          static_cast<std::byte*>(o.c) + static_cast<std::size_t>(row * o.ldc) * size_of(o.output),
          static_cast<std::size_t>(o.n) * size_of(o.output));
  }
  return true;
}

void gemm(const Product& product) {
  try_gemm(product);
}

std::string describe_gemm() {
  return cpu::describe_gemm();
}

}  // namespace llm::cuda
