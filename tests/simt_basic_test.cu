#include "common/core/error.h"
#include "common/simt/kernel.h"
#include "common/simt/mma.cuh"
#include "common/simt/warp.cuh"
#include "tests/simt_kernels.h"

namespace llm::simt_test {

namespace {

__global__ void fill_kernel(float* y, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) y[i] = static_cast<float>(i);
}

__global__ void __launch_bounds__(256) block_sums_kernel(float* sums, const float* __restrict__ x) {
  const float sum = block_sum<256>(x[blockIdx.x * 256 + threadIdx.x]);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void reverse_kernel(float* x) {
  float* buffer = dynamic_shared<float>();
  float* mine = x + blockIdx.x * blockDim.x;
  buffer[threadIdx.x] = mine[threadIdx.x];
  __syncthreads();
  mine[threadIdx.x] = buffer[blockDim.x - 1 - threadIdx.x];
}

__global__ void early_return_kernel(std::int32_t* visits, int stay) {
  const int i = static_cast<int>(threadIdx.x);
  visits[i] += 1;
  if (i >= stay) return;
  __syncthreads();
  visits[i] += 10;
  __syncthreads();
  visits[i] += 100;
}

struct Stages {
  float tile[2][128];
};

__global__ void copy_async_kernel(float* y, const float* x, int tiles) {
  auto& stages = block_shared<Stages>();
  const unsigned t = threadIdx.x;  // 32 of them, 16 bytes each
  __pipeline_memcpy_async(&stages.tile[0][4 * t], x + 4 * t, 16);
  __pipeline_commit();
  for (int i = 0; i < tiles; ++i) {
    if (i + 1 < tiles)
      __pipeline_memcpy_async(&stages.tile[(i + 1) % 2][4 * t], x + 128 * (i + 1) + 4 * t, 16);
    __pipeline_commit();
    __pipeline_wait_prior(1);
    __syncthreads();
    for (unsigned j = t; j < 128; j += 32) y[128 * i + static_cast<int>(j)] = stages.tile[i % 2][127 - j];
    __syncthreads();
  }
}

struct MmaTiles {
  alignas(16) __nv_bfloat16 a[16][16];
  alignas(16) __nv_bfloat16 b[16][8];
};

__global__ void multiply_kernel(float* d, const __nv_bfloat16* a, const __nv_bfloat16* b) {
  auto& tiles = block_shared<MmaTiles>();
  const unsigned lane = threadIdx.x;
  for (unsigned i = lane; i < 16 * 16; i += 32) tiles.a[i / 16][i % 16] = a[i];
  for (unsigned i = lane; i < 16 * 8; i += 32) tiles.b[i / 8][i % 8] = b[i];
  __syncthreads();
  std::uint32_t fa[4], fb[2];
  ldmatrix_x4(fa, &tiles.a[lane % 16][lane / 16 * 8]);
  ldmatrix_x2_trans(fb, &tiles.b[lane % 16][0]);
  float sums[4] = {};
  mma_m16n8k16(sums, fa, fb);
  const unsigned g = lane / 4, t = lane % 4;
  for (unsigned j = 0; j < 4; ++j) d[(g + 8 * (j / 2)) * 8 + 2 * t + j % 2] = sums[j];
}

}  // namespace

void fill_with_indices(const Tensor& y) {
  const auto n = static_cast<unsigned>(y.numel());
  launch(fill_kernel, {dim3((n + 255) / 256), dim3(256)}, y.data(), y.numel());
}

void block_sums(const Tensor& sums, const Tensor& x) {
  launch(block_sums_kernel, {dim3(static_cast<unsigned>(sums.numel())), dim3(256)}, sums.data(), x.data());
}

void reverse_blocks(const Tensor& x) {
  launch(reverse_kernel, {dim3(static_cast<unsigned>(x.numel() / 128)), dim3(128), 128 * sizeof(float)},
         x.data());
}

void early_return(const Tensor& visits, int stay) {
  launch(early_return_kernel, {dim3(1), dim3(static_cast<unsigned>(visits.numel()))},
         visits.data<std::int32_t>(), stay);
}

void copy_async(const Tensor& y, const Tensor& x) {
  launch(copy_async_kernel, {dim3(1), dim3(32)}, y.data(), x.data(), static_cast<int>(x.numel() / 128));
}

void multiply_tiles(const Tensor& d, const Tensor& a, const Tensor& b) {
  launch(multiply_kernel, {dim3(1), dim3(32)}, d.data(), a.data<__nv_bfloat16>(), b.data<__nv_bfloat16>());
}

}  // namespace llm::simt_test
