// How fast ranks are on one machine: what they say to each other, and a training step of several ranks beside
// the same step of one.
//
//   ch06_multi_gpu_bench --benchmark_filter=scaling
//
// Collectives give nccl-tests' bus bandwidth: the bytes that a ring would send over each link, per second, so
// that the figure does not depend on the number of ranks.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <optional>
#include <vector>

#include "common/core/philox.h"
#include "common/core/threads.h"
#include "common/parallel/parallel_trainer.h"
#include "common/parallel/threads_communicator.h"

namespace {

using namespace llm;
using benchmark::Counter;
using benchmark::State;

double seconds_of(const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Rank 0 asks the benchmark whether to go on, and tells the others.
bool keep_running(State& state, Communicator& world) {
  const Tensor go({1}, DType::i32);
  if (world.rank() == 0) go.data<std::int32_t>()[0] = state.KeepRunning();
  world.broadcast(go, 0).wait();
  return go.data<std::int32_t>()[0] != 0;
}

// ---- collectives -------------------------------------------------------------------------------

using Collective = void (*)(Communicator& world, const Tensor& all, const Tensor& part);

/// range(0) ranks are threads; the larger of the two tensors has range(1) elements of f32. A ring moves
/// `times` (n-1)/n of it.
void collective(State& state, Collective run, double times) {
  const auto ranks = static_cast<int>(state.range(0));
  const std::int64_t count = state.range(1) / ranks * ranks;
  constexpr int kRepeats = 5;
  run_ranks(ranks, {}, [&](Communicator& world) {
    const Tensor all({count}), part({count / ranks});
    while (keep_running(state, world)) {
      const double seconds = seconds_of([&] {
        for (int i = 0; i < kRepeats; ++i) run(world, all, part);
      });
      if (world.rank() == 0) state.SetIterationTime(seconds / kRepeats);
    }
  });
  const double moved = times * (ranks - 1) / ranks * static_cast<double>(count) * sizeof(float);
  state.counters["bus GB/s"] = Counter(1e-9 * moved, Counter::kIsIterationInvariantRate);
}

void all_reduce(Communicator& world, const Tensor& all, const Tensor&) {
  world.all_reduce(all).wait();
}
void reduce_scatter(Communicator& world, const Tensor& all, const Tensor& part) {
  world.reduce_scatter(part, all).wait();
}
void all_gather(Communicator& world, const Tensor& all, const Tensor& part) {
  world.all_gather(all, part).wait();
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"ranks", "count"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (const int ranks : {2, 4})
    for (const int log : {10, 16, 20, 24}) b->Args({ranks, std::int64_t{1} << log});
}
BENCHMARK_CAPTURE(collective, all_reduce, all_reduce, 2)->Apply(sizes);
BENCHMARK_CAPTURE(collective, reduce_scatter, reduce_scatter, 1)->Apply(sizes);
BENCHMARK_CAPTURE(collective, all_gather, all_gather, 1)->Apply(sizes);

// ---- strong scaling ----------------------------------------------------------------------------

double median(std::vector<double> x) {
  std::ranges::sort(x);
  return x[x.size() / 2];
}

/// One step of 8 x 256 tokens, alternately by one rank with n threads and by n data-parallel ranks of one
/// thread. The time is that of the n ranks; `ratio` is the median over the pairs of how much faster they are
/// than the one. range(0): n; range(1): the ZeRO stage.
void strong_scaling(State& state) {
  const auto ranks = static_cast<int>(state.range(0));
  constexpr std::int64_t kRows = 8;
  GptConfig config;
  config.vocab_size = 8192;
  config.layers = 6;
  config.heads = 6;
  config.channels = 384;
  config.context = 256;
  std::vector<std::uint16_t> tokens(1 << 20);
  const Philox random{1, stream_id("bench")};
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::uint16_t>(random.word(i) % static_cast<std::uint64_t>(config.vocab_size));
  const auto trainer_of = [&](Communicator& world, int zero) {
    TrainerOptions run;
    run.schedule = {.peak = 1e-4, .floor = 1e-4, .warmup = 0, .steps = 1 << 20};
    run.accumulate = world.size();
    run.batch = kRows / world.size();
    ParallelOptions options;
    options.layout.dp = world.size();
    options.zero = zero;
    auto trainer = std::make_unique<ParallelTrainer>(world, config, Placement{}, tokens, 0, run, options);
    trainer->initialize(1);
    trainer->step();
    return trainer;
  };
  std::vector<double> alone, together, ratios;
  run_ranks(ranks, {}, [&](Communicator& world) {
    const bool leads = world.rank() == 0;
    const auto self = make_self_communicator();
    const auto one = leads ? trainer_of(*self, 0) : nullptr;
    const auto many = trainer_of(world, static_cast<int>(state.range(1)));
    while (keep_running(state, world)) {
      double first = 0;
      if (leads) {  // the others wait, asleep
        set_thread_count(ranks);
        first = seconds_of([&] { one->step(); });
        set_thread_count(1);
      }
      world.barrier();
      const double second = seconds_of([&] { many->step(); });
      if (!leads) continue;
      state.SetIterationTime(second);
      alone.push_back(first);
      together.push_back(second);
      ratios.push_back(first / second);
    }
  });
  const auto step_tokens = static_cast<double>(kRows * config.context);
  state.counters["one rank tokens/s"] = step_tokens / median(alone);
  state.counters["ranks' tokens/s"] = step_tokens / median(together);
  state.counters["ratio"] = median(ratios);
}
BENCHMARK(strong_scaling)
    ->ArgNames({"ranks", "zero"})
    ->Args({2, 0})
    ->Args({2, 1})
    ->Args({2, 3})
    ->Iterations(9)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
