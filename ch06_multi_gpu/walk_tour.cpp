// The tour: one run under a dozen layouts, and what each costs, by formula and measured.
#include <fmt/format.h>

#include <algorithm>
#include <mutex>

#include "ch06_multi_gpu/training.h"
#include "common/cli/format.h"
#include "common/cli/metrics.h"
#include "common/cli/progress.h"
#include "common/cli/table.h"
#include "common/parallel/schedule_timing.h"
#include "common/parallel/step_traffic.h"
#include "common/parallel/threads_communicator.h"
#include "common/parallel/wrappers.h"
#include "common/tokenizer/story_tokens.h"

namespace llm::ch06 {

namespace {

/// A layout and what a run under it has shown; of ranks the largest.
struct Row {
  std::string name;
  ParallelOptions options;
  double loss = 0;
  double sent_formula = 0, sent_measured = 0;    // bytes per step
  double state_formula = 0, state_measured = 0;  // bytes
  double peak = 0;                               // bytes, with activations and messages
  double bubble_formula = 0, bubble_simulated = 0, bubble_measured = 0;
};

std::vector<Row> rows_of_tour() {
  std::vector<Row> rows;
  const auto add = [&](std::string name, Layout layout, int zero = 0,
                       PipelineKind schedule = PipelineKind::one_f_one_b, int chunks = 1) {
    Row row{.name = std::move(name), .options = {.layout = layout, .zero = zero}};
    row.options.schedule = schedule;
    row.options.chunks = chunks;
    rows.push_back(std::move(row));
  };
  add("1 rank", {});
  add("data parallel 2", {.dp = 2});
  for (const int zero : {1, 2, 3}) add(fmt::format("ZeRO {}, 2 ranks", zero), {.dp = 2}, zero);
  add("tensor parallel 2", {.tp = 2});
  add("pipeline 2, GPipe", {.pp = 2}, 0, PipelineKind::gpipe);
  add("pipeline 2, 1F1B", {.pp = 2});
  add("pipeline 2, interleaved 2", {.pp = 2}, 0, PipelineKind::interleaved, 2);
  add("2 x 2 x 2, ZeRO 1", {.pp = 2, .dp = 2, .tp = 2}, 1);
  return rows;
}

/// The bubble of stages that all take equally long, backward twice as long as forward.
double simulated_bubble(const PipelineSchedule& schedule) {
  return simulate(schedule, PipelineCosts::uniform(schedule.stages(), 1, 2)).bubble();
}

void run_row(Row& row, const TrainingData& folder, const GptConfig& config, const TrainerOptions& run,
             const TourCommand& command) {
  std::mutex mutex;  // of the row
  run_ranks(row.options.layout.ranks(), {}, [&](Communicator& world) {
    const auto meter = std::make_shared<MemoryMeter>();
    const MemoryScope scope(meter);
    const auto trace = std::make_shared<Trace>();
    const auto counted = make_tracing_communicator(world.split(0, world.rank(), "world"), trace);
    ParallelTrainer trainer(*counted, config, command.placement, folder.train.tokens(),
                            folder.end_of_text.value_or(0), run, row.options);
    trainer.initialize(run.seed);
    const auto state = static_cast<double>(meter->current());
    StepReport report;
    double busy = 0, waiting = 0;
    for (std::int64_t step = 0; step < run.schedule.steps; ++step) {
      if (step == 1) trace->reset_counts();  // every step sends the same
      report = trainer.step();
      if (step > 0) busy += report.forward_s, waiting += report.prepare_s;
    }
    double sent = 0;
    for (const char* name : {"dp", "tp", "pp", "tied embedding"}) sent += trace->bytes_sent(name);
    sent /= static_cast<double>(run.schedule.steps - 1);
    const PipelineSchedule& schedule = trainer.runner().schedule();
    const std::lock_guard lock(mutex);
    row.loss = report.loss;
    row.sent_formula = std::max(row.sent_formula, step_traffic(trainer, config.context).total());
    row.sent_measured = std::max(row.sent_measured, sent);
    row.state_formula = std::max(row.state_formula, state_bytes(trainer));
    row.state_measured = std::max(row.state_measured, state);
    row.peak = std::max(row.peak, static_cast<double>(meter->peak()));
    row.bubble_formula = (schedule.ranks - 1.0) / (schedule.chunks * schedule.micro_batches);
    row.bubble_simulated = simulated_bubble(schedule);
    row.bubble_measured = std::max(row.bubble_measured, busy > 0 ? waiting / busy : 0);
  });
}

}  // namespace

void tour(const TourCommand& command) {
  const fs::path data =
      story_token_folder(command.work, command.seed, [](std::string_view line) { fmt::print("{}\n", line); });
  const TrainingData folder = open_training_data(data);
  GptConfig config;
  config.vocab_size = folder.tokenizer->vocab_size();
  config.layers = 4;
  config.heads = 4;
  config.channels = 128;
  config.context = 64;
  TrainerOptions run;
  run.batch = 4;
  run.accumulate = 8;
  run.seed = command.seed;
  run.schedule = {.peak = 3e-3, .floor = 3e-4, .warmup = 2, .steps = command.steps};
  fmt::print(
      "One run under {} layouts: {} steps of {} micro-batches of {} x {} tokens, a model of {} parameters\n",
      rows_of_tour().size(), command.steps, run.accumulate, run.batch, config.context,
      with_commas(parameter_count(config)));

  MetricsWriter metrics = command.metrics.empty() ? MetricsWriter() : MetricsWriter(command.metrics);
  Table table({"layout", "loss", "sent/step", "measured", "state", "measured", "peak", "bubble", "simulated",
               "measured"});
  std::vector<Row> rows = rows_of_tour();
  Progress progress("layouts", static_cast<std::int64_t>(rows.size()), "runs");
  for (Row& row : rows) {
    run_row(row, folder, config, run, command);
    progress.advance();
    const bool pipeline = row.options.layout.pp > 1;
    const auto percent = [&](double x) {
      return pipeline ? fmt::format("{:.0f}%", 100 * x) : std::string("-");
    };
    table.add({row.name, fmt::format("{:.6f}", row.loss), byte_text(row.sent_formula),
               byte_text(row.sent_measured), byte_text(row.state_formula), byte_text(row.state_measured),
               byte_text(row.peak), percent(row.bubble_formula), percent(row.bubble_simulated),
               percent(row.bubble_measured)});
    metrics.write({{"layout", row.name},
                   {"loss", row.loss},
                   {"sent_formula", row.sent_formula},
                   {"sent", row.sent_measured},
                   {"state_formula", row.state_formula},
                   {"state", row.state_measured},
                   {"peak", row.peak},
                   {"bubble_formula", row.bubble_formula},
                   {"bubble_simulated", row.bubble_simulated},
                   {"bubble", row.bubble_measured}});
  }
  progress.finish();
  table.print();
}

}  // namespace llm::ch06
