// How fast the operations of chapter 4 are. Most of them only move memory: compare their GB/s with `copy`.
// All threads are used.
#include <benchmark/benchmark.h>

#include "common/core/philox.h"
#include "common/core/threads.h"
#include "common/ops/ops.h"

namespace {

using namespace llm;
using benchmark::Counter;
using benchmark::State;

Tensor normal(Shape shape, std::uint64_t stream, float scale = 1) {
  Tensor t(std::move(shape));
  const Philox rng{1, stream};
  parallel_for(t.numel(), 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      t.data()[i] = scale * rng.normal(static_cast<std::uint64_t>(i));
  });
  return t;
}
Tensor ids(std::int64_t rows, std::int64_t columns, std::int64_t vocabulary) {
  Tensor t({rows, columns}, DType::i32);
  const Philox rng{1, 7};
  for (std::int64_t i = 0; i < t.numel(); ++i)
    t.data<std::int32_t>()[i] = static_cast<std::int32_t>(rng.word(static_cast<std::uint64_t>(i)) %
                                                          static_cast<std::uint32_t>(vocabulary));
  return t;
}

void count(State& state, double operations, double bytes) {
  state.counters["GFLOP/s"] = Counter(operations * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["GB/s"] = Counter(bytes * 1e-9, Counter::kIsIterationInvariantRate);
}

// The sizes: rows N and channels C of GPT-2 124M at B = 4, T = 64 and 256, and of nanoGPT's small model.
void rows_and_channels(benchmark::internal::Benchmark* b) {
  b->Args({256, 768})->Args({1024, 768})->Args({768, 128});
}

void copy(State& state) {
  const Tensor x({state.range(0)}), y({state.range(0)});
  x.fill(1);
  for (auto _ : state)
    parallel_for(x.numel(), 4096, [&](std::int64_t begin, std::int64_t end) {
      std::copy(x.data() + begin, x.data() + end, y.data() + begin);
    });
  count(state, 0, 8.0 * static_cast<double>(x.numel()));
}
BENCHMARK(copy)->Arg(1024 * 768)->Arg(32 << 20)->UseRealTime()->Unit(benchmark::kMicrosecond);

void layer_norm(State& state) {
  const bool backward = state.range(2) != 0;
  const std::int64_t n = state.range(0), c = state.range(1);
  const Tensor x = normal({n, c}, 1), dy = normal({n, c}, 2), gamma = normal({c}, 3), beta = normal({c}, 4);
  const Tensor y({n, c}), dx({n, c}), mean({n}), rstd({n}), dgamma({c}), dbeta({c});
  layer_norm_forward(y, mean, rstd, x, gamma, beta, 1e-5F);
  for (auto _ : state) {
    if (backward)
      layer_norm_backward(dx, dgamma, dbeta, dy, x, gamma, mean, rstd, dx);
    else
      layer_norm_forward(y, mean, rstd, x, gamma, beta, 1e-5F);
    if (backward) dx.data()[0] = 0;
  }
  count(state, 0, (backward ? 16.0 : 8.0) * static_cast<double>(n * c));
  state.SetLabel(backward ? "backward, with the residual" : "forward");
}
BENCHMARK(layer_norm)
    ->Apply([](auto* b) {
      for (const int backward : {0, 1})
        for (const auto& [n, c] : {std::pair{256, 768}, {1024, 768}, {768, 128}}) b->Args({n, c, backward});
    }) -> UseRealTime() -> Unit(benchmark::kMicrosecond);

void gelu(State& state) {
  const bool backward = state.range(2) != 0;
  const Tensor x = normal({state.range(0), 4 * state.range(1)}, 1), dy = normal(x.shape(), 2), y(x.shape()),
               dx(x.shape());
  gelu_forward(y, x);
  for (auto _ : state) {
    if (backward)
      gelu_backward(dx, dy, x, y);
    else
      gelu_forward(y, x);
  }
  count(state, 0, (backward ? 16.0 : 8.0) * static_cast<double>(x.numel()));
  state.SetLabel(backward ? "backward" : "forward");
}
BENCHMARK(gelu)
    ->Apply([](auto* b) {
      for (const int backward : {0, 1})
        for (const auto& [n, c] : {std::pair{256, 768}, {1024, 768}, {768, 128}}) b->Args({n, c, backward});
    }) -> UseRealTime() -> Unit(benchmark::kMicrosecond);

void residual(State& state) {
  const Tensor a = normal({state.range(0), state.range(1)}, 1), b = normal(a.shape(), 2);
  for (auto _ : state) add(a, a, b);
  count(state, 0, 12.0 * static_cast<double>(a.numel()));
}
BENCHMARK(residual)->Apply(rows_and_channels)->UseRealTime()->Unit(benchmark::kMicrosecond);

void embedding(State& state) {
  const bool backward = state.range(0) != 0;
  const std::int64_t batch = 4, time = 256, vocabulary = 50257, channels = 768;
  const Tensor tokens = ids(batch, time, vocabulary);
  const Tensor table = normal({vocabulary, channels}, 1), positions = normal({1024, channels}, 2);
  const Tensor y({batch, time, channels});
  for (auto _ : state) {
    if (backward)
      embedding_backward(table, positions, y, tokens);
    else
      embedding_forward(y, tokens, table, positions);
  }
  count(state, 0, (backward ? 20.0 : 12.0) * static_cast<double>(y.numel()));
  state.SetLabel(backward ? "backward" : "forward");
}
BENCHMARK(embedding)->Arg(0)->Arg(1)->UseRealTime()->Unit(benchmark::kMicrosecond);

void loss(State& state) {
  const std::int64_t n = state.range(0), v = state.range(1);
  const Tensor logits = normal({n, v}, 1), targets = ids(n, 1, v), losses({n});
  for (auto _ : state) cross_entropy_backward(logits, logits, targets, 1);
  count(state, 0, 8.0 * static_cast<double>(n * v));
}
BENCHMARK(loss)->Args({128, 50257})->Args({768, 65})->UseRealTime()->Unit(benchmark::kMicrosecond);

/// The head with its loss: N, C, V. With gradients three products of 2 N C V, without one.
void head_and_loss(State& state) {
  const bool gradients = state.range(3) != 0;
  const std::int64_t n = state.range(0), c = state.range(1), v = state.range(2);
  const Tensor x = normal({n, c}, 1), w = normal({v, c}, 2, 0.02F), targets = ids(n, 1, v);
  const Tensor losses({n}), dx({n, c}), dw({v, c});
  for (auto _ : state) {
    if (gradients)
      linear_cross_entropy(losses, dx, dw, x, w, targets, 1.0F / static_cast<float>(n));
    else
      linear_cross_entropy_forward(losses, x, w, targets);
  }
  count(state, (gradients ? 6.0 : 2.0) * static_cast<double>(n * c * v), 0);
  state.SetLabel(gradients ? "with gradients" : "loss only");
}
BENCHMARK(head_and_loss)
    ->Args({256, 768, 50257, 0})
    ->Args({256, 768, 50257, 1})
    ->Args({1024, 768, 50257, 1})
    ->Args({768, 128, 65, 1})
    ->Args({2048, 192, 1024, 1})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

/// 28 bytes per parameter: value, two moments and gradient read, the first three written.
void adamw(State& state) {
  const std::int64_t n = state.range(0);
  const Tensor values = normal({n}, 1), m({n}), v({n}), gradients = normal({n}, 2);
  AdamWStep options;
  for (auto _ : state) {
    adamw_update(values, m, v, gradients, options);
    ++options.step;
  }
  count(state, 0, 28.0 * static_cast<double>(n));
}
BENCHMARK(adamw)->Arg(800'000)->Arg(124'439'808)->UseRealTime()->Unit(benchmark::kMicrosecond);

void norm(State& state) {
  const Tensor x = normal({state.range(0)}, 1);
  for (auto _ : state) benchmark::DoNotOptimize(squared_norm(x));
  count(state, 0, 4.0 * static_cast<double>(x.numel()));
}
BENCHMARK(norm)->Arg(800'000)->Arg(124'439'808)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
