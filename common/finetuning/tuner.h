// The training step of fine-tuning: like chapter 5's, but over several stores of parameters (a model, its
// adapters, a new head), of which parts may be frozen, and with any loss.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/model/gpt.h"
#include "common/training/adamw.h"
#include "common/training/schedule.h"

namespace llm {

struct TunerOptions {
  Schedule schedule = {};
  AdamWOptions adamw = {};
  double clip = 1;  // largest norm of the gradients of all stores together; 0: no clipping
};

struct TunerReport {
  std::int64_t step = 0;  // from 1
  double loss = 0, learning_rate = 0, gradient_norm = 0;
};

class Tuner {
 public:
  /// Stores without a trained parameter are left out. They must outlive the tuner. Error if nothing trains.
  Tuner(const std::vector<ParameterStore*>& stores, const TunerOptions& options);

  std::int64_t steps_done() const { return steps_; }
  std::int64_t steps_total() const { return options_.schedule.steps; }
  /// Parameters that train.
  std::int64_t trained_count() const;

  /// The next step: `compute` leaves gradients in the stores, which are zero before, and returns the loss.
  /// Error, parameters untouched, if loss or gradients are not finite.
  TunerReport step(const std::function<double()>& compute);

  /// The state as a checkpoint of chapter 5; `settings` are what decides the run's numbers.
  void save(const std::filesystem::path& path, const std::map<std::string, std::string>& settings) const;
  /// Goes on from it. Error, and nothing changed, if it is damaged or of other settings.
  void resume(const std::filesystem::path& path, const std::map<std::string, std::string>& settings);

 private:
  std::vector<ParameterStore*> stores_;
  TunerOptions options_;
  std::vector<AdamW> optimizers_;
  std::int64_t steps_ = 0;
};

/// Which examples a step takes: `count` of n, in an order drawn anew for each epoch; the examples of step s
/// are a function of (seed, s).
std::vector<std::size_t> examples_of_step(std::size_t n, std::int64_t count, std::uint64_t seed,
                                          std::int64_t step);

}  // namespace llm
