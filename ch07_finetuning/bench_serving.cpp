// Tokens per second when 1, 2, 4 or 8 sequences share the steps of one model: `./book bench ch07`.
//
// Two models: the one that chapter 5 trains (random weights do as well), whose weights lie in the processor's
// cache, and GPT-2 124M, whose 500 MB come from memory for every step.
#include <benchmark/benchmark.h>

#include <vector>

#include "common/generation/batch_engine.h"

namespace {

using namespace llm;

const GptStage& story_model() {
  static const GptStage model = [] {
    GptConfig config;
    config.vocab_size = 1024;
    config.context = 160;
    config.channels = 128;
    config.heads = 4;
    config.layers = 4;
    GptStage made(config);
    made.initialize(1);
    return made;
  }();
  return model;
}
const GptStage& gpt2() {
  static const GptStage model = [] {
    GptStage made(gpt2_config("gpt2-124m"));
    made.initialize(1);
    return made;
  }();
  return model;
}

/// Each stream has a prompt of 16 tokens and gets `tokens` more, greedily.
void streams(benchmark::State& state, const GptStage& model, std::int64_t tokens) {
  const std::int64_t count = state.range(0);
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.max_new_tokens = tokens;
  std::int64_t drawn = 0;
  BatchEngine engine(model, count);
  for ([[maybe_unused]] auto _ : state) {
    for (std::int64_t i = 0; i < count; ++i)
      engine.join(std::vector<std::int32_t>(16, static_cast<std::int32_t>(i + 1)), options);
    while (engine.running() > 0) drawn += static_cast<std::int64_t>(engine.step().size());
  }
  state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(drawn), benchmark::Counter::kIsRate);
}

void story_streams(benchmark::State& state) {
  streams(state, story_model(), 128);
}
void gpt2_124m_streams(benchmark::State& state) {
  streams(state, gpt2(), 16);
}

BENCHMARK(story_streams)->RangeMultiplier(2)->Range(1, 16)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(gpt2_124m_streams)->RangeMultiplier(2)->Range(1, 8)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
