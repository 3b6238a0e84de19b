// `train`: the loop around the training step, with everything that a run leaves behind.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "ch05_pretraining/pretraining.h"
#include "common/cli/format.h"
#include "common/cli/interrupt.h"
#include "common/cli/metrics.h"
#include "common/cli/progress.h"
#include "common/core/file.h"
#include "common/generation/generate.h"
#include "common/model/huggingface.h"
#include "common/text/story.h"
#include "common/training/peak.h"

namespace llm::ch05 {

namespace {

GptStage make_model(const TrainCommand& command, std::int64_t vocabulary) {
  if (!command.init_from.empty()) {
    const GptStage model = load_huggingface(command.init_from);
    check(model.config().vocab_size == vocabulary,
          "{} has a vocabulary of {}, the tokenizer of {} has {}; they must be the same",
          command.init_from.string(), model.config().vocab_size, command.data.string(), vocabulary);
    return model.placed(command.placement);
  }
  GptStage model(config_of(command, vocabulary));
  model.initialize(command.trainer.seed);
  return command.placement.device == Device::cpu ? std::move(model) : model.placed(command.placement);
}

/// Keeps the records of steps up to `step`: what a killed run wrote beyond its last checkpoint comes again.
void cut_metrics(const fs::path& path, std::int64_t step) {
  if (!fs::exists(path)) return;
  const std::string text = read_file(path);
  std::string kept;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // a line that was being written
    const std::string line = text.substr(begin, end - begin);
    const auto j = nlohmann::json::parse(line, nullptr, false);
    if (j.is_object() && j.contains("step") && j["step"].is_number() && !j.contains("whole") &&
        j["step"].get<double>() <= static_cast<double>(step))
      kept += line + "\n";
    begin = end + 1;
  }
  write_file(path, kept);
}

/// A short text of the model's own, with its verdict where the data are stories.
void show_sample(const GptStage& model, const TrainingData& folder, bool stories, std::uint64_t seed,
                 Progress& progress) {
  GenerateOptions options;
  options.sampling.temperature = 0.8F;
  options.sampling.seed = seed;
  options.stop_token = folder.end_of_text;
  options.max_new_tokens = std::min<std::int64_t>(model.config().context - 1, 200);
  const auto prompt = default_prompt(*folder.tokenizer);
  const std::string text = folder.tokenizer->decode(generate(model, prompt, options).tokens);
  progress.say("  sample: " + shorten(text, 400));
  if (!stories) return;
  const Verdict verdict = judge_story(text);
  progress.say(verdict.valid ? "  verdict: a valid story" : "  verdict: " + verdict.reason);
}

void save_model(const GptStage& model, const TrainingData& folder, const fs::path& out) {
  folder.tokenizer->save(out);
  if (model.placement().device == Device::cpu)
    save_huggingface(model, out);
  else
    save_huggingface(model.placed({}), out);
}

void describe(const GptStage& model, const TrainCommand& command, const Trainer& trainer,
              const TrainingData& folder, double peak) {
  const GptConfig& c = model.config();
  const TrainerOptions& o = trainer.options();
  fmt::print(
      "Model: {} layers, {} heads, {} channels, context {}, vocabulary {}: {} parameters, {} with gradients "
      "and moments\n",
      c.layers, c.heads, c.channels, c.context, with_commas(c.vocab_size), with_commas(parameter_count(c)),
      byte_text((model.placement().dtype == DType::bf16 ? 18.0 : 16.0) *
                static_cast<double>(model.parameters().count())));
  fmt::print("Data: {}, {} training tokens, {} validation tokens; {}\n", command.data.string(),
             with_commas(folder.train.size()), with_commas(folder.val.size()),
             o.samples == SampleKind::documents ? "a document per row" : "windows at random offsets");
  fmt::print("Run: {} steps of {} rows{}, {:.2f} epochs; learning rate {:g} to {:g}, warm-up {}\n",
             with_commas(o.schedule.steps), o.batch,
             o.accumulate > 1 ? fmt::format(" x {} micro-batches", o.accumulate) : "",
             static_cast<double>(o.schedule.steps) / trainer.sampler().steps_per_epoch(), o.schedule.peak,
             o.schedule.floor, o.schedule.warmup);
  fmt::print("Peak of the matrix product, measured now: {:.0f} GFLOP/s\n", peak * 1e-9);
}

}  // namespace

void train(const TrainCommand& asked) {
  TrainCommand command = asked;
  const TrainingData folder = open_training_data(command.data);
  GptStage model = make_model(command, folder.tokenizer->vocab_size());
  const std::int64_t context = model.config().context;

  TrainerOptions& options = command.trainer;
  options.samples = choose_samples(command.samples, folder, context);
  const std::int64_t steps = options.schedule.steps;
  const auto every = [&](std::int64_t given, std::int64_t times) {
    return given > 0 ? given : std::max<std::int64_t>(1, steps / times);
  };
  const std::int64_t eval_every = every(command.eval_every, 10), save_every = every(command.save_every, 10),
                     sample_every = every(command.sample_every, 5),
                     log_every = every(command.log_every, 2000);

  Trainer trainer(model, folder.train.tokens(), folder.end_of_text.value_or(0), options);
  const Validator validator(folder, options.samples, context, std::max<std::int64_t>(options.batch, 16));
  const fs::path checkpoint = command.out / "checkpoint" / "training.ckpt";
  const std::map<std::string, std::string> identity = {{"data", folder.identity()}};
  const fs::path metrics_path = command.out / "metrics.jsonl";

  const double peak = measure_peak_flops(command.placement);
  describe(model, command, trainer, folder, peak);
  bool resumed = false;
  if (command.resume) {
    resumed = fs::exists(checkpoint);
    if (resumed) {
      trainer.resume(checkpoint, identity);
      cut_metrics(metrics_path, trainer.steps_done());
    }
    fmt::print("{}\n", resumed ? fmt::format("Going on after step {} of {}", trainer.steps_done(),
                                             checkpoint.string())
                               : fmt::format("{} is not there yet: starting anew", checkpoint.string()));
  }
  MetricsWriter metrics(metrics_path, resumed);
  MetricsWriter copy = command.metrics.empty() ? MetricsWriter() : MetricsWriter(command.metrics, resumed);
  const auto record = [&](const MetricRecord& r) {
    metrics.write(r);
    copy.write(r);
  };

  const InterruptGuard guard;
  Progress progress("training", steps, "steps");
  progress.start_at(trainer.steps_done());
  const auto validate_now = [&](std::int64_t step) {
    const Validation v = validator.evaluate(model, command.eval_batches);
    MetricRecord r = {{"step", step}, {"val_loss", v.nats_per_token}};
    if (v.floor) r.emplace_back("floor", *v.floor);
    record(r);
    progress.say(
        fmt::format("step {:>6}  validation {:.4f}{}", step, v.nats_per_token,
                    v.floor ? fmt::format(", {:.4f} above the floor", v.nats_per_token - *v.floor) : ""));
  };
  if (trainer.steps_done() == 0) validate_now(0);

  double loss_sum = 0, seconds = 0, training_seconds = 0;
  std::int64_t tokens = 0, training_tokens = 0, records = 0;
  const std::int64_t steps_here = steps - trainer.steps_done();
  while (trainer.steps_done() < steps) {
    const StepReport r = trainer.step();
    loss_sum += r.loss;
    seconds += r.seconds();
    training_seconds += r.seconds();
    tokens += r.tokens;
    training_tokens += r.tokens;
    ++records;
    const double rate = static_cast<double>(tokens) / seconds;
    if (r.step % log_every == 0 || r.step == steps) {
      const std::int64_t row = r.tokens / (options.batch * options.accumulate);
      const double flops = training_flops_per_token(model.config(), row) * rate;
      record({{"step", r.step},
              {"loss", loss_sum / static_cast<double>(records)},
              {"lr", r.learning_rate},
              {"grad_norm", r.gradient_norm},
              {"tokens_per_s", rate},
              {"mfu", flops / peak},
              {"seconds", progress.seconds()}});
      progress.update(r.step, fmt::format("loss {:.4f}, {} tokens/s", loss_sum / static_cast<double>(records),
                                          short_count(rate)));
      loss_sum = seconds = 0;
      tokens = records = 0;
    } else {
      progress.update(r.step);
    }
    if (r.step % eval_every == 0 && r.step < steps) validate_now(r.step);
    if (r.step % sample_every == 0 && r.step < steps)
      show_sample(model, folder, validator.stories(), options.seed + static_cast<std::uint64_t>(r.step),
                  progress);
    const bool stop = interrupted && r.step < steps;
    if (r.step % save_every == 0 || r.step == steps || stop) trainer.save(checkpoint, identity);
    check(!stop, "stopped after step {} of {}; its checkpoint is saved, go on with --resume", r.step, steps);
  }
  progress.finish();
  const std::int64_t row_tokens =
      training_tokens / std::max<std::int64_t>(1, options.batch * options.accumulate * steps_here);
  if (training_tokens > 0)
    fmt::print("Trained on {} tokens in {}: {} tokens/s, {:.0f}% of the peak; activations {}\n",
               with_commas(training_tokens), duration_text(training_seconds),
               short_count(static_cast<double>(training_tokens) / training_seconds),
               100 * training_flops_per_token(model.config(), row_tokens) *
                   static_cast<double>(training_tokens) / training_seconds / peak,
               byte_text(static_cast<double>(trainer.activation_bytes())));

  if (command.final_eval) {
    const Validation v = report_validation(model, folder, validator, command.metrics);
    MetricRecord last = {{"step", steps}, {"val_loss", v.nats_per_token}, {"whole", true}};
    if (v.floor) last.emplace_back("floor", *v.floor);
    metrics.write(last);
  }
  save_model(model, folder, command.out);
  draw_loss_curve(command.out);
  fmt::print("Wrote {} (the model, its tokenizer, metrics.jsonl, loss.svg, checkpoint)\n",
             command.out.string());
}

}  // namespace llm::ch05
