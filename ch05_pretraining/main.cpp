// Chapter 5: a GPT learns. Without a command: the walk, from stories to a story of the model's own.
#include "ch05_pretraining/pretraining.h"
#include "common/cli/program.h"
#include "common/ops/ops.h"

int main(int argc, char** argv) {
  using namespace llm;
  CLI::App app{"Chapter 5: train a GPT, watch it learn, and read what it writes"};
  CommonOptions common;
  add_common_options(app, common);
  common.runs_on = {describe_gemm()};
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
  CLI::Option* min_lr =
      train->add_option("--min-lr", o.schedule.floor, "smallest learning rate; default: --lr / 10")
          ->check(between(0, 10));
  CLI::Option* warmup = train->add_option("--warmup", o.schedule.warmup, "steps")
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
  train->add_option("--sample-every", t.sample_every, "steps between samples; 0: five times")
      ->check(between(0, 1e9))
      ->capture_default_str();
  train->add_option("--log-every", t.log_every, "steps between records; 0: at most 2,000 records")
      ->check(between(0, 1e9))
      ->capture_default_str();
  train->add_flag("!--no-final-eval", t.final_eval,
                  "leave out the evaluation over all of the validation text at the end");
  add_dtype(train);
  train->add_flag("--resume", t.resume, "go on from the checkpoint in --out, if there is one");

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
      if (min_lr->empty()) o.schedule.floor = o.schedule.peak / 10;
      if (warmup->empty())
        o.schedule.warmup = std::min<std::int64_t>(o.schedule.warmup, o.schedule.steps / 10);
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
