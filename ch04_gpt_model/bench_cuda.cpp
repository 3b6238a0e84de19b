// How fast the primitives are on a GPU, and how far from its memory's speed.
//
//   ch04_gpt_model_bench --benchmark_filter=cuda
//
// All but the products are bound by the memory: each has a floor, the bytes it must read and write at least
// (said in front of its kernel), and "of copy" is that floor's rate as a part of what a plain copy reaches on
// the same GPU. The sizes are those of GPT-2 124M with 32 x 1024 tokens, so that no array fits the
// second-level cache. The argument is 0 for f32 and 1 for bf16. In a build without CUDA there is nothing to
// measure: the software GPU counts, it is not fast.
#include <benchmark/benchmark.h>

#include "common/core/philox.h"
#include "common/ops/cuda/bench.h"
#include "common/ops/cuda/kernels.h"

namespace {

using namespace llm;
using benchmark::Counter;
using benchmark::State;

constexpr std::int64_t kRows = 32768, kChannels = 768, kVocabulary = 50304, kTime = 1024;

/// Normal numbers in the dtype that the benchmark's argument asks for.
Tensor normal(Shape shape, DType dtype) {
  return normals_for_measuring(std::move(shape), dtype, Device::cuda);
}
Tensor f32(Shape shape) {
  return Tensor(std::move(shape), DType::f32, Device::cuda);
}
Tensor ids(std::int64_t count, std::int64_t below) {
  const Tensor t({count}, DType::i32);
  PhiloxSequence rng(1, 2);
  for (std::int32_t& id : t.span<std::int32_t>())
    id = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(below)));
  return t.to(Device::cuda);
}

/// Bytes per second that a copy of 512 MB reads and writes; measured once.
double copy_rate() {
  static const double rate = [] {
    const std::int64_t count = std::int64_t{128} << 20;
    const Tensor from = normal({count}, DType::f32), to = f32({count});
    const auto copy = [&] { to.copy_from(from); };
    cuda::seconds_per_call(3, copy);
    return 2.0 * static_cast<double>(from.bytes()) / cuda::seconds_per_call(20, copy);
  }();
  return rate;
}

DType dtype_of_state(const State& state) {
  return state.range(0) == 0 ? DType::f32 : DType::bf16;
}

/// Times `call`, whose floor is `bytes`.
template <typename F>
void measure_bytes(State& state, double bytes, const F& call) {
  const double rate = bytes / cuda::measure_calls(state, call);
  state.counters["bytes/s"] = Counter(rate, Counter::kDefaults, Counter::kIs1000);
  state.counters["of copy"] = rate / copy_rate();
  state.SetLabel(name(dtype_of_state(state)).data());
}
template <typename F>
void measure_operations(State& state, double operations, const F& call) {
  const double each = cuda::measure_calls(state, call);
  state.counters["FLOP/s"] = Counter(operations / each, Counter::kDefaults, Counter::kIs1000);
  state.SetLabel(name(dtype_of_state(state)).data());
}
double bytes(std::initializer_list<Tensor> tensors) {
  double total = 0;
  for (const Tensor& t : tensors) total += static_cast<double>(t.bytes());
  return total;
}

// ---- bound by the memory ------------------------------------------------------------------------------

void cuda_copy(State& state) {
  if (!cuda::bench_ready(state)) return;
  const Tensor x = normal({kRows, kChannels}, dtype_of_state(state)), y = x.clone();
  measure_bytes(state, bytes({x, y}), [&] { y.copy_from(x); });
}

void cuda_gelu_forward(State& state) {
  if (!cuda::bench_ready(state)) return;
  const Tensor x = normal({kRows, 4 * kChannels}, dtype_of_state(state)), y = x.clone();
  measure_bytes(state, bytes({x, y}), [&] { gelu_forward(y, x); });
}

void cuda_gelu_backward(State& state) {
  if (!cuda::bench_ready(state)) return;
  const Tensor x = normal({kRows, 4 * kChannels}, dtype_of_state(state)), dy = x.clone(), dx = x.clone();
  measure_bytes(state, bytes({x, dy, dx}), [&] { gelu_backward(dx, dy, x, x); });  // y is not read there
}

void cuda_bias_gelu(State& state) {
  if (!cuda::bench_ready(state)) return;
  const Tensor pre = normal({kRows, 4 * kChannels}, dtype_of_state(state)), y = pre.clone();
  const Tensor bias(Shape{4 * kChannels}, pre.dtype(), Device::cuda);
  measure_bytes(state, bytes({pre, pre, y}), [&] { cuda::bias_gelu(y, pre, bias); });
}

void cuda_add(State& state) {
  if (!cuda::bench_ready(state)) return;
  const Tensor a = normal({kRows, kChannels}, dtype_of_state(state)), b = a.clone(), y = a.clone();
  measure_bytes(state, bytes({a, b, y}), [&] { add(y, a, b); });
}

void cuda_cast(State& state) {
  if (!cuda::bench_ready(state)) return;
  const bool to_bf16 = state.range(0) == 1;
  const Tensor x = normal({kRows, kChannels}, to_bf16 ? DType::f32 : DType::bf16);
  const Tensor y(x.shape(), to_bf16 ? DType::bf16 : DType::f32, Device::cuda);
  measure_bytes(state, bytes({x, y}), [&] { cast(y, x); });
}

void cuda_dropout(State& state) {
  if (!cuda::bench_ready(state)) return;
  const Tensor x = normal({kRows, kChannels}, dtype_of_state(state)), y = x.clone();
  measure_bytes(state, bytes({x, y}), [&] { dropout(y, x, 0.1F, {1, 2}); });
}

/// Layer norm's tensors.
struct LayerNorm {
  explicit LayerNorm(DType dtype)
      : x(normal({kRows, kChannels}, dtype)),
        y(x.clone()),
        other(x.clone()),
        sum(x.clone()),
        gamma(normal({kChannels}, dtype)),
        beta(normal({kChannels}, dtype)),
        mean(f32({kRows})),
        rstd(f32({kRows})),
        dgamma(f32({kChannels})),
        dbeta(f32({kChannels})) {}
  Tensor x, y, other, sum, gamma, beta, mean, rstd, dgamma, dbeta;
};

void cuda_layer_norm_forward(State& state) {
  if (!cuda::bench_ready(state)) return;
  const LayerNorm l(dtype_of_state(state));
  measure_bytes(state, bytes({l.x, l.y}),
                [&] { layer_norm_forward(l.y, l.mean, l.rstd, l.x, l.gamma, l.beta, 1e-5F); });
}

void cuda_add_layer_norm_forward(State& state) {
  if (!cuda::bench_ready(state)) return;
  const LayerNorm l(dtype_of_state(state));
  measure_bytes(state, bytes({l.x, l.other, l.sum, l.y}), [&] {
    add_layer_norm_forward(l.sum, l.y, l.mean, l.rstd, l.x, l.other, l.gamma, l.beta, 1e-5F);
  });
}

void cuda_layer_norm_backward(State& state) {
  if (!cuda::bench_ready(state)) return;
  const LayerNorm l(dtype_of_state(state));
  layer_norm_forward(l.y, l.mean, l.rstd, l.x, l.gamma, l.beta, 1e-5F);
  measure_bytes(state, bytes({l.x, l.other, l.sum, l.sum}), [&] {  // dy = other, dx added to sum
    layer_norm_backward(l.sum, l.dgamma, l.dbeta, l.other, l.x, l.gamma, l.mean, l.rstd, l.sum);
  });
}

void cuda_softmax_forward(State& state) {
  if (!cuda::bench_ready(state)) return;
  const Tensor x = normal({kRows, 1024}, dtype_of_state(state)), y = x.clone();
  measure_bytes(state, bytes({x, y}), [&] { softmax_forward(y, x); });
}

void cuda_softmax_backward(State& state) {
  if (!cuda::bench_ready(state)) return;
  const Tensor y = normal({kRows, 1024}, dtype_of_state(state)), dy = y.clone(), dx = y.clone();
  measure_bytes(state, bytes({y, dy, dx}), [&] { softmax_backward(dx, dy, y); });
}

void cuda_cross_entropy_forward(State& state) {
  if (!cuda::bench_ready(state)) return;
  const std::int64_t rows = 2048;
  const Tensor logits = normal({rows, kVocabulary}, dtype_of_state(state)), targets = ids(rows, kVocabulary);
  const Tensor losses = f32({rows});
  measure_bytes(state, bytes({logits}), [&] { cross_entropy_forward(losses, logits, targets); });
}

void cuda_cross_entropy_with_gradient(State& state) {
  if (!cuda::bench_ready(state)) return;
  const std::int64_t rows = 2048;
  const Tensor logits = normal({rows, kVocabulary}, dtype_of_state(state)), targets = ids(rows, kVocabulary);
  const Tensor losses = f32({rows});
  measure_bytes(state, bytes({logits, logits}),
                [&] { cuda::cross_entropy(losses, logits, logits, targets, 1e-4F); });
}

void cuda_embedding_forward(State& state) {
  if (!cuda::bench_ready(state)) return;
  const DType dtype = dtype_of_state(state);
  const Tensor table = normal({kVocabulary, kChannels}, dtype), positions = normal({kTime, kChannels}, dtype);
  const Tensor tokens = ids(kRows, kVocabulary).view({kRows / kTime, kTime});
  const Tensor y({kRows / kTime, kTime, kChannels}, dtype, Device::cuda);
  measure_bytes(state, bytes({y, y}), [&] { embedding_forward(y, tokens, table, positions); });
}

void cuda_embedding_backward(State& state) {
  if (!cuda::bench_ready(state)) return;
  const Tensor dtable = f32({kVocabulary, kChannels}), dpositions = f32({kTime, kChannels});
  const Tensor tokens = ids(kRows, kVocabulary).view({kRows / kTime, kTime});
  const Tensor dy = normal({kRows / kTime, kTime, kChannels}, dtype_of_state(state));
  // About half of the table's rows are met: each is read and written.
  const double met = (1 - std::exp(-static_cast<double>(kRows) / kVocabulary)) * kVocabulary * kChannels * 8;
  measure_bytes(state, bytes({dy, dy}) + met, [&] { embedding_backward(dtable, dpositions, dy, tokens); });
}

void cuda_adamw(State& state) {  // with the bf16 copy or without
  if (!cuda::bench_ready(state)) return;
  const Tensor values = normal({124439808}, DType::f32), m = f32(values.shape()), v = f32(values.shape());
  const Tensor g = values.clone();
  const Tensor copy = state.range(0) == 1 ? Tensor(values.shape(), DType::bf16, Device::cuda) : Tensor();
  measure_bytes(state, 7 * bytes({values}) + static_cast<double>(copy.bytes()),
                [&] { adamw_update(values, m, v, g, {}, copy); });
}

void cuda_squared_norm(State& state) {
  if (!cuda::bench_ready(state)) return;
  const Tensor x = normal({124439808}, dtype_of_state(state));
  measure_bytes(state, bytes({x}), [&] { benchmark::DoNotOptimize(squared_norm(x)); });
}

// ---- bound by the arithmetic --------------------------------------------------------------------------

void cuda_linear_forward(State& state) {
  if (!cuda::bench_ready(state)) return;
  const DType dtype = dtype_of_state(state);
  const Tensor x = normal({kRows, kChannels}, dtype), w = normal({4 * kChannels, kChannels}, dtype);
  const Tensor b = normal({4 * kChannels}, dtype), y(Shape{kRows, 4 * kChannels}, dtype, Device::cuda);
  measure_operations(state, 8.0 * kRows * kChannels * kChannels, [&] { linear_forward(y, x, w, b); });
}

void cuda_linear_gelu_forward(State& state) {
  if (!cuda::bench_ready(state)) return;
  const DType dtype = dtype_of_state(state);
  const Tensor x = normal({kRows, kChannels}, dtype), w = normal({4 * kChannels, kChannels}, dtype);
  const Tensor b = normal({4 * kChannels}, dtype), y(Shape{kRows, 4 * kChannels}, dtype, Device::cuda),
               pre = y.clone();
  measure_operations(state, 8.0 * kRows * kChannels * kChannels,
                     [&] { linear_gelu_forward(y, pre, x, w, b); });
}

void cuda_linear_backward(State& state) {
  if (!cuda::bench_ready(state)) return;
  const DType dtype = dtype_of_state(state);
  const Tensor x = normal({kRows, kChannels}, dtype), w = normal({4 * kChannels, kChannels}, dtype);
  const Tensor dy = normal({kRows, 4 * kChannels}, dtype), dx = x.clone();
  const Tensor dw = f32(w.shape()), db = f32({4 * kChannels});
  measure_operations(state, 16.0 * kRows * kChannels * kChannels,
                     [&] { linear_backward(dx, dw, db, dy, x, w); });
}

void cuda_linear_cross_entropy(State& state) {
  if (!cuda::bench_ready(state)) return;
  const DType dtype = dtype_of_state(state);
  const Tensor x = normal({kRows, kChannels}, dtype), w = normal({kVocabulary, kChannels}, dtype),
               dx = x.clone();
  const Tensor targets = ids(kRows, kVocabulary), losses = f32({kRows}), dw = f32(w.shape());
  measure_operations(state, 6.0 * kRows * kChannels * kVocabulary,
                     [&] { linear_cross_entropy(losses, dx, dw, x, w, targets, 1e-4F); });
}

const bool registered = [] {
  const std::pair<const char*, void (*)(State&)> all[] = {
      {"cuda_copy", cuda_copy},
      {"cuda_gelu_forward", cuda_gelu_forward},
      {"cuda_gelu_backward", cuda_gelu_backward},
      {"cuda_bias_gelu", cuda_bias_gelu},
      {"cuda_add", cuda_add},
      {"cuda_cast", cuda_cast},
      {"cuda_dropout", cuda_dropout},
      {"cuda_layer_norm_forward", cuda_layer_norm_forward},
      {"cuda_add_layer_norm_forward", cuda_add_layer_norm_forward},
      {"cuda_layer_norm_backward", cuda_layer_norm_backward},
      {"cuda_softmax_forward", cuda_softmax_forward},
      {"cuda_softmax_backward", cuda_softmax_backward},
      {"cuda_cross_entropy_forward", cuda_cross_entropy_forward},
      {"cuda_cross_entropy_with_gradient", cuda_cross_entropy_with_gradient},
      {"cuda_embedding_forward", cuda_embedding_forward},
      {"cuda_embedding_backward", cuda_embedding_backward},
      {"cuda_adamw", cuda_adamw},
      {"cuda_squared_norm", cuda_squared_norm},
      {"cuda_linear_forward", cuda_linear_forward},
      {"cuda_linear_gelu_forward", cuda_linear_gelu_forward},
      {"cuda_linear_backward", cuda_linear_backward},
      {"cuda_linear_cross_entropy", cuda_linear_cross_entropy},
  };
  for (const auto& [label, function] : all)
    benchmark::RegisterBenchmark(label, function)->Arg(0)->Arg(1)->Apply(cuda::by_measured_calls);
  return true;
}();

}  // namespace
