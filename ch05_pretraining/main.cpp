// Chapter 5: a GPT learns. Without a command: the walk, from stories to a story of the model's own.
#include "ch05_pretraining/pretraining.h"
#include "common/cli/program.h"
#include "common/cli/training_options.h"
#include "common/ops/ops.h"

int main(int argc, char** argv) {
  using namespace llm;
  CLI::App app{"Chapter 5: train a GPT, watch it learn, and read what it writes"};
  CommonOptions common;
  add_common_options(app, common);
  common.computes_with = describe_gemm;
  common.uses_device = true;

  DType dtype = DType::f32;
  const auto add_dtype = [&](CLI::App* command) {
    command
        ->add_option_function<std::string>(
            "--dtype", [&](const std::string& text) { dtype = parse_dtype(text); },
            "f32, or bf16 with --device cuda: activations in bf16, parameters and sums in f32")
        ->default_str("f32");
  };

  ch05::TrainCommand t;
  TrainerOptions& o = t.trainer;
  o.schedule.steps = 2000;
  o.schedule.warmup = 100;
  CLI::App* train = app.add_subcommand("train", "train a model on a folder of token shards");
  const TrainingOptions shared = add_training_options(train, t);
  train->add_option("--sample-every", t.sample_every, "steps between samples; 0: five times")
      ->check(between(0, 1e9))
      ->capture_default_str();
  train->add_flag("!--no-final-eval", t.final_eval,
                  "leave out the evaluation over all of the validation text at the end");
  add_dtype(train);

  ch05::EvalCommand e;
  CLI::App* eval =
      app.add_subcommand("eval", "loss over the validation shard; stories: floor and valid samples");
  eval->add_option("--model", e.model, "model folder")->required();
  eval->add_option("--data", e.data, "folder with tokenizer, train.bin and val.bin")->required();
  eval->add_option("--batch", e.batch)->check(between(1, 65536))->capture_default_str();
  eval->add_option("--samples", e.samples, "stories to write and judge")
      ->check(between(0, 1e6))
      ->capture_default_str();
  eval->add_option("--temperature", e.temperature)->check(between(0, 100))->capture_default_str();

  add_dtype(eval);

  ch05::BenchCommand b;
  CLI::App* bench = app.add_subcommand("bench", "time the training step on random tokens");
  bench->add_option("--model", b.model_name)->capture_default_str();
  bench->add_option("--layers", b.layers, "0: the model's")->check(between(0, 1000))->capture_default_str();
  bench->add_option("--heads", b.heads, "0: the model's")->check(between(0, 1024))->capture_default_str();
  bench->add_option("--channels", b.channels, "0: the model's")
      ->check(between(0, 65536))
      ->capture_default_str();
  bench->add_option("--vocabulary", b.vocabulary, "0: the model's")
      ->check(between(0, 1 << 24))
      ->capture_default_str();
  bench->add_option("--batch", b.batch)->check(between(1, 65536))->capture_default_str();
  bench->add_option("--tokens", b.tokens, "per row")->check(between(1, 1 << 20))->capture_default_str();
  bench->add_option("--steps", b.steps)->check(between(1, 1e6))->capture_default_str();

  add_dtype(bench);

  return run_program(argc, argv, app, common, [&] {
    const Placement placement{common.device, dtype};
    t.placement = e.placement = b.placement = placement;
    if (dtype == DType::bf16 && common.device == Device::cpu)
      fail_usage("--dtype bf16 needs --device cuda; the CPU computes in f32");
    if (train->parsed()) {
      o.seed = common.seed;
      t.metrics = common.metrics;
      shared.complete(t);
      ch05::train(t);
    } else if (eval->parsed()) {
      e.seed = common.seed;
      e.metrics = common.metrics;
      ch05::evaluate(e);
    } else if (bench->parsed()) {
      b.seed = common.seed;
      b.metrics = common.metrics;
      ch05::bench(b);
    } else {
      ch05::walk({common.work, common.seed, placement, common.metrics});
    }
  });
}
