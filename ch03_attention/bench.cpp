// How fast the operations of chapter 3 are, and how far from what the machine can do.
//
//   ch03_attention_bench --benchmark_filter=flash
//
// Products count 2 m n k operations; causal attention counts the half of the T x T scores that the mask
// leaves: 4 D per score forward (two products), 10 D backward (five). Compare GFLOP/s with `peak`, the same
// arithmetic with nothing to load. All threads are used.
#include <benchmark/benchmark.h>

#include "common/core/philox.h"
#include "common/core/threads.h"
#include "common/ops/cpu/vec.h"
#include "common/ops/ops.h"

namespace {

using namespace llm;
using benchmark::Counter;
using benchmark::State;

Tensor normal(Shape shape, std::uint64_t stream) {
  Tensor t(std::move(shape));
  const Philox rng{1, stream};
  parallel_for(t.numel(), 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) t.data()[i] = rng.normal(static_cast<std::uint64_t>(i));
  });
  return t;
}

void count(State& state, double operations, double bytes) {
  state.counters["GFLOP/s"] = Counter(operations * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["GB/s"] = Counter(bytes * 1e-9, Counter::kIsIterationInvariantRate);
}

/// Multiply-adds on registers only, on all threads.
void peak(State& state) {
  constexpr std::int64_t kRounds = 1 << 20;
  using cpu::kLanes, cpu::Vec;
  constexpr int kSums = 12 / cpu::kParts;  // twelve registers
  const int threads = thread_count();
  std::vector<float> keep(static_cast<std::size_t>(threads));
  for (auto _ : state)
    parallel_for(threads, 1, [&](std::int64_t begin, std::int64_t) {
      Vec sums[kSums];
      for (int i = 0; i < kSums; ++i) sums[i] = cpu::splat(static_cast<float>(i));
      const Vec factor = cpu::splat(keep[static_cast<std::size_t>(begin)] * 0.5F);
      for (std::int64_t round = 0; round < kRounds; ++round)
#pragma GCC unroll 12
        for (int i = 0; i < kSums; ++i) sums[i] = sums[i] * factor + factor;
      float total = 0;
      for (int i = 0; i < kSums; ++i) total += cpu::sum(sums[i]);
      keep[static_cast<std::size_t>(begin)] = total;
      benchmark::DoNotOptimize(total);
    });
  count(state, 2.0 * kRounds * kSums * kLanes * threads, 0);
}
BENCHMARK(peak)->UseRealTime()->Unit(benchmark::kMillisecond);

enum Kind { forward, dx, dw };

/// The three products of a linear layer: rows N, in I, out O.
void linear_product(State& state) {
  const auto kind = static_cast<Kind>(state.range(0));
  const std::int64_t n = state.range(1), in = state.range(2), out = state.range(3);
  const Tensor x = normal({n, in}, 1), w = normal({out, in}, 2), y = normal({n, out}, 3);
  for (auto _ : state) {
    if (kind == forward) gemm(false, true, n, out, in, 1, x.data(), in, w.data(), in, 0, y.data(), out);
    if (kind == dx) gemm(false, false, n, in, out, 1, y.data(), out, w.data(), in, 0, x.data(), in);
    if (kind == dw) gemm(true, false, out, in, n, 1, y.data(), out, x.data(), in, 1e-20F, w.data(), in);
  }
  const auto numbers = static_cast<double>(x.numel() + w.numel() + y.numel() + (kind == dw ? w.numel() : 0));
  count(state, 2.0 * static_cast<double>(n * in * out), 4 * numbers);
  state.SetLabel(kind == forward ? "y = x w^T" : kind == dx ? "dx = dy w" : "dw += dy^T x");
}
void product_sizes(benchmark::internal::Benchmark* b) {
  for (const int kind : {forward, dx, dw}) {
    for (const int n : {256, 1024})  // GPT-2 124M, B = 4, T = 64 and 256
      for (const auto& [in, out] : {std::pair{768, 2304}, {768, 768}, {768, 3072}, {3072, 768}})
        b->Args({kind, n, in, out});
    b->Args({kind, 256, 768, 50257});
    for (const auto& [in, out] : {std::pair{128, 384}, {128, 128}, {128, 512}, {512, 128}, {128, 65}})
      b->Args({kind, 768, in, out});  // nanoGPT's small model, B = 12, T = 64
    for (const auto& [in, out] : {std::pair{192, 576}, {192, 768}, {768, 192}, {192, 1024}})
      b->Args({kind, 2048, in, out});  // stories, B = 16, T = 128
  }
}
BENCHMARK(linear_product)->Apply(product_sizes)->UseRealTime();

/// A whole linear layer, with bias.
void linear(State& state) {
  const bool backward = state.range(0) != 0;
  const std::int64_t n = state.range(1), in = state.range(2), out = state.range(3);
  const Tensor x = normal({n, in}, 1), w = normal({out, in}, 2), y = normal({n, out}, 3),
               b = normal({out}, 4);
  const Tensor grad_x({n, in}), grad_w({out, in}), grad_b({out});
  for (auto _ : state) {
    if (backward)
      linear_backward(grad_x, grad_w, grad_b, y, x, w);
    else
      linear_forward(y, x, w, b);
  }
  count(state, (backward ? 4.0 : 2.0) * static_cast<double>(n * in * out), 0);
  state.SetLabel(backward ? "backward" : "forward");
}
void linear_sizes(benchmark::internal::Benchmark* b) {
  for (const int backward : {0, 1}) {
    b->Args({backward, 256, 768, 3072});
    b->Args({backward, 1024, 768, 3072});
    b->Args({backward, 768, 128, 512});
  }
}
BENCHMARK(linear)->Apply(linear_sizes)->UseRealTime();

/// Attention: B, T, H, D.
struct AttentionCase {
  explicit AttentionCase(const State& state)
      : batch(state.range(0)),
        time(state.range(1)),
        heads(state.range(2)),
        size(state.range(3)),
        qkv(normal({batch, time, 3 * heads * size}, 1)),
        dqkv({batch, time, 3 * heads * size}),
        y({batch, time, heads * size}),
        dy(normal({batch, time, heads * size}, 2)),
        lse({batch, heads, time}) {
    options.heads = heads;
  }
  double scores() const { return 0.5 * static_cast<double>(batch * heads * time * (time + 1)); }
  double bytes() const { return 4 * static_cast<double>(qkv.numel() + y.numel()); }

  std::int64_t batch, time, heads, size;
  Tensor qkv, dqkv, y, dy, lse;
  AttentionOptions options;
};

void flash_forward(State& state) {
  const AttentionCase a(state);
  for (auto _ : state) attention_flash_forward(a.y, a.lse, a.qkv, a.options);
  count(state, 4 * static_cast<double>(a.size) * a.scores(), a.bytes());
}
void flash_backward(State& state) {
  const AttentionCase a(state);
  attention_flash_forward(a.y, a.lse, a.qkv, a.options);
  for (auto _ : state) attention_flash_backward(a.dqkv, a.dy, a.y, a.lse, a.qkv, a.options);
  count(state, 10 * static_cast<double>(a.size) * a.scores(), 2.5 * a.bytes());
}
void naive_forward(State& state) {
  const AttentionCase a(state);
  const Tensor weights({a.batch, a.heads, a.time, a.time});
  for (auto _ : state) attention_naive_forward(a.y, weights, a.qkv, a.options);
  count(state, 4 * static_cast<double>(a.size) * a.scores(), a.bytes());
}
void naive_backward(State& state) {
  const AttentionCase a(state);
  const Tensor weights({a.batch, a.heads, a.time, a.time});
  attention_naive_forward(a.y, weights, a.qkv, a.options);
  for (auto _ : state) attention_naive_backward(a.dqkv, a.dy, weights, a.qkv, a.options);
  count(state, 8 * static_cast<double>(a.size) * a.scores(), 2 * a.bytes());
}
void attention_sizes(benchmark::internal::Benchmark* b) {
  b->Args({4, 64, 12, 64})->Args({4, 256, 12, 64})->Args({4, 1024, 12, 64});  // GPT-2 124M
  b->Args({12, 64, 4, 32});                                                   // nanoGPT's small model
  b->Args({16, 128, 6, 32});                                                  // stories
}
BENCHMARK(flash_forward)->Apply(attention_sizes)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(flash_backward)->Apply(attention_sizes)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(naive_forward)->Apply(attention_sizes)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(naive_backward)->Apply(attention_sizes)->UseRealTime()->Unit(benchmark::kMicrosecond);

/// One new position over a cache of T.
void decode(State& state) {
  const std::int64_t batch = state.range(0), time = state.range(1), heads = state.range(2),
                     size = state.range(3);
  const Tensor keys = normal({batch, heads, time, size}, 1), values = normal({batch, heads, time, size}, 2);
  const Tensor qkv = normal({batch, 1, 3 * heads * size}, 3), y({batch, 1, heads * size});
  for (auto _ : state) attention_decode(y, keys, values, qkv, time - 1, heads);
  count(state, 4.0 * static_cast<double>(batch * heads * time * size),
        8.0 * static_cast<double>(batch * heads * time * size));
}
BENCHMARK(decode)
    ->Args({1, 1024, 12, 64})
    ->Args({1, 64, 4, 32})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

void softmax(State& state) {
  const Tensor x = normal({state.range(0), state.range(1)}, 1), y({state.range(0), state.range(1)});
  for (auto _ : state) softmax_forward(y, x);
  count(state, 0, 8.0 * static_cast<double>(x.numel()));
}
BENCHMARK(softmax)->Args({1024, 1024})->Args({128, 50257})->UseRealTime()->Unit(benchmark::kMicrosecond);

void dropout_mask(State& state) {
  const Tensor x = normal({state.range(0)}, 1), y({state.range(0)});
  for (auto _ : state) dropout(y, x, 0.1F, Philox{1, 2});
  count(state, 0, 8.0 * static_cast<double>(x.numel()));
}
BENCHMARK(dropout_mask)->Arg(1024 * 768)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
