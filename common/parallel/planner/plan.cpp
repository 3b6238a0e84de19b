#include "common/parallel/planner/plan.h"

#include <algorithm>
#include <optional>

#include "common/core/error.h"

namespace llm::planner {

namespace {

std::string gigabytes(double bytes) {
  return fmt::format("{:.4g} GB", bytes / 1e9);
}

/// Everything that may vary on one grid.
std::vector<Layout> variants(const ModelShape& shape, const Layout& grid, const PlanOptions& options) {
  std::vector<Layout> layouts;
  const std::int64_t per_replica = options.batch / grid.dp;
  for (std::int64_t micro_batch = 1; micro_batch <= options.max_micro_batch; micro_batch *= 2) {
    if (per_replica % micro_batch != 0) break;
    for (int zero = 0; zero <= 3; ++zero) {
      if (zero > 0 && grid.dp == 1) break;
      if (zero > 1 && (grid.pp > 1 || !options.zero_2_and_3)) break;
      for (const Recompute recompute : {Recompute::attention, Recompute::full})
        for (int chunks = 1; chunks <= (grid.pp > 1 ? options.max_chunks : 1); ++chunks) {
          Layout l = grid;
          l.micro_batch = micro_batch;
          l.micro_batches = per_replica / micro_batch;
          l.zero = zero;
          l.sequence_parallel = l.tp > 1;
          l.recompute = recompute;
          l.chunks = chunks;
          if (chunks > 1) {
            if (l.micro_batches % l.pp != 0 || shape.layers < std::int64_t{l.pp} * chunks) continue;
            l.schedule = PipelineKind::interleaved;
          }
          layouts.push_back(l);
        }
    }
  }
  return layouts;
}

/// Why no layout of a grid can be, before any arithmetic.
std::optional<std::string> impossible(const ModelShape& shape, const Layout& grid, const Calibration& c,
                                      const PlanOptions& options) {
  if (shape.heads % grid.tp != 0)
    return fmt::format("{} heads do not divide over tp {}", shape.heads, grid.tp);
  if (shape.ffn % grid.tp != 0)
    return fmt::format("a feed-forward layer of {} does not divide over tp {}", shape.ffn, grid.tp);
  if (grid.pp > 1 && shape.layers < std::int64_t{grid.pp} * c.min_stage_layers)
    return fmt::format("{} layers are too few for {} stages", shape.layers, grid.pp);
  if (options.batch % grid.dp != 0)
    return fmt::format("a batch of {} sequences does not divide over dp {}", options.batch, grid.dp);
  return std::nullopt;
}

}  // namespace

Candidate estimate(const ModelShape& shape, const Hardware& hw, const Layout& layout, const Calibration& c) {
  Candidate candidate{layout, memory_per_rank(shape, layout, c), step_time(shape, hw, layout, c)};
  const double seconds = candidate.time.total();
  candidate.tokens_per_second = double(layout.batch()) * double(shape.sequence) / seconds;
  candidate.mfu = model_flops_per_step(shape, layout) / seconds / layout.devices() / hw.flops;
  return candidate;
}

Plan make_plan(const ModelShape& shape, const Hardware& hw, const Calibration& c,
               const PlanOptions& options) {
  validate(shape);
  if (options.devices < 1 || options.batch < 1)
    fail_usage("a plan needs at least 1 device and 1 sequence, got {} and {}", options.devices,
               options.batch);
  const int max_tp = options.max_tp > 0 ? options.max_tp : hw.per_node;
  const double usable = hw.memory * c.usable_memory;
  Plan plan;
  for (int tp = 1; tp <= std::min(max_tp, options.devices); ++tp) {
    if (options.devices % tp != 0) continue;
    for (int pp = 1; pp <= options.devices / tp; ++pp) {
      if (options.devices / tp % pp != 0) continue;
      Layout grid;
      grid.pp = pp;
      grid.tp = tp;
      grid.dp = options.devices / tp / pp;
      if (const auto reason = impossible(shape, grid, c, options)) {
        plan.refused.push_back({pp, grid.dp, tp, *reason});
        continue;
      }
      std::optional<Candidate> best, smallest;
      for (const Layout& layout : variants(shape, grid, options)) {
        const Candidate candidate = estimate(shape, hw, layout, c);
        ++plan.tried;
        if (!smallest || candidate.memory.total() < smallest->memory.total()) smallest = candidate;
        if (candidate.memory.total() > usable) continue;
        ++plan.fitting;
        if (!best || candidate.time.total() < best->time.total()) best = candidate;
      }
      if (best) {
        plan.best.push_back(*best);
      } else {
        const Memory& m = smallest->memory;
        plan.refused.push_back(
            {pp, grid.dp, tp,
             fmt::format("needs {} of {}: model states {}, activations {} (ZeRO-{}, micro-batch {})",
                         gigabytes(m.total()), gigabytes(usable),
                         gigabytes(m.parameters + m.gradients + m.optimizer), gigabytes(m.activations),
                         smallest->layout.zero, smallest->layout.micro_batch)});
      }
    }
  }
  std::stable_sort(plan.best.begin(), plan.best.end(),
                   [](const Candidate& a, const Candidate& b) { return a.time.total() < b.time.total(); });
  return plan;
}

Layout best_layout(const ModelShape& shape, const Hardware& hw, const Calibration& c,
                   const PlanOptions& options) {
  const Plan plan = make_plan(shape, hw, c, options);
  if (plan.best.empty()) {
    const Refusal& r = plan.refused.back();
    fail("{} fits on {} x {} in no layout; for example pp {} x dp {} x tp {}: {}", shape.name,
         options.devices, hw.name, r.pp, r.dp, r.tp, r.reason);
  }
  return plan.best.front().layout;
}

PipelineSchedule schedule_of(const Layout& layout) {
  return make_schedule(layout.schedule, layout.pp, static_cast<int>(layout.micro_batches), layout.chunks);
}

}  // namespace llm::planner
