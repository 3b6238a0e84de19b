// Kernels with one fault each. The line where the software GPU must see it ends in "FAULT name"; where it
// must also name another line, that one ends in "OTHER name".
#include <stdexcept>

#include "common/simt/kernel.h"
#include "common/simt/mma.cuh"
#include "common/simt/report.h"
#include "common/simt/warp.cuh"
#include "tests/simt_faults.h"

namespace llm::simt_test {

namespace {

using simt::FaultKind;

struct Tile {
  float first[64];
  float second[64];
};

// ---- Races ----

__global__ void race_read(float* y) {
  auto& tile = block_shared<Tile>();
  const unsigned t = threadIdx.x;
  tile.first[t] = static_cast<float>(t);  // OTHER race_read
  y[t] = tile.first[63 - t];              // FAULT race_read
}

__global__ void race_reuse(float* y) {
  auto& tile = block_shared<Tile>();
  const unsigned t = threadIdx.x;
  float sum = 0;
  for (int round = 0; round < 3; ++round) {
    tile.first[t] = static_cast<float>(t);  // FAULT race_reuse
    __syncthreads();
    sum += tile.first[63 - t];  // OTHER race_reuse
    // The barrier that must be here is not.
  }
  y[t] = sum;
}

__global__ void race_write(float* y) {
  float* shared = dynamic_shared<float>();
  shared[threadIdx.x / 2] = 1;  // FAULT race_write
  __syncthreads();
  y[threadIdx.x] = shared[threadIdx.x / 2];
}

__global__ void race_in_warp(float* y) {
  auto& tile = block_shared<Tile>();
  const unsigned t = threadIdx.x;
  tile.first[t] = 1;                                          // OTHER race_in_warp
  const float other = __shfl_xor_sync(0xffffffffu, 1.0F, 1);  // orders no memory
  y[t] = tile.first[t ^ 1] + other;                           // FAULT race_in_warp
}

__global__ void race_global(float* y) {
  y[threadIdx.x + 1] = 2;  // OTHER race_global
  y[threadIdx.x] += 1;     // FAULT race_global
}

__global__ void race_between_blocks(float* y) {
  y[threadIdx.x] = static_cast<float>(blockIdx.x);  // FAULT race_between_blocks
}

__global__ void race_atomic(int* y) {
  atomicAdd(y, 1);          // OTHER race_atomic
  y[threadIdx.x + 1] = *y;  // FAULT race_atomic
}

// ---- Barriers and lanes ----

__global__ void divergent_barrier(float* y) {
  if (threadIdx.x < 32) {
    y[threadIdx.x] = 1;
    __syncthreads();  // OTHER divergent_barrier
  } else {
    y[threadIdx.x] = 2;
    __syncthreads();  // FAULT divergent_barrier
  }
}

__global__ void lane_not_named(float* y) {
  y[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, y[threadIdx.x], 1);  // FAULT lane_not_named
}

__global__ void lane_elsewhere(float* y) {
  if (threadIdx.x < 16)
    y[threadIdx.x] = warp_sum(y[threadIdx.x]);  // FAULT lane_elsewhere
  else
    __syncthreads();  // OTHER lane_elsewhere
}

__global__ void lane_returned(float* y) {
  if (threadIdx.x == 20) return;
  y[threadIdx.x] = __shfl_down_sync(0xffffffffu, y[threadIdx.x], 4);  // FAULT lane_returned
}

__global__ void lane_of_other_mask(float* y) {
  const unsigned mask = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
  y[threadIdx.x] = __shfl_xor_sync(mask, y[threadIdx.x], 16);  // FAULT lane_of_other_mask
}

__global__ void deadlock(int* y) {
  if (threadIdx.x == 0) {
    while (atomicAdd(y, 0) == 0) {  // FAULT deadlock
    }
  }
  __syncthreads();
  if (threadIdx.x == 1) atomicExch(y, 1);
}

// ---- Bounds ----

__global__ void shared_past_end(float* y) {
  float* shared = dynamic_shared<float>();
  shared[threadIdx.x + 1] = 1;  // FAULT shared_past_end
  __syncthreads();
  y[threadIdx.x] = shared[threadIdx.x];
}

__global__ void shared_index(float* y) {
  auto& tile = block_shared<Tile>();
  tile.first[threadIdx.x + 1] = 1;  // FAULT shared_index
  __syncthreads();
  y[threadIdx.x] = tile.first[threadIdx.x];
}

__global__ void shared_object_end(float* y) {
  auto& tile = block_shared<Tile>();
  float* all = tile.first;
  all[threadIdx.x + 65] = 1;  // FAULT shared_object_end
  __syncthreads();
  y[threadIdx.x] = 0;
}

__global__ void global_past_end(float* y, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i <= n) y[i] = 1;  // FAULT global_past_end
}

__global__ void global_before(float* y) {
  y[threadIdx.x] = y[static_cast<int>(threadIdx.x) - 1];  // FAULT global_before
}

__global__ void freed(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];  // FAULT freed
}

__global__ void host_memory(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];  // FAULT host_memory
}

__global__ void null_pointer(float* x) {
  x[threadIdx.x] = 1;  // FAULT null_pointer
}

__global__ void stack_overflow(float* y, int depth) {
  float room[1024];
  volatile float* p = room;
  for (int i = 0; i < 1024; ++i) p[i] = static_cast<float>(i);
  if (depth > 0) stack_overflow(y, depth - 1);
  y[threadIdx.x] = p[depth];
}

// ---- What nobody wrote ----

__global__ void uninitialised_shared(float* y) {
  auto& tile = block_shared<Tile>();
  if (threadIdx.x != 9) tile.first[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = tile.first[threadIdx.x];  // FAULT uninitialised_shared
}

__global__ void uninitialised_global(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];  // FAULT uninitialised_global
}

// ---- Asynchronous copies ----

__global__ void early_read(const float* x, float* y) {
  float* shared = dynamic_shared<float>();
  __pipeline_memcpy_async(&shared[threadIdx.x], &x[threadIdx.x], 4);  // OTHER early_read
  __pipeline_commit();
  y[threadIdx.x] = shared[threadIdx.x];  // FAULT early_read
}

__global__ void early_read_group(const float* x, float* y) {
  float* shared = dynamic_shared<float>();
  for (unsigned i = 0; i < 2; ++i) {
    __pipeline_memcpy_async(&shared[i * 32 + threadIdx.x], &x[threadIdx.x], 4);  // OTHER early_read_group
    __pipeline_commit();
  }
  __pipeline_wait_prior(1);  // the second may still be under way
  y[threadIdx.x] = shared[threadIdx.x];
  y[threadIdx.x] += shared[32 + threadIdx.x];  // FAULT early_read_group
}

__global__ void copy_without_barrier(const float* x, float* y) {
  float* shared = dynamic_shared<float>();
  __pipeline_memcpy_async(&shared[threadIdx.x], &x[threadIdx.x], 4);  // OTHER copy_without_barrier
  __pipeline_commit();
  __pipeline_wait_prior(0);
  y[threadIdx.x] = shared[31 - threadIdx.x];  // FAULT copy_without_barrier
}

__global__ void copy_misaligned(const float* x, float* y) {
  float* shared = dynamic_shared<float>();
  __pipeline_memcpy_async(&shared[4 * threadIdx.x], &x[4 * threadIdx.x + 1], 16);  // FAULT copy_misaligned
  __pipeline_commit();
  y[threadIdx.x] = 0;
}

// ---- Tensor cores ----

__global__ void fragment_uninitialised(float* y) {
  auto* tile = dynamic_shared<__nv_bfloat16>();
  for (unsigned i = threadIdx.x; i < 255; i += 32) tile[i] = 1.0F;
  __syncthreads();
  std::uint32_t a[4];
  ldmatrix_x4(a, tile + (threadIdx.x % 16) * 16 + threadIdx.x / 16 * 8);  // FAULT fragment_uninitialised
  y[threadIdx.x] = __uint_as_float(a[0]);
}

// ---- By itself ----

__global__ void trap(float* y) {
  if (threadIdx.x == 3) __trap();  // FAULT trap
  y[threadIdx.x] = 1;
}

__global__ void exception(float* y) {
  if (threadIdx.x == 3) throw std::runtime_error("the pot boils over");
  y[threadIdx.x] = 1;
}

Tensor device(std::int64_t n, DType dtype = DType::f32) {
  return Tensor({n}, dtype, Device::cuda);
}

}  // namespace

std::vector<Planted> planted_faults() {
  const dim3 one(1), warp(32), two_warps(64);
  const auto on_floats = [](void (*kernel)(float*), dim3 grid, dim3 block, std::int64_t n,
                            std::size_t shared = 0) {
    return [=] {
      const Tensor y = device(n);
      launch(kernel, {grid, block, shared}, y.data());
    };
  };
  const auto on_ints = [](void (*kernel)(int*), std::int64_t n) {
    return [=] {
      const Tensor y = device(n, DType::i32);
      launch(kernel, {dim3(1), dim3(64)}, y.data<std::int32_t>());
    };
  };
  const auto on_two = [](void (*kernel)(const float*, float*), std::size_t shared = 0) {
    return [=] {
      const Tensor x = device(256), y = device(64);
      launch(kernel, {dim3(1), dim3(32), shared}, x.data(), y.data());
    };
  };
  return {
      {"race_read", FaultKind::race, on_floats(race_read, one, two_warps, 64)},
      {"race_reuse", FaultKind::race, on_floats(race_reuse, one, two_warps, 64)},
      {"race_write", FaultKind::race, on_floats(race_write, one, two_warps, 64, 128)},
      {"race_in_warp", FaultKind::race, on_floats(race_in_warp, one, warp, 32)},
      {"race_global", FaultKind::race, on_floats(race_global, one, two_warps, 65)},
      {"race_between_blocks", FaultKind::race, on_floats(race_between_blocks, dim3(3), warp, 32)},
      {"race_atomic", FaultKind::race, on_ints(race_atomic, 65)},
      {"divergent_barrier", FaultKind::divergent_barrier, on_floats(divergent_barrier, one, two_warps, 64)},
      {"lane_not_named", FaultKind::missing_lane, on_floats(lane_not_named, one, warp, 32), true},
      {"lane_elsewhere", FaultKind::missing_lane, on_floats(lane_elsewhere, one, warp, 32), true},
      {"lane_returned", FaultKind::missing_lane, on_floats(lane_returned, one, warp, 32), true},
      {"lane_of_other_mask", FaultKind::missing_lane, on_floats(lane_of_other_mask, one, warp, 32), true},
      {"deadlock", FaultKind::deadlock, on_ints(deadlock, 1), true},
      {"shared_past_end", FaultKind::out_of_bounds, on_floats(shared_past_end, one, warp, 32, 128)},
      {"shared_index", FaultKind::out_of_bounds, on_floats(shared_index, one, two_warps, 64)},
      {"shared_object_end", FaultKind::out_of_bounds, on_floats(shared_object_end, one, two_warps, 64)},
      {"global_past_end", FaultKind::out_of_bounds,
       [] {
         const Tensor y = device(100);
         launch(global_past_end, {dim3(4), dim3(32)}, y.data(), 100);
       }},
      {"global_before", FaultKind::out_of_bounds, on_floats(global_before, one, warp, 32)},
      {"freed", FaultKind::out_of_bounds,
       [] {
         const Tensor y = device(32);
         const float* x = device(32).data();
         launch(freed, {dim3(1), dim3(32)}, x, y.data());
       }},
      {"host_memory", FaultKind::out_of_bounds,
       [] {
         const Tensor x({32}), y = device(32);
         launch(host_memory, {dim3(1), dim3(32)}, x.data(), y.data());
       }},
      {"null_pointer", FaultKind::out_of_bounds,
       [] {
         launch(null_pointer, {dim3(1), dim3(32)}, nullptr);
       },
       true},
      {"stack_overflow", FaultKind::out_of_bounds,
       [] {
         const Tensor y = device(32);
         launch(stack_overflow, {dim3(1), dim3(32)}, y.data(), 1000);
       },
       true},
      {"uninitialised_shared", FaultKind::uninitialised, on_floats(uninitialised_shared, one, two_warps, 64)},
      {"uninitialised_global", FaultKind::uninitialised,
       [] {
         const Tensor x = Tensor::uninitialized({32}, DType::f32, Device::cuda), y = device(32);
         launch(uninitialised_global, {dim3(1), dim3(32)}, x.data(), y.data());
       }},
      {"early_read", FaultKind::early_read, on_two(early_read, 128)},
      {"early_read_group", FaultKind::early_read, on_two(early_read_group, 256)},
      {"copy_without_barrier", FaultKind::race, on_two(copy_without_barrier, 128)},
      {"copy_misaligned", FaultKind::trap, on_two(copy_misaligned, 512), true},
      {"fragment_uninitialised", FaultKind::uninitialised,
       on_floats(fragment_uninitialised, one, warp, 32, 512)},
      {"trap", FaultKind::trap, on_floats(trap, one, warp, 32), true},
      {"exception", FaultKind::trap, on_floats(exception, one, warp, 32), true},
  };
}

}  // namespace llm::simt_test
