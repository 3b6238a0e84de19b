// Your answers to the exercises of chapter 3 that run on the GPU. What each function must do is in
// exercises.h.
//
// For each one a kernel and the function that launches it. The kernels' parameters are a proposal: change
// them, or write more kernels, as you like. For shared memory and for what kernels may use beyond CUDA see
// common/simt/kernel.h.
#include "ch03_attention/exercises.h"
#include "common/simt/kernel.h"
#include "common/simt/warp.cuh"

namespace llm::exercises::ch03 {

// 3.7
__global__ void scale_add_kernel(float* y, const float* x, float a, int n) {
  // your code: which element is this thread's? Is there one?
}

void scale_add(float* y, const float* x, float a, int n) {
  not_started();  // instead of this line: launch(scale_add_kernel, {dim3(BLOCKS), dim3(THREADS)}, y, x, a,
                  // n);
}

// 3.8
__global__ void row_sums_kernel(float* y, const float* x, int rows, int columns) {
  // your code
}

void row_sums(float* y, const float* x, int rows, int columns) {
  not_started();  // instead of this line: launch(row_sums_kernel, ...);
}

// 3.9
struct SoftmaxShared {
  float per_warp[8];  // what the threads of a block share; a proposal
};

__global__ void block_softmax_kernel(float* y, const float* x, int columns) {
  // your code. Shared memory: auto& shared = block_shared<SoftmaxShared>();
}

void block_softmax(float* y, const float* x, int rows, int columns) {
  not_started();  // instead of this line: launch(block_softmax_kernel, {dim3(rows), dim3(256)}, y, x,
                  // columns);
}

// 3.10
struct ProductTiles {
  float a[16][16], b[16][16];
};

__global__ void tiled_product_kernel(float* c, const float* a, const float* b, int M, int N, int K) {
  // your code. Shared memory: auto& tile = block_shared<ProductTiles>();
}

void tiled_product(float* c, const float* a, const float* b, int M, int N, int K) {
  not_started();  // instead of this line: launch(tiled_product_kernel, {dim3(ACROSS, DOWN), dim3(16, 16)},
                  // ...);
}

// 3.11
__global__ void online_softmax_kernel(float* y, const float* x, int rows, int columns) {
  // your code
}

void online_softmax(float* y, const float* x, int rows, int columns) {
  not_started();  // instead of this line: launch(online_softmax_kernel, ...);
}

// 3.12
__global__ void flash_head_kernel(float* y, float* lse, const float* q, const float* k, const float* v,
                                  int T) {
  // your code
}

void flash_head(float* y, float* lse, const float* q, const float* k, const float* v, int T) {
  not_started();  // instead of this line: launch(flash_head_kernel, ...);
}

}  // namespace llm::exercises::ch03
