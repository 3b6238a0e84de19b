// The step of fine-tuning. See tuner.h.
#include "common/finetuning/tuner.h"

#include <cmath>

#include "common/core/error.h"
#include "common/text/batches.h"
#include "common/training/checkpoint.h"

namespace llm {

Tuner::Tuner(const std::vector<ParameterStore*>& stores, const TunerOptions& options) : options_(options) {
  validate(options.schedule);
  validate(options.adamw);
  if (!(options.clip >= 0))
    fail_usage("the clipping norm must be 0 (none) or positive, got {}", options.clip);
  for (ParameterStore* store : stores)
    if (store->trained_count() > 0) {
      stores_.push_back(store);
      optimizers_.emplace_back(*store, options.adamw);
    }
  check(!stores_.empty(), "nothing trains: all parameters are frozen");
}

std::int64_t Tuner::trained_count() const {
  std::int64_t count = 0;
  for (const ParameterStore* store : stores_) count += store->trained_count();
  return count;
}

TunerReport Tuner::step(const std::function<double()>& compute) {
  TunerReport report;
  report.step = steps_ + 1;
  report.learning_rate = learning_rate(options_.schedule, steps_);
  for (const ParameterStore* store : stores_) store->zero_gradients();
  report.loss = compute();
  double squares = 0;
  for (const ParameterStore* store : stores_) {
    const double norm = gradient_norm(*store);
    squares += norm * norm;
  }
  report.gradient_norm = std::sqrt(squares);
  check(
      std::isfinite(report.loss) && std::isfinite(report.gradient_norm),
      "training diverged: at step {} the loss is {} and the norm of its gradient {}; a smaller learning rate "
      "may help",
      report.step, report.loss, report.gradient_norm);
  const double scale = clip_scale(report.gradient_norm, options_.clip);
  for (AdamW& optimizer : optimizers_) optimizer.step(report.learning_rate, scale);
  ++steps_;
  return report;
}

namespace {

std::vector<NamedTensor> state(const std::vector<ParameterStore*>& stores,
                               const std::vector<AdamW>& optimizers) {
  std::vector<NamedTensor> all;
  for (std::size_t i = 0; i < stores.size(); ++i) {
    const std::string name = fmt::format("{}.", i);
    all.push_back({name + "values", stores[i]->values()});
    all.push_back({name + "first_moment", optimizers[i].first_moment});
    all.push_back({name + "second_moment", optimizers[i].second_moment});
  }
  return all;
}

}  // namespace

void Tuner::save(const std::filesystem::path& path,
                 const std::map<std::string, std::string>& settings) const {
  save_checkpoint(path, {steps_, settings}, state(stores_, optimizers_));
}

void Tuner::resume(const std::filesystem::path& path, const std::map<std::string, std::string>& settings) {
  const CheckpointInfo info = read_checkpoint_info(path);
  check_same_settings(path, info.settings, settings);
  check(info.step >= 0 && info.step <= steps_total(), "{} says {} steps are done, of {}", path.string(),
        info.step, steps_total());
  load_checkpoint(path, state(stores_, optimizers_));
  for (const ParameterStore* store : stores_) store->round_values();
  for (AdamW& optimizer : optimizers_) optimizer.steps_taken = info.step;
  steps_ = info.step;
}

std::vector<std::size_t> examples_of_step(std::size_t n, std::int64_t count, std::uint64_t seed,
                                          std::int64_t step) {
  check(n > 0 && count > 0 && count <= static_cast<std::int64_t>(n),
        "a step of {} examples cannot be drawn from {}", count, n);
  const std::int64_t steps_per_epoch = static_cast<std::int64_t>(n) / count;
  const auto order = shuffled_order(static_cast<std::int64_t>(n), seed, step / steps_per_epoch);
  std::vector<std::size_t> chosen;
  for (std::int64_t i = 0; i < count; ++i)
    chosen.push_back(
        static_cast<std::size_t>(order[static_cast<std::size_t>(step % steps_per_epoch * count + i)]));
  return chosen;
}

}  // namespace llm
