// The options of `train`, which chapters 5 and 6 share. Include this in main.cpp only, as program.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/cli/program.h"

namespace llm {

/// What was asked for, to be completed after parsing.
struct TrainingOptions {
  CLI::Option* min_lr = nullptr;
  CLI::Option* warmup = nullptr;

  /// Defaults that depend on other options: a floor of a tenth, a warm-up of a tenth of a short run.
  template <typename Command>
  void complete(Command& command) const {
    auto& schedule = command.trainer.schedule;
    if (min_lr->empty()) schedule.floor = schedule.peak / 10;
    if (warmup->empty()) schedule.warmup = std::min<std::int64_t>(schedule.warmup, schedule.steps / 10);
  }
};

/// Adds the options to `train`, which has a `Command` with the fields of ch05_pretraining's TrainCommand.
template <typename Command>
TrainingOptions add_training_options(CLI::App* train, Command& t) {
  TrainingOptions result;
  auto& o = t.trainer;
  train->add_option("--data", t.data, "folder with tokenizer, train.bin and val.bin (ch02_tokenizer)")
      ->required();
  train->add_option("--out", t.out, "folder for the model, its metrics and checkpoints")->required();
  train->add_option("--init-from", t.init_from, "start from this model folder's weights");
  train->add_option("--model", t.model_name, "a published size (gpt2-124m ...) instead of the sizes below");
  train->add_option("--layers", t.layers)->check(between(1, 1000))->capture_default_str();
  train->add_option("--heads", t.heads)->check(between(1, 1024))->capture_default_str();
  train->add_option("--channels", t.channels, "a multiple of the heads")
      ->check(between(1, 65536))
      ->capture_default_str();
  train->add_option("--context", t.context, "longest sequence in tokens")
      ->check(between(1, 1 << 20))
      ->capture_default_str();
  train->add_option("--dropout", t.dropout)->check(between(0, 0.99))->capture_default_str();
  train->add_option("--init-std", t.init_std, "standard deviation of the first weights; GPT-2: 0.02")
      ->check(between(1e-6, 1))
      ->capture_default_str();
  train->add_flag("!--no-bias", t.bias, "no biases in linear layers and norms");
  train->add_option("--samples", t.samples, "rows: windows, documents, or auto")->capture_default_str();
  train->add_option("--batch", o.batch, "rows of a batch")->check(between(1, 65536))->capture_default_str();
  train->add_option("--accumulate", o.accumulate, "batches per step")
      ->check(between(1, 65536))
      ->capture_default_str();
  train->add_option("--steps", o.schedule.steps)->check(between(1, 1e9))->capture_default_str();
  train->add_option("--lr", o.schedule.peak, "largest learning rate")
      ->check(above(0, 10))
      ->capture_default_str();
  result.min_lr =
      train->add_option("--min-lr", o.schedule.floor, "smallest learning rate; default: --lr / 10")
          ->check(between(0, 10));
  result.warmup = train->add_option("--warmup", o.schedule.warmup, "steps")
                      ->check(between(0, 1e9))
                      ->capture_default_str();
  train->add_option("--weight-decay", o.adamw.weight_decay)->check(between(0, 10))->capture_default_str();
  train->add_option("--beta1", o.adamw.beta1)->check(between(0, 0.999999))->capture_default_str();
  train->add_option("--beta2", o.adamw.beta2)->check(between(0, 0.999999))->capture_default_str();
  train->add_option("--clip", o.clip, "largest norm of the gradients; 0: none")
      ->check(between(0, 1e9))
      ->capture_default_str();
  train->add_option("--eval-every", t.eval_every, "steps; 0: ten times")
      ->check(between(0, 1e9))
      ->capture_default_str();
  train->add_option("--eval-batches", t.eval_batches, "batches per evaluation while training; 0: everything")
      ->check(between(0, 1e9))
      ->capture_default_str();
  train->add_option("--save-every", t.save_every, "steps between checkpoints; 0: ten times")
      ->check(between(0, 1e9))
      ->capture_default_str();
  train->add_option("--log-every", t.log_every, "steps between records; 0: at most 2,000 records")
      ->check(between(0, 1e9))
      ->capture_default_str();
  train->add_flag("--resume", t.resume, "go on from the checkpoint in --out, if there is one");
  return result;
}

}  // namespace llm
