// The kernels of the software GPU's tests, in simt_*_test.cu; their launchers are plain C++, so that the
// tests that judge them need no kernel language.
#pragma once

#include <cstdint>

#include "common/core/tensor.h"
#include "common/simt/launch.h"

namespace llm::simt_test {

// simt_basic_test.cu
void fill_with_indices(const Tensor& y);               // y[i] = i, elementwise
void block_sums(const Tensor& sums, const Tensor& x);  // sums[b] = the sum of 256 values of x
void reverse_blocks(const Tensor& x);  // reverses each 128 values in place, dynamic shared memory
void early_return(const Tensor& visits, int stay);  // threads >= stay return before the barrier
void copy_async(const Tensor& y, const Tensor& x);  // through shared memory, double-buffered
void multiply_tiles(const Tensor& d, const Tensor& a,
                    const Tensor& b);  // 16 x 8 = 16 x 16 times 16 x 8, tensor core

// simt_report_test.cu
void copy_strided(const Tensor& y, const Tensor& x, int stride);  // y[i] = x[stride i]
void copy_wide(const Tensor& y, const Tensor& x);                 // 16 bytes at a time
void transpose(const Tensor& y, const Tensor& x,
               bool padded);              // 32 x 32 through shared memory of 32 or 33 columns
void write_halves(const Tensor& y);       // 64 bf16
void exchange_in_warps(const Tensor& y);  // 64
void sum_in_last_block(const Tensor& y, const Tensor& parts, const Tensor& count);
void histogram(const Tensor& counts, const Tensor& x, unsigned blocks);  // x in [0, 32)
void two_halves(const Tensor& y);                                        // 64
void launch_bounded(const Tensor& y, dim3 grid, dim3 block);             // compiled for 64 threads
void launch_bounded_template(const Tensor& y, dim3 block);               // for 96
void launch_large_shared(const Tensor& y, std::size_t bytes);

}  // namespace llm::simt_test
