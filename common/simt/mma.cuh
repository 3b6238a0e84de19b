// Tensor cores: 16 x 8 x 16 matrix products of a warp, and the loads that bring tiles into its registers.
//
// A matrix of such a product lies spread over the registers of the warp's 32 lanes, a "fragment" (PTX ISA,
// "Matrix fragments for mma.m16n8k16" and "ldmatrix"). With g = lane / 4 and t = lane % 4, two bf16 to a
// register, the lower column (for B: the lower row) in the lower half:
//
//     A (16 x 16), a[0..3]:  rows g, g + 8, g, g + 8;  columns 2t and 2t + 1 of a[0], a[1], 2t + 8 and 2t + 9
//     of a[2], a[3] B (16 x 8),  b[0..1]:  rows 2t and 2t + 1 of b[0], 2t + 8 and 2t + 9 of b[1];  column g
//     D (16 x 8),  d[0..3]:  rows g, g, g + 8, g + 8;  columns 2t, 2t + 1, 2t, 2t + 1; f32
//
// Under nvcc these are one PTX instruction each; the emulated twins are in emulator/tensor_core.cpp. Chapter
// 3 explains them.
#pragma once

#include <cstdint>

#include "common/simt/kernel.h"

namespace llm {

/// Loads four 8 x 8 matrices of bf16 from shared memory: lane i gives the address of row i % 8 of matrix i /
/// 8 (16 bytes, aligned to 16), and receives in r[j] elements 2t and 2t + 1 of row g of matrix j.
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
#ifdef __CUDACC__
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
#else
  simt::load_matrices(r, row, 4, false);
#endif
}

/// The same with each matrix transposed: r[j] receives rows 2t and 2t + 1 of column g.
__device__ __forceinline__ void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row) {
#ifdef __CUDACC__
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
#else
  simt::load_matrices(r, row, 4, true);
#endif
}

/// Two matrices: the addresses of lanes 16 to 31 are not used.
__device__ __forceinline__ void ldmatrix_x2(std::uint32_t (&r)[2], const void* row) {
#ifdef __CUDACC__
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(address)
               : "memory");
#else
  simt::load_matrices(r, row, 2, false);
#endif
}

__device__ __forceinline__ void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* row) {
#ifdef __CUDACC__
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(address)
               : "memory");
#else
  simt::load_matrices(r, row, 2, true);
#endif
}

/// d += a b: (16 x 8) += (16 x 16) (16 x 8), bf16 inputs, f32 sums. All lanes of the warp must call it.
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4],
                                             const std::uint32_t (&b)[2]) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  simt::multiply_tile(d, a, b);
#endif
}

}  // namespace llm
