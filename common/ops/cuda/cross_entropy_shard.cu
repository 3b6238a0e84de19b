// Cross-entropy where each of several ranks has the logits of a part of the vocabulary. See ops.h; chapter 6.
//
// The passes over the logits are those of cross_entropy.cu, cut where the ranks must talk: one finds the
// maximum and the sum of exponentials (4 bytes per logit of f32, bf16 half), the other writes the gradient
// (8).
#include "common/ops/cuda/ids.cuh"
#include "common/ops/cuda/kernels.h"
#include "common/ops/cuda/long_row.cuh"
#include "common/ops/cuda/pack.cuh"

namespace llm::cuda {

namespace {

// Two blocks of 1024 threads share an SM (see cross_entropy.cu).
constexpr int kThreads = 1024, kFewThreads = 128;  // for shards of more, and of at most 4096 logits

/// Rows [first, first + rows) of a vocabulary of `whole`.
struct Part {
  std::int64_t first, rows, whole;
  __device__ bool here(int target) const { return target >= first && target < first + rows; }
};

/// A block takes a row.
template <int N, int Threads, typename T>
__global__ void __launch_bounds__(Threads, Threads == kThreads ? 2 : 1)
    shard_statistics_kernel(float* highest, float* total, float* right, const T* logits,
                            const std::int32_t* targets, Part part, DeviceReport* report) {
  const std::int64_t row = blockIdx.x;
  logits += row * part.rows;
  const RunningSum all = long_row_sum<N, Threads>(logits, part.rows);
  if (threadIdx.x != 0) return;
  highest[row] = all.most;
  total[row] = all.total;
  const int target = targets[row];
  right[row] = part.here(target) ? to_float(logits[target - part.first]) : 0.0F;
  if (target < -1 || target >= part.whole) {
    right[row] = __uint_as_float(0x7fc00000u);  // NaN
    leave_note(report, DeviceComplaint::target, target, static_cast<int>(part.whole));
  }
}

template <int N, int Threads, typename T>
__global__ void __launch_bounds__(Threads, Threads == kThreads ? 2 : 1)
    shard_backward_kernel(T* dlogits, const T* logits, const std::int32_t* targets, const float* highest,
                          const float* total, float scale, const float* weights, Part part) {
  const std::int64_t row = blockIdx.x;
  const int target = targets[row];
  logits += row * part.rows;
  dlogits += row * part.rows;
  if (target < 0 || target >= part.whole) {
    const float value = target == -1 ? 0.0F : __uint_as_float(0x7fc00000u);  // NaN
    for (std::int64_t i = threadIdx.x; i < part.rows; i += Threads) dlogits[i] = from_float<T>(value);
    return;
  }
  if (weights != nullptr) scale *= weights[row];
  const float most = highest[row], factor = scale / total[row];
  const std::int64_t mine = target - part.first;  // outside [0, rows): another rank's
  visit_row<N, Threads>(logits, part.rows, [&](std::int64_t at, auto& v) {
    constexpr int kCount = std::extent_v<std::remove_reference_t<decltype(v)>>;
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = __expf(v[i] - most) * factor - (at + i == mine ? scale : 0.0F);
    store(dlogits + at, v);
  });
}

__global__ void __launch_bounds__(kFewThreads)
    shard_rescale_kernel(float* total, const float* highest, const float* new_highest, std::int64_t rows) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kFewThreads + threadIdx.x;
  if (row < rows) total[row] *= expf(highest[row] - new_highest[row]);
}

__global__ void __launch_bounds__(kFewThreads)
    shard_losses_kernel(float* losses, const float* highest, const float* total, const float* right,
                        const std::int32_t* targets, std::int64_t rows) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kFewThreads + threadIdx.x;
  if (row < rows) losses[row] = targets[row] == -1 ? 0.0F : logf(total[row]) + (highest[row] - right[row]);
}

Part part_of(const Tensor& logits, const VocabularyShard& shard) {
  return {shard.first, logits.dim(-1), shard.whole};
}

}  // namespace

void shard_cross_entropy_statistics(const Tensor& highest, const Tensor& total, const Tensor& right,
                                    const Tensor& logits, const Tensor& targets,
                                    const VocabularyShard& shard) {
  if (logits.numel() == 0) return;
  const Part part = part_of(logits, shard);
  by_type(logits, [&]<typename T>() {
    const auto go = [&](auto kernel, int threads) {
      launch(kernel, {blocks(targets.numel()), blocks(threads)}, highest.data(), total.data(), right.data(),
             device_data<const T>(logits), targets.data<std::int32_t>(), part, device_report());
    };
    if (part.rows > 4096)
      go(shard_statistics_kernel<kPack<T>, kThreads, T>, kThreads);
    else
      go(shard_statistics_kernel<kPack<T>, kFewThreads, T>, kFewThreads);
  });
}

void shard_cross_entropy_rescale(const Tensor& total, const Tensor& highest, const Tensor& new_highest) {
  if (total.numel() == 0) return;
  launch(shard_rescale_kernel, {blocks(divide_up(total.numel(), kFewThreads)), kFewThreads}, total.data(),
         highest.data(), new_highest.data(), total.numel());
}

void shard_cross_entropy_losses(const Tensor& losses, const Tensor& highest, const Tensor& total,
                                const Tensor& right, const Tensor& targets) {
  if (losses.numel() == 0) return;
  launch(shard_losses_kernel, {blocks(divide_up(losses.numel(), kFewThreads)), kFewThreads}, losses.data(),
         highest.data(), total.data(), right.data(), targets.data<std::int32_t>(), losses.numel());
}

void shard_cross_entropy_backward(const Tensor& dlogits, const Tensor& logits, const Tensor& targets,
                                  const Tensor& highest, const Tensor& total, float scale,
                                  const VocabularyShard& shard, const Tensor& weights) {
  if (logits.numel() == 0) return;
  const Part part = part_of(logits, shard);
  by_type(logits, [&]<typename T>() {
    T* const out = device_data<T>(dlogits);
    const T* const in = device_data<const T>(logits);
    const auto go = [&](auto kernel, int threads) {
      launch(kernel, {blocks(targets.numel()), blocks(threads)}, out, in, targets.data<std::int32_t>(),
             highest.data(), total.data(), scale, device_data<const float>(weights), part);
    };
    if (!aligned_alike(out, in))
      go(shard_backward_kernel<1, kThreads, T>, kThreads);
    else if (part.rows > 4096)
      go(shard_backward_kernel<kPack<T>, kThreads, T>, kThreads);
    else
      go(shard_backward_kernel<kPack<T>, kFewThreads, T>, kFewThreads);
  });
}

}  // namespace llm::cuda
