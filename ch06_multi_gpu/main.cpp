// Chapter 6: many GPUs. Without a command: the tour through the layouts, and a plan.
#include "ch06_multi_gpu/multi_gpu.h"
#include "ch06_multi_gpu/training.h"
#include "common/cli/layout_options.h"
#include "common/cli/program.h"
#include "common/cli/training_options.h"
#include "common/ops/ops.h"
#include "common/parallel/launch.h"

int main(int argc, char** argv) {
  using namespace llm;
  choose_gpu_under_mpirun();
  CLI::App app{"Chapter 6: spread a training run over many devices"};
  CommonOptions common;
  add_common_options(app, common);
  common.computes_with = describe_gemm;
  common.says_where = rank_under_mpirun() == 0;
  common.uses_device = true;

  DType dtype = DType::f32;
  ch06::TrainCommand t;
  ParallelOptions& grid = t.parallel;
  t.trainer.schedule.steps = 2000;
  t.trainer.schedule.warmup = 100;
  t.trainer.accumulate = 8;
  CLI::App* train = app.add_subcommand("train", "train a model on a grid of ranks");
  const TrainingOptions shared = add_training_options(train, t);
  train
      ->add_option_function<std::string>(
          "--dtype", [&](const std::string& text) { dtype = parse_dtype(text); },
          "f32, or bf16 with --device cuda: activations in bf16, parameters and sums in f32")
      ->default_str("f32");
  add_layout_options(train, t,
                     "threads that are the ranks; 0: the processes that mpirun started, or 2 threads");
  train->add_option("--schedule", t.schedule, "of the pipeline: gpipe, 1f1b or interleaved")
      ->capture_default_str();
  train->add_option("--chunks", grid.chunks, "of each rank, with --schedule interleaved")
      ->check(between(1, 64))
      ->capture_default_str();
  train->add_option("--layout", t.layout,
                    "auto: the grid and ZeRO stage that the planner holds for the fastest");
  train->add_option("--plan-device", t.plan_device, "what --layout auto plans for: laptop, h100-80g, ...")
      ->capture_default_str();
  train->add_flag("--sequence-parallel", grid.sequence_parallel,
                  "tensor-parallel ranks share norms and dropout");
  train->add_flag("--recompute", grid.recompute, "keep each block's input only, compute the rest again");
  train->add_option("--trace", t.trace, "write what the ranks say to each other, for chrome://tracing");

  ch06::PlanCommand p;
  CLI::App* plan =
      app.add_subcommand("plan", "which layouts of a model on so many GPUs fit, and how fast they are");
  plan->add_option("--model", p.model,
                   "a name (70b, gpt2-124m ...) or a JSON file with the keys of a config.json")
      ->capture_default_str();
  plan->add_option("--gpus", p.gpus, "devices")->check(between(1, 1 << 20))->capture_default_str();
  // A plan computes nothing on a device: here --device names what it is for.
  plan->add_option("--device", p.device,
                   "what the plan is for: a100-40g, a100-80g, h100-80g, h200-141g, b200-180g, laptop")
      ->capture_default_str();
  plan->add_option("--calibration", p.calibration, "measured constants: fused, megatron, nanotron, formulas")
      ->capture_default_str();
  plan->add_option("--sequence", p.sequence, "tokens of a sequence; 0: the model's")
      ->check(between(0, 1 << 24))
      ->capture_default_str();
  plan->add_option("--batch", p.batch, "sequences of a step; 0: some 4 million tokens, at least one per GPU")
      ->check(between(0, 1 << 24))
      ->capture_default_str();
  plan->add_option("--max-tp", p.max_tp, "most ranks of tensor parallelism; 0: the GPUs of a node")
      ->check(between(0, 1 << 20))
      ->capture_default_str();
  plan->add_option("--rows", p.rows, "of each table")->check(between(1, 10000))->capture_default_str();
  plan->add_option("--svg", p.svg, "draw the schedule of the best layout that has a pipeline");

  ch06::ScheduleCommand s;
  CLI::App* schedule = app.add_subcommand("schedule", "show a pipeline schedule as it goes by");
  schedule->add_option("--kind", s.kind, "gpipe, 1f1b or interleaved")->capture_default_str();
  schedule->add_option("--stages", s.stages, "ranks of the pipeline")
      ->check(between(1, 512))
      ->capture_default_str();
  schedule->add_option("--micro-batches", s.micro_batches)->check(between(1, 4096))->capture_default_str();
  schedule->add_option("--chunks", s.chunks, "of the model on each rank; 0: 2 if interleaved, else 1")
      ->check(between(0, 64))
      ->capture_default_str();
  schedule->add_option("--backward", s.backward, "how long a backward pass takes, in forward passes")
      ->check(between(1, 9))
      ->capture_default_str();
  schedule->add_option("--columns", s.columns, "of the terminal")
      ->check(between(40, 10000))
      ->capture_default_str();
  schedule->add_flag("--instructions", s.instructions, "also print each rank's list");
  schedule->add_option("--svg", s.svg, "also draw it");

  ch06::fs::path tables;
  CLI::App* calibrate =
      app.add_subcommand("calibrate", "fit the planner's constants to published measurements");
  calibrate->add_option("--tables", tables, "folder with the tables as CSV")->required();

  ch06::TourCommand tour;

  return run_program(argc, argv, app, common, [&] {
    p.metrics = s.metrics = common.metrics;
    if (dtype == DType::bf16 && common.device == Device::cpu)
      fail_usage("--dtype bf16 needs --device cuda; the CPU computes in f32");
    t.placement = tour.placement = {common.device, dtype};
    if (train->parsed()) {
      t.trainer.seed = common.seed;
      t.metrics = common.metrics;
      shared.complete(t);
      ch06::train(t);
    } else if (plan->parsed())
      ch06::plan(p);
    else if (schedule->parsed())
      ch06::schedule(s);
    else if (calibrate->parsed())
      ch06::calibrate(tables);
    else {
      tour.work = common.work;
      tour.seed = common.seed;
      tour.metrics = common.metrics;
      ch06::tour(tour);
      ch06::walk();
    }
  });
}
