// How fast the training step, its optimizer, and generation are.
//
//   ch05_pretraining_bench --benchmark_filter=step
//
// `share` is the step's matrix products (6 per parameter and token, and the attention's) per second, as a
// share of a large product's speed measured at the start (MFU). All threads are used.
#include <benchmark/benchmark.h>

#include <vector>

#include "common/core/philox.h"
#include "common/generation/generate.h"
#include "common/training/adamw.h"
#include "common/training/peak.h"

namespace {

using namespace llm;
using benchmark::Counter;
using benchmark::State;

struct Size {
  const char* name;
  std::int64_t vocabulary, layers, heads, channels, batch, tokens;
};

const Size kSizes[] = {
    {"tinyshakespeare: 4 x 128, 12 x 64", 65, 4, 4, 128, 12, 64},
    {"stories: 4 x 128, 16 x 100", 1024, 4, 4, 128, 16, 100},
    {"6 x 384, 8 x 256", 8192, 6, 6, 384, 8, 256},
    {"GPT-2 124M, 4 x 64", 50257, 12, 12, 768, 4, 64},
    {"GPT-2 124M, 4 x 256", 50257, 12, 12, 768, 4, 256},
};

GptConfig config_of(const Size& size) {
  GptConfig config;
  config.vocab_size = size.vocabulary;
  config.layers = size.layers;
  config.heads = size.heads;
  config.channels = size.channels;
  config.context = std::max<std::int64_t>(256, size.tokens);
  return config;
}

Tensor random_tokens(Shape shape, std::int64_t vocabulary) {
  Tensor tokens(std::move(shape), DType::i32);
  const Philox random{1, stream_id("bench")};
  for (std::int64_t i = 0; i < tokens.numel(); ++i)
    tokens.data<std::int32_t>()[i] = static_cast<std::int32_t>(random.word(static_cast<std::uint64_t>(i)) %
                                                               static_cast<std::uint64_t>(vocabulary));
  return tokens;
}

/// Forward, loss, backward and AdamW.
void step(State& state) {
  static const double peak = measure_peak_flops();
  const Size& size = kSizes[state.range(0)];
  GptStage model(config_of(size));
  model.initialize(1);
  AdamW optimizer(model.parameters(), {});
  const Tensor inputs = random_tokens({size.batch, size.tokens}, size.vocabulary);
  const Tensor targets = random_tokens({size.batch, size.tokens}, size.vocabulary);
  StageActivations saved;
  StageScratch scratch;
  for (auto _ : state) {
    model.parameters().zero_gradients();
    model.forward(saved, inputs);
    model.loss(saved, scratch, targets, 1.0F / static_cast<float>(inputs.numel()));
    model.backward(saved, scratch, inputs);
    optimizer.step(1e-4);
  }
  const auto tokens = static_cast<double>(size.batch * size.tokens);
  state.SetLabel(size.name);
  state.counters["tokens/s"] = Counter(tokens, Counter::kIsIterationInvariantRate);
  state.counters["share"] = Counter(tokens * training_flops_per_token(config_of(size), size.tokens) / peak,
                                    Counter::kIsIterationInvariantRate);
}
BENCHMARK(step)->DenseRange(0, std::size(kSizes) - 1)->UseRealTime()->Unit(benchmark::kMillisecond);

/// The optimizer alone: it reads four floats per parameter and writes three.
void adamw(State& state) {
  ParameterStore store;
  store.declare("w", {state.range(0)}, true);
  store.allocate();
  store.gradients().fill(1e-3F);
  AdamW optimizer(store, {});
  for (auto _ : state) optimizer.step(1e-4);
  state.counters["GB/s"] =
      Counter(28e-9 * static_cast<double>(state.range(0)), Counter::kIsIterationInvariantRate);
}
BENCHMARK(adamw)->Arg(1 << 20)->Arg(124'439'808)->UseRealTime()->Unit(benchmark::kMillisecond);

/// Writing with the key-value cache: range(1) texts at once, 100 tokens each.
void generate_text(State& state) {
  const Size& size = kSizes[state.range(0)];
  GptStage model(config_of(size));
  model.initialize(1);
  GenerateOptions options;
  options.sampling.temperature = 0.8F;
  options.max_new_tokens = 100;
  const std::vector<std::int32_t> prompt = {0};
  for (auto _ : state) benchmark::DoNotOptimize(generate_many(model, prompt, state.range(1), options));
  state.SetLabel(size.name);
  state.counters["tokens/s"] =
      Counter(100.0 * static_cast<double>(state.range(1)), Counter::kIsIterationInvariantRate);
}
BENCHMARK(generate_text)
    ->Args({1, 1})
    ->Args({1, 16})
    ->Args({1, 64})
    ->Args({3, 1})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
