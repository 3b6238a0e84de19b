// Cross-entropy of the next token: -log softmax(logits)[target]; its gradient; and both fused with the head
// that makes the logits. Chapter 4.
//
// A block takes a row. The first pass finds the maximum and the sum of exponentials (online); the second,
// from the caches, writes scale * (softmax - one_hot) over the logits, which are the only place where
// probabilities ever stand. Floor, in bytes per logit of f32 (bf16 half): forward 4; with the gradient 8.
#include "common/ops/cuda/gemm.h"
#include "common/ops/cuda/ids.cuh"
#include "common/ops/cuda/kernels.h"
#include "common/ops/cuda/long_row.cuh"
#include "common/ops/cuda/pack.cuh"

namespace llm::cuda {

namespace {

// With two blocks of 1024 threads on an SM their rows (100 KB of bf16 each) still lie in the first-level
// cache when they are read again; four blocks of 512 would push each other out. The launch bounds leave room
// for two.
constexpr int kThreads = 1024, kFewThreads = 128;  // for vocabularies of more, and of at most 4096

/// Rows are `stride` elements apart. losses, dlogits or weights may be null; dlogits may be logits.
template <int N, int Threads, typename T>
__global__ void __launch_bounds__(Threads, Threads == kThreads ? 2 : 1)
    cross_entropy_kernel(float* losses, T* dlogits, const T* logits, const std::int32_t* targets, float scale,
                         const float* weights, std::int64_t vocabulary, std::int64_t stride,
                         DeviceReport* report) {
  const std::int64_t row = blockIdx.x;
  const int thread = threadIdx.x, target = targets[row];
  logits += row * stride;
  if (dlogits != nullptr) dlogits += row * stride;

  if (target < 0 || target >= vocabulary) {  // -1: ignored, the loss and its gradient are 0
    const float value = target == -1 ? 0.0F : __uint_as_float(0x7fc00000u);  // NaN
    if (thread == 0) {
      if (losses != nullptr) losses[row] = value;
      if (target != -1) leave_note(report, DeviceComplaint::target, target, static_cast<int>(vocabulary));
    }
    if (dlogits == nullptr) return;
    for (std::int64_t i = thread; i < vocabulary; i += Threads) dlogits[i] = from_float<T>(value);
    return;
  }

  const RunningSum all = long_row_sum<N, Threads>(logits, vocabulary);
  const float right = to_float(logits[target]);
  if (losses != nullptr && thread == 0) losses[row] = logf(all.total) + (all.most - right);
  if (dlogits == nullptr) return;
  __syncthreads();  // all threads have read the target's logit
  if (weights != nullptr) scale *= weights[row];
  const float factor = scale / all.total;
  visit_row<N, Threads, /*Backwards=*/true>(logits, vocabulary, [&](std::int64_t at, auto& v) {
    constexpr int kCount = std::extent_v<std::remove_reference_t<decltype(v)>>;
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      v[i] = __expf(v[i] - all.most) * factor - (at + i == target ? scale : 0.0F);
    store(dlogits + at, v);
  });
}

/// Rows [0, rows) of logits (rows, V), `stride` elements apart. Null: not wanted.
template <typename T>
void run(float* losses, T* dlogits, const T* logits, const std::int32_t* targets, float scale,
         const float* weights, std::int64_t rows, std::int64_t vocabulary, std::int64_t stride) {
  const auto go = [&](auto kernel, int threads) {
    launch(kernel, {blocks(rows), blocks(threads)}, losses, dlogits, logits, targets, scale, weights,
           vocabulary, stride, device_report());
  };
  if (dlogits != nullptr && !aligned_alike(dlogits, logits))
    go(cross_entropy_kernel<1, kThreads, T>, kThreads);
  else if (vocabulary > 4096)
    go(cross_entropy_kernel<kPack<T>, kThreads, T>, kThreads);
  else
    go(cross_entropy_kernel<kPack<T>, kFewThreads, T>, kFewThreads);
}

/// w (V, C) and rows of zeros below it, `rows` in all; w itself if it has as many.
Tensor with_zero_rows(const Tensor& w, Index rows) {
  const Index vocabulary = w.dim(0);
  if (vocabulary == rows) return w;
  const Tensor table = Tensor::uninitialized({rows, w.dim(1)}, w.dtype(), Device::cuda);
  table.slice(0, vocabulary).copy_from(w);
  table.slice(vocabulary, rows).zero();
  return table;
}

}  // namespace

void cross_entropy(const Tensor& losses, const Tensor& dlogits, const Tensor& logits, const Tensor& targets,
                   float scale) {
  if (logits.numel() == 0) return;
  by_type(logits, [&]<typename T>() {
    run<T>(device_data<float>(losses), device_data<T>(dlogits), device_data<T>(logits),
           targets.data<std::int32_t>(), scale, nullptr, targets.numel(), logits.dim(-1), logits.dim(-1));
  });
}

void cross_entropy_forward(const Tensor& losses, const Tensor& logits, const Tensor& targets) {
  cross_entropy(losses, Tensor(), logits, targets, 0);
}

void cross_entropy_backward(const Tensor& dlogits, const Tensor& logits, const Tensor& targets, float scale) {
  cross_entropy(Tensor(), dlogits, logits, targets, scale);
}

// Rows are taken in equal blocks whose logits fill at most `logits_at_a_time` elements: each block's logits
// are made, turned into their own gradient in place, used for dx and dw, and forgotten. Every block passes
// once over w and twice over dw, so fewer and larger ones are faster; the default leaves some 5300 rows of
// GPT-2's vocabulary, with which the products are as fast as they get.
//
// In bf16 cuBLAS has its fast kernels only where rows begin at multiples of 16 bytes and have a multiple of 8
// elements; with GPT-2's vocabulary of 50257 logits and dx take five to eight times as long on an H100. So
// both products see a vocabulary of a multiple of 64, with rows of zeros below w (a copy of some 50 µs, which
// saves 9 ms with 8192 tokens): their logits are 0, and left alone these are their gradient too. dw, which
// has no room for more, gets its last few rows by themselves. f32, which would not need it, goes the same
// way.
void linear_cross_entropy(const Tensor& losses, const Tensor& dx, const Tensor& dw, const Tensor& x,
                          const Tensor& w, const Tensor& targets, float scale, const Tensor& weights,
                          Index logits_at_a_time) {
  const Index vocabulary = w.dim(0), channels = w.dim(1), rows = targets.numel();
  const Index wide = divide_up(vocabulary, 64) * 64, eights = vocabulary / 8 * 8;
  const Index most = std::max<Index>(1, logits_at_a_time / wide);
  const Index count = std::max<Index>(1, divide_up(rows, most)), block = divide_up(rows, count);
  const DType dtype = x.dtype();
  const Tensor table = with_zero_rows(w, wide);
  const Tensor logits = Tensor::uninitialized({block, wide}, dtype, Device::cuda);
  for (Index first = 0; first < rows; first += block) {
    const Index n = std::min(block, rows - first);
    const Tensor xs = x.range(first * channels, {n, channels});
    gemm({.transpose_b = true,
          .m = n,
          .n = wide,
          .k = channels,
          .inputs = dtype,
          .a = xs.raw(),
          .lda = channels,
          .b = table.raw(),
          .ldb = channels,
          .output = dtype,
          .c = logits.raw(),
          .ldc = wide});
    by_type(x, [&]<typename T>() {
      T* const lines = device_data<T>(logits);
      run<T>(losses.data() + first, dx.defined() ? lines : nullptr, lines,
             targets.data<std::int32_t>() + first, scale,
             weights.defined() ? weights.data() + first : nullptr, n, vocabulary, wide);
    });
    if (!dx.defined()) continue;
    gemm({.m = n,
          .n = channels,
          .k = wide,
          .inputs = dtype,
          .a = logits.raw(),
          .lda = wide,
          .b = table.raw(),
          .ldb = channels,
          .output = dtype,
          .c = dx.range(first * channels, {n, channels}).raw(),
          .ldc = channels});
    if (!dw.defined()) continue;
    for (const auto& [from, to] : {std::pair(Index{0}, eights), std::pair(eights, vocabulary)})
      gemm({.transpose_a = true,
            .m = to - from,
            .n = channels,
            .k = n,
            .inputs = dtype,
            .a = logits.range(from, {0}).raw(),
            .lda = wide,
            .b = xs.raw(),
            .ldb = channels,
            .beta = 1,
            .output = DType::f32,
            .c = dw.range(from * channels, {0}).raw(),
            .ldc = channels});
  }
}

}  // namespace llm::cuda
