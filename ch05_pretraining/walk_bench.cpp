// `eval` and `bench`: a finished model on validation text, and the time of a training step.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "ch05_pretraining/pretraining.h"
#include "common/cli/format.h"
#include "common/cli/metrics.h"
#include "common/cli/table.h"
#include "common/core/device_memory.h"
#include "common/core/philox.h"
#include "common/core/threads.h"
#include "common/model/huggingface.h"
#include "common/training/peak.h"

namespace llm::ch05 {

namespace {

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

void evaluate(const EvalCommand& command) {
  GptStage model = load_huggingface(command.model).placed(command.placement);
  const TrainingData folder = open_training_data(command.data);
  check(model.config().vocab_size == folder.tokenizer->vocab_size(),
        "{} has a vocabulary of {}, the tokenizer of {} has {}; they must be the same",
        command.model.string(), model.config().vocab_size, command.data.string(),
        folder.tokenizer->vocab_size());
  SampleKind kind = SampleKind::windows;
  if (folder.end_of_text) {
    const auto documents = document_ranges(folder.val.tokens(), *folder.end_of_text);
    const bool fit = std::all_of(documents.begin(), documents.end(),
                                 [&](const TokenRange& d) { return d.size() < model.config().context; });
    if (fit && documents.size() >= 100) kind = SampleKind::documents;
  }
  const Validator validator(folder, kind, model.config().context, command.batch);
  report_validation(model, folder, validator, command.metrics);
  if (validator.stories() && command.samples > 0)
    report_samples(model, *folder.tokenizer, command.samples, command.temperature, command.seed,
                   command.metrics);
}

void bench(const BenchCommand& command) {
  GptConfig config = gpt2_config(command.model_name);
  if (command.layers > 0) config.layers = command.layers;
  if (command.heads > 0) config.heads = command.heads;
  if (command.channels > 0) config.channels = command.channels;
  if (command.vocabulary > 0) config.vocab_size = command.vocabulary;
  if (command.tokens > config.context)
    fail_usage("the model's context is {}, so {} tokens do not fit", config.context, command.tokens);
  config.context = std::max<std::int64_t>(config.context, command.tokens);
  validate(config);
  GptStage initial(config);
  initial.initialize(command.seed);
  GptStage model =
      command.placement.device == Device::cpu ? std::move(initial) : initial.placed(command.placement);

  // Random tokens: the work does not depend on them. The trainer samples windows of the whole context, so the
  // bench runs the parts of a step itself.
  const Philox random{command.seed, stream_id("bench")};
  const Shape shape{command.batch, command.tokens};
  Tensor inputs(shape, DType::i32), targets(shape, DType::i32);
  for (std::int64_t i = 0; i < inputs.numel(); ++i) {
    const auto token = [&](std::int64_t index) {
      return static_cast<std::int32_t>(random.word(static_cast<std::uint64_t>(index)) %
                                       static_cast<std::uint64_t>(config.vocab_size));
    };
    inputs.data<std::int32_t>()[i] = token(i);
    targets.data<std::int32_t>()[i] = token(i + 1);
  }
  AdamW optimizer(model.parameters(), {.beta1 = 0.9F, .beta2 = 0.95F, .eps = 1e-8F, .weight_decay = 0.1F});
  StageActivations saved;
  StageScratch scratch;
  const double peak = measure_peak_flops(command.placement);

  std::vector<double> zero, forward, loss, backward, adamw, whole;
  constexpr std::int64_t kWarmUp = 2;  // the first steps map the memory
  for (std::int64_t step = 0; step < command.steps + kWarmUp; ++step) {
    using Clock = std::chrono::steady_clock;
    auto last = Clock::now();
    const auto lap = [&] {
      if (command.placement.device == Device::cuda) device_synchronize();
      const auto now = Clock::now();
      const double ms = 1e3 * std::chrono::duration<double>(now - last).count();
      last = now;
      return ms;
    };
    model.parameters().zero_gradients();
    const double t0 = lap();
    model.forward(saved, inputs);
    const double t1 = lap();
    model.loss(saved, scratch, targets, 1.0F / static_cast<float>(inputs.numel()));
    const double t2 = lap();
    model.backward(saved, scratch, inputs);
    const double t3 = lap();
    optimizer.step(1e-4);
    const double t4 = lap();
    if (step < kWarmUp) continue;
    zero.push_back(t0);
    forward.push_back(t1);
    loss.push_back(t2);
    backward.push_back(t3);
    adamw.push_back(t4);
    whole.push_back(t0 + t1 + t2 + t3 + t4);
  }

  const double ms = median(whole);
  const auto tokens = static_cast<double>(command.batch * command.tokens);
  const double flops = training_flops_per_token(config, command.tokens) * tokens;
  const auto parameters = static_cast<double>(model.parameters().count());
  const double activations = static_cast<double>(saved.bytes() + scratch.bytes());
  fmt::print("{}: {} parameters, {} rows of {} tokens, {}, {}\n", command.model_name,
             with_commas(model.parameters().count()), command.batch, command.tokens,
             command.placement.device == Device::cuda ? std::string("cuda")
                                                      : fmt::format("{} threads", thread_count()),
             name(command.placement.dtype));
  Table table({"part of the step", "ms (median)", "share"});
  const std::vector<std::pair<std::string, double>> parts = {
      {"zero the gradients", median(zero)},
      {"forward", median(forward)},
      {"head and loss, forward and backward", median(loss)},
      {"backward", median(backward)},
      {"AdamW", median(adamw)}};
  for (const auto& [name, value] : parts)
    table.add({name, fmt::format("{:.1f}", value), fmt::format("{:.0f}%", 100 * value / ms)});
  table.add({"the whole step", fmt::format("{:.1f}", ms), "100%"});
  table.print();
  fmt::print(
      "{:.0f} tokens/s, {:.0f} GFLOP/s in the products, {:.0f}% of the measured peak ({:.0f} GFLOP/s)\n",
      1e3 * tokens / ms, flops / ms * 1e-6, 100 * flops / (ms * 1e-3) / peak, peak * 1e-9);
  const bool rounded = command.placement.dtype == DType::bf16;
  fmt::print(
      "Memory: {} = {} bytes per parameter (value, gradient, two moments{}); activations and scratch {}\n",
      byte_text((rounded ? 18 : 16) * parameters), rounded ? 18 : 16, rounded ? ", bf16 copy" : "",
      byte_text(activations));
  if (!command.metrics.empty())
    MetricsWriter(command.metrics, true)
        .write({{"model", command.model_name},
                {"batch", command.batch},
                {"tokens", command.tokens},
                {"threads", thread_count()},
                {"device", name(command.placement.device)},
                {"dtype", name(command.placement.dtype)},
                {"zero_ms", median(zero)},
                {"forward_ms", median(forward)},
                {"loss_ms", median(loss)},
                {"backward_ms", median(backward)},
                {"adamw_ms", median(adamw)},
                {"step_ms", ms},
                {"tokens_per_s", 1e3 * tokens / ms},
                {"gflops", flops / ms * 1e-6},
                {"mfu", flops / (ms * 1e-3) / peak},
                {"activation_bytes", activations}});
}

}  // namespace llm::ch05
