// `plan` and `calibrate`: the planner's tables.
#include <fmt/format.h>

#include <algorithm>

#include "ch06_multi_gpu/multi_gpu.h"
#include "common/cli/format.h"
#include "common/cli/metrics.h"
#include "common/cli/table.h"
#include "common/core/error.h"
#include "common/core/file.h"
#include "common/parallel/planner/fit.h"
#include "common/parallel/planner/plan.h"

namespace llm::ch06 {

namespace {

using namespace llm::planner;

std::string percent(double part, double whole) {
  return fmt::format("{:.1f}%", 100 * part / whole);
}

std::string schedule_text(const Layout& l) {
  if (l.pp == 1) return "";
  if (l.chunks > 1) return fmt::format("interleaved x {}", l.chunks);
  return std::string(pipeline_kind_name(l.schedule));
}

void print_best(const Plan& plan, int rows) {
  Table table({"pp", "dp", "tp", "ZeRO", "micro-batch", "schedule", "recompute", "GB", "seconds", "tensor",
               "pipeline", "bubble", "data", "MFU", "tokens/s"});
  for (std::size_t i = 0; i < std::min(plan.best.size(), static_cast<std::size_t>(rows)); ++i) {
    const Candidate& c = plan.best[i];
    const Layout& l = c.layout;
    const double total = c.time.total();
    table.add({fmt::to_string(l.pp), fmt::to_string(l.dp), fmt::to_string(l.tp), fmt::to_string(l.zero),
               fmt::format("{} x {}", l.micro_batch, l.micro_batches), schedule_text(l),
               l.recompute == Recompute::full ? "all" : "", fmt::format("{:.1f}", c.memory.total() / 1e9),
               fmt::format("{:.2f}", total), percent(c.time.tensor, total), percent(c.time.pipeline, total),
               percent(c.time.bubble, total), percent(c.time.data, total), percent(c.mfu, 1),
               short_count(c.tokens_per_second)});
  }
  table.print();
}

void print_details(const ModelShape& shape, const Candidate& c, const Calibration& calibration) {
  const Memory& m = c.memory;
  fmt::print("The best: {}\n", to_string(c.layout));
  fmt::print(
      "Memory of the fullest rank: {} = parameters {} + gradients {} + optimizer {} + activations {} + "
      "buffers {}\n",
      byte_text(m.total()), byte_text(m.parameters), byte_text(m.gradients), byte_text(m.optimizer),
      byte_text(m.activations), byte_text(m.buffers));
  const StepTime& t = c.time;
  fmt::print(
      "A step: {:.3f} s = products {:.3f} + other compute {:.3f} + tensor {:.3f} + pipeline {:.3f} + bubble "
      "{:.3f} + "
      "data {:.3f} + optimizer {:.3f}\n",
      t.total(), t.compute, t.memory, t.tensor, t.pipeline, t.bubble, t.data, t.optimizer);
  const Traffic bytes = traffic(shape, c.layout, calibration);
  fmt::print("A rank sends per step: {} within layers, {} between stages, {} of gradients and parameters\n",
             byte_text(bytes.tensor), byte_text(bytes.pipeline), byte_text(bytes.data));
}

void print_refused(const Plan& plan, int rows) {
  if (plan.refused.empty()) return;
  fmt::print("\nWhat is not possible:\n");
  Table table({"pp", "dp", "tp", "why"});
  const auto shown = std::min(plan.refused.size(), static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < shown; ++i) {
    const Refusal& r = plan.refused[i];
    table.add({fmt::to_string(r.pp), fmt::to_string(r.dp), fmt::to_string(r.tp), r.reason});
  }
  table.print();
  if (shown < plan.refused.size()) fmt::print("... and {} more (--rows)\n", plan.refused.size() - shown);
}

void write_metrics(const Plan& plan, const fs::path& path) {
  MetricsWriter metrics(path);
  for (const Candidate& c : plan.best) {
    const Layout& l = c.layout;
    metrics.write({{"kind", "layout"},
                   {"pp", l.pp},
                   {"dp", l.dp},
                   {"tp", l.tp},
                   {"zero", l.zero},
                   {"micro_batch", l.micro_batch},
                   {"micro_batches", l.micro_batches},
                   {"chunks", l.chunks},
                   {"recompute_all", l.recompute == Recompute::full},
                   {"bytes", c.memory.total()},
                   {"parameter_bytes", c.memory.parameters},
                   {"gradient_bytes", c.memory.gradients},
                   {"optimizer_bytes", c.memory.optimizer},
                   {"activation_bytes", c.memory.activations},
                   {"buffer_bytes", c.memory.buffers},
                   {"seconds", c.time.total()},
                   {"compute", c.time.compute},
                   {"memory", c.time.memory},
                   {"tensor", c.time.tensor},
                   {"overhead", c.time.overhead},
                   {"pipeline", c.time.pipeline},
                   {"bubble", c.time.bubble},
                   {"data", c.time.data},
                   {"optimizer", c.time.optimizer},
                   {"mfu", c.mfu},
                   {"tokens_per_second", c.tokens_per_second}});
  }
  for (const Refusal& r : plan.refused)
    metrics.write({{"kind", "refused"}, {"pp", r.pp}, {"dp", r.dp}, {"tp", r.tp}, {"reason", r.reason}});
}

/// The picture shows some micro-batches only: hundreds could not be told apart.
void draw(const Plan& plan, const fs::path& path, const ModelShape& shape, const Hardware& hw,
          const Calibration& calibration) {
  const auto with_pipeline =
      std::find_if(plan.best.begin(), plan.best.end(), [](const Candidate& c) { return c.layout.pp > 1; });
  if (with_pipeline == plan.best.end())
    fail("no layout that fits has a pipeline, so there is no schedule to draw");
  Layout layout = with_pipeline->layout;
  const std::int64_t all = layout.micro_batches;
  layout.micro_batches = std::min<std::int64_t>(all, std::int64_t{layout.pp} * std::max(2, 16 / layout.pp));
  const PipelineSchedule schedule = schedule_of(layout);
  const double layer = layer_time(shape, hw, layout, calibration).total();
  const double head = head_time(shape, hw, layout, calibration).total();
  PipelineCosts costs;
  for (const LayerRange& stage : stages_of(shape, layout, calibration)) {
    const double pass = double(stage.size()) * layer + (stage.last == shape.layers ? head : 0);
    costs.forward.push_back(pass / 3);  // of forward and backward the third part
    costs.backward.push_back(pass * 2 / 3);
  }
  std::string title =
      fmt::format("{} on {} x {}: {}", shape.name, layout.devices(), hw.name, to_string(layout));
  if (layout.micro_batches < all) title += fmt::format(" of {}", all);
  write_file(path, schedule_svg(schedule, simulate(schedule, costs), title));
  fmt::print("The schedule of pp {} x dp {} x tp {} is drawn in {}\n", layout.pp, layout.dp, layout.tp,
             path.string());
}

}  // namespace

void plan(const PlanCommand& command) {
  ModelShape shape = model_shape(command.model);
  if (command.sequence > 0) shape.sequence = command.sequence;
  const Hardware hw = hardware(command.device);
  const Calibration& calibration = planner::calibration(command.calibration);
  PlanOptions options;
  options.devices = command.gpus;
  options.max_tp = command.max_tp;
  options.batch = command.batch;
  if (command.batch == 0)  // a multiple of the GPUs, so that it divides over any dp
    for (options.batch = command.gpus; options.batch * shape.sequence < 4'000'000;) options.batch *= 2;
  fmt::print("{}: {} layers of {} channels, {} heads, vocabulary {}: {} parameters\n", shape.name,
             shape.layers, with_commas(shape.hidden), shape.heads, with_commas(shape.vocabulary),
             short_count(shape.parameters()));
  fmt::print("{} x {} ({} GB, {:.0f} TFLOP/s), a step of {} sequences of {} tokens; constants: {}\n",
             command.gpus, hw.name, hw.memory / 1e9, hw.flops / 1e12, with_commas(options.batch),
             with_commas(shape.sequence), calibration.name);
  const Plan plan = make_plan(shape, hw, calibration, options);
  fmt::print("{} layouts, {} fit; of each grid the fastest:\n\n", with_commas(plan.tried),
             with_commas(plan.fitting));
  if (!plan.best.empty()) {
    print_best(plan, command.rows);
    if (plan.best.size() > static_cast<std::size_t>(command.rows))
      fmt::print("... and {} more (--rows)\n", plan.best.size() - static_cast<std::size_t>(command.rows));
    fmt::print("\n");
    print_details(shape, plan.best.front(), calibration);
  }
  print_refused(plan, command.rows);
  if (!command.metrics.empty()) write_metrics(plan, command.metrics);
  if (plan.best.empty()) fail("{} fits on {} x {} in no layout", shape.name, command.gpus, hw.name);
  if (!command.svg.empty()) draw(plan, command.svg, shape, hw, calibration);
}

void calibrate(const fs::path& tables) {
  for (const Calibration& c : {fit_megatron(tables), fit_nanotron(tables)}) {
    fmt::print("{}:\n", c.name);
    const Calibration& before = calibration("formulas");
    for (const auto& [name, member] : calibration_constants())
      if (c.*member != before.*member) fmt::print("  {:<26} {:.4g}\n", name, c.*member);
    if (c.usable_memory != before.usable_memory)
      fmt::print("  {:<26} {:.4g}\n", "usable_memory", c.usable_memory);
  }
}

void walk() {
  PlanCommand small;
  small.model = "8b";
  small.gpus = 16;
  plan(small);
}

}  // namespace llm::ch06
