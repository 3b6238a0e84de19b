// The kernels of the software GPU's tests, in simt_*_test.cu; their launchers are plain C++, so that the
// tests that judge them need no kernel language.
#pragma once

#include <cstdint>

#include "common/core/tensor.h"

namespace llm::simt_test {

// simt_basic_test.cu
void fill_with_indices(const Tensor& y);               // y[i] = i, elementwise
void block_sums(const Tensor& sums, const Tensor& x);  // sums[b] = the sum of 256 values of x
void reverse_blocks(const Tensor& x);  // reverses each 128 values in place, dynamic shared memory
void early_return(const Tensor& visits, int stay);  // threads >= stay return before the barrier
void copy_async(const Tensor& y, const Tensor& x);  // through shared memory, double-buffered
void multiply_tiles(const Tensor& d, const Tensor& a,
                    const Tensor& b);  // 16 x 8 = 16 x 16 times 16 x 8, tensor core

}  // namespace llm::simt_test
