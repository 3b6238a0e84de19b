// What fine-tuning costs: a step of all parameters, of the last block, of adapters; examples padded and
// packed.
//
//   ch07_finetuning_bench --benchmark_filter=train
#include <benchmark/benchmark.h>

#include <vector>

#include "common/core/philox.h"
#include "common/finetuning/examples.h"
#include "common/finetuning/lora.h"
#include "common/finetuning/policy.h"
#include "common/finetuning/tuner.h"

namespace {

using namespace llm;
using benchmark::Counter;
using benchmark::State;

GptConfig size(std::int64_t which) {
  GptConfig config = gpt2_config("gpt2-124m");
  if (which == 0) {
    config.vocab_size = 1024;
    config.context = 160;
    config.layers = config.heads = 4;
    config.channels = 128;
  }
  return config;
}

/// Examples of some 60 to 140 tokens, of which the last 8 are the answer.
std::vector<Example> examples(std::int64_t count, std::int64_t vocabulary) {
  PhiloxSequence random(1, stream_id("bench"));
  std::vector<Example> all;
  for (std::int64_t i = 0; i < count; ++i) {
    Example e;
    const std::uint64_t length = 60 + random.below(80);
    for (std::uint64_t t = 0; t < length; ++t)
      e.tokens.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocabulary))));
    e.answer = static_cast<std::int64_t>(length) - 8;
    all.push_back(std::move(e));
  }
  return all;
}

enum Trains { everything, last_block, adapters };

/// A step on 8 padded examples; range(0): the model, range(1): what trains.
void train(State& state) {
  const GptConfig config = size(state.range(0));
  GptStage model(config);
  model.initialize(1);
  LoraAdapters lora(model, {.rank = 8}, 1);
  const std::string block = "h." + std::to_string(config.layers - 1) + ".";
  if (state.range(1) != everything)
    model.set_trainable([&](const Parameter& p) {
      return state.range(1) == last_block && (p.name.starts_with(block) || p.name.starts_with("ln_f"));
    });
  std::vector<ParameterStore*> stores = {&model.parameters()};
  if (state.range(1) == adapters) {
    model.attach(&lora);
    stores.push_back(&lora.parameters());
  }
  Tuner tuner(stores, {.schedule = {.steps = 1 << 30}});
  const Batch batch = collate(examples(8, config.vocab_size), 0);
  PassBuffers buffers;
  for (auto _ : state)
    tuner.step([&] {
      model.forward(buffers.saved, batch.inputs);
      const double loss = model.loss(buffers.saved, buffers.scratch, batch.targets, 1e-3F);
      model.backward(buffers.saved, buffers.scratch, batch.inputs);
      return loss;
    });
  const char* names[] = {"everything", "last block", "adapters of rank 8"};
  state.SetLabel(std::string(state.range(0) == 0 ? "story model, " : "GPT-2 124M, ") + names[state.range(1)]);
  state.counters["trained"] = static_cast<double>(tuner.trained_count());
  state.counters["tokens/s"] =
      Counter(static_cast<double>(batch.inputs.numel()), Counter::kIsIterationInvariantRate);
}
BENCHMARK(train)
    ->ArgsProduct({{0, 1}, {everything, last_block, adapters}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

/// Forward and backward of 32 examples, in rows of their longest or packed into rows of 1,024.
void rows(State& state) {
  GptConfig config = size(0);
  config.context = 1024;
  GptStage model(config);
  model.initialize(1);
  const std::vector<Example> all = examples(32, config.vocab_size);
  std::size_t first = 0;
  PackedBatch packed;
  if (state.range(0) == 1)
    packed = pack(all, first, 32, 1024, 0);
  else
    packed.batch = collate(all, 0);
  const ForwardOptions options{.documents = packed.documents};
  PassBuffers buffers;
  for (auto _ : state) {
    model.forward(buffers.saved, packed.batch.inputs, options);
    model.loss(buffers.saved, buffers.scratch, packed.batch.targets, 1e-3F);
    model.backward(buffers.saved, buffers.scratch, packed.batch.inputs, options);
  }
  state.SetLabel(state.range(0) == 1 ? "packed" : "padded");
  state.counters["examples/s"] = Counter(32, Counter::kIsIterationInvariantRate);
  state.counters["positions"] = static_cast<double>(packed.batch.inputs.numel());
}
BENCHMARK(rows)->Arg(0)->Arg(1)->UseRealTime()->Unit(benchmark::kMillisecond);

/// DPO's step on 8 pairs: the forward pass, the head twice, one backward pass.
void preferences(State& state) {
  const GptConfig config = size(0);
  GptStage model(config);
  model.initialize(1);
  const Batch batch = collate(examples(16, config.vocab_size), 0);
  PassBuffers buffers;
  const std::vector<double> reference = answer_log_probabilities(model, buffers, batch);
  for (auto _ : state) benchmark::DoNotOptimize(dpo_gradients(model, buffers, batch, reference, 0.1).loss);
  state.counters["pairs/s"] = Counter(8, Counter::kIsIterationInvariantRate);
}
BENCHMARK(preferences)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
