// Kernels whose counts are known, kernels that are right although they look suspicious, and kernels for the
// limits.
#include "common/simt/kernel.h"
#include "common/simt/mma.cuh"
#include "common/simt/warp.cuh"
#include "tests/simt_kernels.h"

namespace llm::simt_test {

namespace {

__global__ void copy_strided_kernel(float* y, const float* x, int stride) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = x[i * static_cast<unsigned>(stride)];
}

__global__ void copy_wide_kernel(float4* y, const float4* x) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = x[i];
}

template <int Width>
struct Square {
  float at[32][Width];
};

/// Writes rows and reads columns.
template <int Width>
__global__ void transpose_kernel(float* y, const float* x) {
  auto& tile = block_shared<Square<Width>>();
  const unsigned t = threadIdx.x;
  for (unsigned row = 0; row < 32; ++row) tile.at[row][t] = x[row * 32 + t];
  __syncthreads();
  for (unsigned row = 0; row < 32; ++row) y[row * 32 + t] = tile.at[t][row];
}

struct Halves {
  __nv_bfloat16 value[64];
  unsigned char byte[64];
};

/// Neighbours in a word belong to different threads: no race.
__global__ void halves_kernel(__nv_bfloat16* y) {
  auto& halves = block_shared<Halves>();
  const unsigned t = threadIdx.x;
  halves.value[t] = static_cast<float>(t);
  halves.byte[t] = static_cast<unsigned char>(t);
  __syncthreads();
  y[t] = __bfloat162float(halves.value[63 - t]) + static_cast<float>(halves.byte[t]);
}

/// Lanes of a warp exchange through shared memory, ordered by __syncwarp alone; the masks name halves of the
/// warp.
__global__ void syncwarp_kernel(float* y) {
  auto& tile = block_shared<Square<32>>();
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  tile.at[warp][lane] = static_cast<float>(lane);
  __syncwarp();
  float sum = tile.at[warp][31 - lane];
  __syncwarp();
  const unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  for (unsigned round = 0; round < 3; ++round) {
    tile.at[warp][lane] = sum;
    __syncwarp(mask);
    sum += tile.at[warp][lane ^ 1];
    __syncwarp(mask);
  }
  y[threadIdx.x] = sum;
}

/// The last block to finish adds up what all blocks left (CUDA Programming Guide, "Memory fence functions").
__global__ void last_block_kernel(float* y, float* parts, unsigned* count) {
  auto& last = block_shared<Square<1>>();
  const float sum = block_sum<64>(static_cast<float>(blockIdx.x * blockDim.x + threadIdx.x));
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = sum;
    __threadfence();
    last.at[0][0] = atomicAdd(count, 1u) == gridDim.x - 1 ? 1.0F : 0.0F;
  }
  __syncthreads();
  if (last.at[0][0] != 0 && threadIdx.x == 0) {
    float all = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) all += parts[b];
    *y = all;
  }
}

__global__ void histogram_kernel(int* counts, const int* x, int n) {
  auto& mine = block_shared<Square<1>>();
  auto* bins = reinterpret_cast<int*>(&mine);
  if (threadIdx.x < 32) bins[threadIdx.x] = 0;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x))
    atomicAdd(&bins[x[i]], 1);
  __syncthreads();
  if (threadIdx.x < 32) atomicAdd(&counts[threadIdx.x], bins[threadIdx.x]);
}

/// Lanes of a warp in two halves, each with collectives of its own.
__global__ void two_halves_kernel(float* y) {
  float value = static_cast<float>(threadIdx.x);
  if (threadIdx.x % 32 < 16) {
    for (int away = 8; away > 0; away /= 2) value += __shfl_xor_sync(0x0000ffffu, value, away);
  } else {
    for (int away = 1; away < 16; away *= 2) value = fmaxf(value, __shfl_xor_sync(0xffff0000u, value, away));
  }
  const unsigned votes = __ballot_sync(0xffffffffu, value > 100.0F ? 1 : 0);
  const int any = __any_sync(0xffffffffu, threadIdx.x == 5), all = __all_sync(0xffffffffu, threadIdx.x < 64);
  const unsigned sum = __reduce_add_sync(0xffffffffu, threadIdx.x % 32);
  const int least = __reduce_min_sync(0xffffffffu, 3 - static_cast<int>(threadIdx.x % 32));
  const float up = __shfl_up_sync(0xffffffffu, value, 1), down = __shfl_down_sync(0xffffffffu, value, 1, 8);
  const float first = __shfl_sync(0xffffffffu, value, 0);
  y[threadIdx.x] = value + static_cast<float>(__popc(votes)) + 100.0F * static_cast<float>(any + 2 * all) +
                   1000.0F * static_cast<float>(sum) + static_cast<float>(least) + 0.25F * (up + down) +
                   0.5F * first;
}

__global__ void __launch_bounds__(64) bounded_kernel(float* y) {
  y[threadIdx.x] = 1;
}

template <int Threads>
__global__ void __launch_bounds__(Threads, 2) bounded_template_kernel(float* y) {
  y[threadIdx.x] = static_cast<float>(Threads);
}

__global__ void large_shared_kernel(float* y, int words) {
  auto* shared = dynamic_shared<float>();
  for (int i = static_cast<int>(threadIdx.x); i < words; i += 32) shared[i] = 1;
  __syncthreads();
  if (threadIdx.x == 0) *y = shared[words - 1];
}

}  // namespace

void copy_strided(const Tensor& y, const Tensor& x, int stride) {
  launch(copy_strided_kernel, {dim3(static_cast<unsigned>(y.numel() / 64)), dim3(64)}, y.data(), x.data(),
         stride);
}

void copy_wide(const Tensor& y, const Tensor& x) {
  launch(copy_wide_kernel, {dim3(static_cast<unsigned>(y.numel() / 256)), dim3(64)},
         reinterpret_cast<float4*>(y.data()), reinterpret_cast<const float4*>(x.data()));
}

void transpose(const Tensor& y, const Tensor& x, bool padded) {
  launch(padded ? transpose_kernel<33> : transpose_kernel<32>, {dim3(1), dim3(32)}, y.data(), x.data());
}

void write_halves(const Tensor& y) {
  launch(halves_kernel, {dim3(1), dim3(64)}, y.data<__nv_bfloat16>());
}

void exchange_in_warps(const Tensor& y) {
  launch(syncwarp_kernel, {dim3(1), dim3(64)}, y.data());
}

void sum_in_last_block(const Tensor& y, const Tensor& parts, const Tensor& count) {
  launch(last_block_kernel, {dim3(static_cast<unsigned>(parts.numel())), dim3(64)}, y.data(), parts.data(),
         reinterpret_cast<unsigned*>(count.data<std::int32_t>()));
}

void histogram(const Tensor& counts, const Tensor& x, unsigned blocks) {
  launch(histogram_kernel, {dim3(blocks), dim3(128)}, counts.data<std::int32_t>(), x.data<std::int32_t>(),
         static_cast<int>(x.numel()));
}

void two_halves(const Tensor& y) {
  launch(two_halves_kernel, {dim3(1), dim3(64)}, y.data());
}

void launch_bounded(const Tensor& y, dim3 grid, dim3 block) {
  launch(bounded_kernel, {grid, block}, y.data());
}

void launch_bounded_template(const Tensor& y, dim3 block) {
  launch(bounded_template_kernel<96>, {dim3(1), block}, y.data());
}

void launch_large_shared(const Tensor& y, std::size_t bytes) {
  launch(large_shared_kernel, {dim3(1), dim3(32), bytes}, y.data(), static_cast<int>(bytes / 4));
}

}  // namespace llm::simt_test
