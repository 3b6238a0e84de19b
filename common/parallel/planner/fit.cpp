#include "common/parallel/planner/fit.h"

#include <cmath>
#include <limits>

#include "common/core/error.h"
#include "common/parallel/planner/memory.h"
#include "common/parallel/planner/published.h"
#include "common/parallel/planner/step_time.h"

namespace llm::planner {

namespace {

double loss(const std::vector<double>& residuals, double outlier) {
  double sum = 0;
  for (const double r : residuals)
    sum += std::abs(r) < outlier ? r * r / 2 : outlier * (std::abs(r) - outlier / 2);
  return std::isfinite(sum) ? sum : std::numeric_limits<double>::infinity();
}

}  // namespace

Calibration fit(const Calibration& start, const std::vector<std::string>& constants, double outlier,
                const std::function<std::vector<double>(const Calibration&)>& residuals) {
  std::vector<double Calibration::*> chosen;
  for (const std::string& name : constants)
    for (const auto& [known, member] : calibration_constants())
      if (known == name) chosen.push_back(member);
  check(chosen.size() == constants.size(), "unknown constants to fit");
  Calibration best = start;
  double least = loss(residuals(best), outlier);
  std::vector<double> steps(chosen.size(), std::log(2));  // of the logarithm
  for (int round = 0; round < 400; ++round) {
    bool better = false;
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      bool moved = false;
      for (const double direction : {1.0, -1.0}) {
        Calibration tried = best;
        tried.*chosen[i] *= std::exp(direction * steps[i]);
        if (constants[i].ends_with("_efficiency") && tried.*chosen[i] > 1) continue;
        const double now = loss(residuals(tried), outlier);
        if (now >= least) continue;
        best = tried;
        least = now;
        moved = true;
        break;
      }
      steps[i] *= moved ? 1.5 : 0.6;
      better = better || moved || steps[i] > 1e-3;
    }
    if (!better) break;
  }
  return best;
}

Calibration fit_megatron(const std::filesystem::path& tables) {
  const Hardware a100 = hardware("a100-80g");
  std::vector<ScalingRow> rows = read_sc21_table1(tables);
  const std::vector<ScalingRow> second = read_sc21_table2(tables);
  const std::vector<IterationRow> iterations = read_korthikanti(tables);
  Calibration start;
  start.name = "megatron";
  start.fused_attention = false;
  return fit(
      start,
      {"gemm_efficiency", "memory_passes", "node_efficiency", "network_efficiency", "data_efficiency",
       "gather_efficiency", "gather_overlap_efficiency"},
      0.1, [&](const Calibration& c) {
        std::vector<double> residuals;
        for (const ScalingRow& row : rows) {
          const Layout layout = fastest_fitting(row.shape, a100, row.layout, row.batch, c);
          residuals.push_back(std::log(predicted_teraflops(row.shape, a100, layout, c) / row.teraflops));
        }
        for (const ScalingRow& row : second)
          residuals.push_back(std::log(predicted_teraflops(row.shape, a100, row.layout, c) / row.teraflops));
        for (const IterationRow& row : iterations) {
          residuals.push_back(std::log(step_time(row.shape, a100, row.full, c).total() / row.full_seconds));
          residuals.push_back(
              std::log(step_time(row.shape, a100, row.selective, c).total() / row.selective_seconds));
        }
        return residuals;
      });
}

Calibration fit_nanotron(const std::filesystem::path& tables) {
  const Hardware h100 = hardware("h100-80g");
  std::vector<MeasuredRun> runs;  // to fit
  for (MeasuredRun& run : read_ultrascale(tables))
    if (!run.held_out) runs.push_back(std::move(run));
  Calibration start;
  start.name = "nanotron";
  start.layer_overhead = 4e-3;
  start.pipeline_overhead = 5e-3;
  start.pipeline_overhead_growth = 0.7;
  start.network_latency = 4e-4;
  start.data_spread = 0.3;
  start.congestion = 0.1;
  start.congestion_growth = 2;
  start.unsharded_sync = 0.01;
  start.gradient_traffic = 4;  // f32
  start.gradient_bytes = 6;    // bf16, and a sum in f32
  start.fixed_bytes = 5e8;
  start.min_stage_layers = 2;
  start.balance_head = true;
  // Memory first: it does not depend on the constants of time.
  Calibration c = fit(
      start, {"gradient_bytes", "optimizer_bytes", "hidden_scale", "ffn_scale", "logit_bytes", "fixed_bytes"},
      0.1, [&](const Calibration& tried) {
        std::vector<double> residuals;
        for (const MeasuredRun& run : runs)
          if (run.ran && run.layout.pp * tried.min_stage_layers <= run.shape.layers)
            residuals.push_back(std::log(memory_per_rank(run.shape, run.layout, tried).total() / run.memory));
        return residuals;
      });
  // The share of the memory that decides best between the runs that ran and those that did not.
  double most = -1;
  for (double usable = 0.7; usable <= 1.1; usable += 0.01) {
    double right = 0;
    for (const MeasuredRun& run : runs) {
      const bool fits = run.layout.pp == 1 || run.layout.pp * c.min_stage_layers <= run.shape.layers;
      right += (fits && memory_per_rank(run.shape, run.layout, c).total() <= usable * h100.memory) == run.ran;
    }
    if (right <= most) continue;
    most = right;
    c.usable_memory = usable;
  }
  return fit(
      c,
      {"gemm_efficiency", "memory_passes", "layer_overhead", "pipeline_overhead", "pipeline_overhead_growth",
       "node_efficiency", "network_efficiency", "network_latency", "data_efficiency", "data_spread",
       "congestion", "congestion_growth", "unsharded_sync"},
      0.3, [&](const Calibration& tried) {
        std::vector<double> residuals;
        for (const MeasuredRun& run : runs) {
          if (!run.ran || run.mfu < 0.0005 || run.layout.pp * tried.min_stage_layers > run.shape.layers)
            continue;  // printed as 0.0
          const double time = step_time(run.shape, h100, run.layout, tried).total();
          const double mfu =
              model_flops_per_step(run.shape, run.layout) / time / run.layout.devices() / h100.flops;
          residuals.push_back(std::log(mfu / run.mfu));
        }
        return residuals;
      });
}

}  // namespace llm::planner
