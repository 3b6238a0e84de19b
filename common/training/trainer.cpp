// The training step. See trainer.h.
#include "common/training/trainer.h"

#include <chrono>
#include <cmath>

#include "common/core/error.h"
#include "common/training/checkpoint.h"

namespace llm {

namespace {

/// Seconds since it was last asked.
class Stopwatch {
 public:
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    return seconds;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

std::vector<NamedTensor> state_tensors(const GptStage& model, const AdamW& optimizer) {
  return {{"values", model.parameters().values()},
          {"first_moment", optimizer.first_moment},
          {"second_moment", optimizer.second_moment}};
}

}  // namespace

Trainer::Trainer(GptStage& model, const TokenView& tokens, std::int32_t separator,
                 const TrainerOptions& options)
    : model_(model),
      options_(options),
      sampler_(tokens, options.samples, separator, model.config().context, options.batch, options.accumulate,
               options.seed),
      optimizer_(model.parameters(), options.adamw) {
  validate(options.schedule);
  if (!(options.clip >= 0))
    fail_usage("the clipping norm must be 0 (none) or positive, got {}", options.clip);
  check(model.has_embedding() && model.has_head(), "the trainer needs a whole model, not a stage of one");
}

StepReport Trainer::step() {
  const std::int64_t step = steps_done();
  StepReport report;
  report.step = step + 1;
  report.learning_rate = learning_rate(options_.schedule, step);
  report.tokens = sampler_.target_count(step);
  const float scale = 1.0F / static_cast<float>(report.tokens);  // the gradient is that of the mean loss

  Stopwatch watch;
  model_.parameters().zero_gradients();
  double sum = 0;
  for (std::int64_t micro = 0; micro < options_.accumulate; ++micro) {
    const Batch batch = sampler_.get(step, micro);
    ForwardOptions forward;
    forward.training = true;
    forward.seed = options_.seed;
    forward.step = static_cast<std::uint64_t>(step);
    forward.first_row = static_cast<std::uint64_t>(micro * options_.batch);
    report.prepare_s += watch.lap();
    const Tensor inputs = batch.inputs.to(model_.placement().device);
    model_.forward(saved_, inputs, forward);
    report.forward_s += watch.lap();
    sum += model_.loss(saved_, scratch_, batch.targets, scale);
    report.loss_s += watch.lap();
    model_.backward(saved_, scratch_, inputs, forward);
    report.backward_s += watch.lap();
  }
  report.loss = sum / static_cast<double>(report.tokens);
  if (options_.clip > 0) report.gradient_norm = gradient_norm(model_.parameters());
  check(std::isfinite(report.loss) && std::isfinite(report.gradient_norm),
        "training diverged: at step {} the loss is {} and the norm of its gradient {}; a smaller learning "
        "rate or a "
        "longer warm-up may help",
        report.step, report.loss, report.gradient_norm);
  optimizer_.step(report.learning_rate, clip_scale(report.gradient_norm, options_.clip));
  report.update_s = watch.lap();
  return report;
}

std::map<std::string, std::string> run_settings(const GptConfig& c, const TrainerOptions& o, DType dtype) {
  const auto text = [](auto value) { return fmt::format("{}", value); };
  return {
      {"vocabulary", text(c.vocab_size)},
      {"context", text(c.context)},
      {"channels", text(c.channels)},
      {"layers", text(c.layers)},
      {"heads", text(c.heads)},
      {"mlp", text(c.mlp_width())},
      {"dropout", text(c.dropout)},
      {"bias", text(c.bias)},
      {"qkv bias", text(c.qkv_bias)},
      {"tied head", text(c.tied_head)},
      {"steps", text(o.schedule.steps)},
      {"learning rate", text(o.schedule.peak)},
      {"smallest learning rate", text(o.schedule.floor)},
      {"warm-up", text(o.schedule.warmup)},
      {"beta1", text(o.adamw.beta1)},
      {"beta2", text(o.adamw.beta2)},
      {"eps", text(o.adamw.eps)},
      {"weight decay", text(o.adamw.weight_decay)},
      {"clip", text(o.clip)},
      {"batch", text(o.batch)},
      {"accumulate", text(o.accumulate)},
      {"seed", text(o.seed)},
      {"dtype", std::string(name(dtype))},
      {"samples", o.samples == SampleKind::windows ? "windows" : "documents"},
  };
}

std::map<std::string, std::string> Trainer::settings(const std::map<std::string, std::string>& extra) const {
  std::map<std::string, std::string> all = run_settings(model_.config(), options_, model_.placement().dtype);
  all.insert(extra.begin(), extra.end());
  return all;
}

void Trainer::save(const std::filesystem::path& path, const std::map<std::string, std::string>& extra) const {
  save_checkpoint(path, {steps_done(), settings(extra)}, state_tensors(model_, optimizer_));
}

void Trainer::resume(const std::filesystem::path& path, const std::map<std::string, std::string>& extra) {
  const CheckpointInfo info = read_checkpoint_info(path);
  check_same_settings(path, info.settings, settings(extra));
  check(info.step >= 0 && info.step <= steps_total(), "{} says {} steps are done, of {}", path.string(),
        info.step, steps_total());
  load_checkpoint(path, state_tensors(model_, optimizer_));
  model_.parameters().round_values();
  optimizer_.steps_taken = info.step;
}

}  // namespace llm
