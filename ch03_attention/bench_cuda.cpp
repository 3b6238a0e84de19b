// How fast attention is on a GPU, variant by variant.
//
//   ch03_attention_bench --benchmark_filter=cuda_attention
//
// Arguments: T and D, with B = 8 and H = 12, causal. Operations are those of the half of the T x T scores
// that the mask leaves: 4 D per score forward (two products), 10 D backward (five), whatever a variant really
// computes; so the FLOP/s compare with each other and with what other libraries print. In a build without
// CUDA there is nothing to measure: the software GPU counts, it is not fast.
#include <benchmark/benchmark.h>

#include "common/ops/cuda/attention.h"
#include "common/ops/cuda/bench.h"

namespace {

using namespace llm;
using benchmark::Counter;
using benchmark::State;

constexpr std::int64_t kBatch = 8, kHeads = 12;

/// What a variant works on.
struct Case {
  Case(const State& state, DType element)
      : time(state.range(0)), size(state.range(1)), dtype(element), options{.heads = kHeads} {
    qkv = normal({kBatch, time, 3 * kHeads * size});
    dqkv = qkv.clone();
    dy = normal({kBatch, time, kHeads * size});
    y = dy.clone();
    lse = Tensor({kBatch, kHeads, time}, DType::f32, Device::cuda);
  }
  Tensor normal(Shape shape) const { return normals_for_measuring(std::move(shape), dtype, Device::cuda); }
  Tensor weights() const { return Tensor({kBatch, kHeads, time, time}, DType::f32, Device::cuda); }

  std::int64_t time, size;
  DType dtype;
  AttentionOptions options;
  Tensor qkv, dqkv, y, dy, lse;
};

/// Times `call`, which makes `products` products over the scores.
template <typename Call>
void measure(State& state, double products, const Call& call) {
  const double each = cuda::measure_calls(state, call);
  const double time = static_cast<double>(state.range(0)), size = static_cast<double>(state.range(1));
  const double scores = 0.5 * kBatch * kHeads * time * time;
  state.counters["TFLOP/s"] = 2 * products * size * scores / each * 1e-12;
}

using Forward = void (*)(const Tensor&, const Tensor&, const Tensor&, const AttentionOptions&);
using StoredBackward = void (*)(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                const AttentionOptions&);
using FlashBackward = void (*)(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                               const AttentionOptions&);

void stored_forward(State& state, Forward forward) {
  if (!cuda::bench_ready(state)) return;
  const Case c(state, DType::f32);
  const Tensor weights = c.weights();
  measure(state, 2, [&] { forward(c.y, weights, c.qkv, c.options); });
}
void stored_backward(State& state, Forward forward, StoredBackward backward) {
  if (!cuda::bench_ready(state)) return;
  const Case c(state, DType::f32);
  const Tensor weights = c.weights();
  forward(c.y, weights, c.qkv, c.options);
  measure(state, 4, [&] { backward(c.dqkv, c.dy, weights, c.qkv, c.options); });
}
void flash_forward(State& state, Forward forward, DType dtype) {
  if (!cuda::bench_ready(state)) return;
  const Case c(state, dtype);
  measure(state, 2, [&] { forward(c.y, c.lse, c.qkv, c.options); });
}
void flash_backward(State& state, Forward forward, FlashBackward backward, DType dtype) {
  if (!cuda::bench_ready(state)) return;
  const Case c(state, dtype);
  forward(c.y, c.lse, c.qkv, c.options);
  measure(state, 5, [&] { backward(c.dqkv, c.dy, c.y, c.lse, c.qkv, c.options); });
}

/// One new position over a cache of T: all of it is read once.
void decode(State& state, DType dtype) {
  if (!cuda::bench_ready(state)) return;
  const Case c(state, dtype);
  const Tensor keys({kBatch, kHeads, c.time, c.size}, dtype, Device::cuda), values = keys.clone();
  const Tensor qkv({kBatch, 1, 3 * kHeads * c.size}, dtype, Device::cuda);
  const Tensor y({kBatch, 1, kHeads * c.size}, dtype, Device::cuda);
  measure(state, 0, [&] { cuda::attention_decode(y, keys, values, qkv, c.time - 1, kHeads); });
  state.counters["bytes/s"] = Counter(static_cast<double>(keys.bytes() + values.bytes()),
                                      Counter::kIsIterationInvariantRate, Counter::kIs1000);
}

/// The stored scores of 4096 positions would be 6 GB, and backward has them twice.
void short_sizes(benchmark::internal::Benchmark* b) {
  for (const int size : {64, 128})
    for (const int time : {1024, 2048}) b->Args({time, size});
  cuda::by_measured_calls(b);
}
void sizes(benchmark::internal::Benchmark* b) {
  for (const int size : {64, 128})
    for (const int time : {1024, 2048, 4096, 8192}) b->Args({time, size});
  cuda::by_measured_calls(b);
}

const bool registered = [] {
  const auto add = [](const std::string& name, auto... arguments) {
    return benchmark::RegisterBenchmark(("cuda_attention_" + name).c_str(), arguments...);
  };
  add("naive_forward", stored_forward, cuda::attention_naive_forward)->Apply(short_sizes);
  add("naive_backward", stored_backward, cuda::attention_naive_forward, cuda::attention_naive_backward)
      ->Apply(short_sizes);
  add("tiled_forward", stored_forward, cuda::attention_tiled_forward)->Apply(short_sizes);
  add("tiled_backward", stored_backward, cuda::attention_tiled_forward, cuda::attention_tiled_backward)
      ->Apply(short_sizes);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const std::string of = "_" + std::string(name(dtype));
    add("flash_forward" + of, flash_forward, cuda::attention_flash_forward, dtype)->Apply(sizes);
    add("flash_backward" + of, flash_backward, cuda::attention_flash_forward, cuda::attention_flash_backward,
        dtype)
        ->Apply(sizes);
  }
  add("flash_mma_forward", flash_forward, cuda::attention_flash_mma_forward, DType::bf16)->Apply(sizes);
  add("flash_mma_backward", flash_backward, cuda::attention_flash_mma_forward,
      cuda::attention_flash_mma_backward, DType::bf16)
      ->Apply(sizes);
  for (const DType dtype : {DType::f32, DType::bf16})
    add("decode_" + std::string(name(dtype)), decode, dtype)->Apply(sizes);
  return true;
}();

}  // namespace
