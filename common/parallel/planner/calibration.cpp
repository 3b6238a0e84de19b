#include "common/parallel/planner/calibration.h"

#include "common/core/error.h"

namespace llm::planner {

namespace {

/// `ch06_multi_gpu calibrate --tables DIR` prints these constants anew.
std::vector<Calibration> known_calibrations() {
  Calibration formulas;
  formulas.name = "formulas";

  // fit_megatron (fit.cpp): all 22 rows of Narayanan et al. 2021, tables 1 and 2, and the 8 times of
  // Korthikanti et al. 2022, table 5. Memory stays that of the formulas.
  Calibration megatron;
  megatron.name = "megatron";
  megatron.fused_attention = false;
  megatron.gemm_efficiency = 0.744;
  megatron.memory_passes = 7.92;
  megatron.node_efficiency = 0.5519;
  megatron.network_efficiency = 0.3282;
  megatron.data_efficiency = 0.7344;
  megatron.gather_efficiency = 0.7664;
  megatron.gather_overlap_efficiency = 0.5169;

  // The same shares with today's attention, which keeps the scores on the chip.
  Calibration fused = megatron;
  fused.name = "fused";
  fused.fused_attention = true;

  // fit_nanotron (fit.cpp): the 799 of the Ultra-Scale Playbook's 1,631 runs that are not held out.
  Calibration nanotron;
  nanotron.name = "nanotron";
  nanotron.gemm_efficiency = 0.4727;
  nanotron.memory_passes = 2.394;
  nanotron.layer_overhead = 0.004323;
  nanotron.pipeline_overhead = 0.00247;
  nanotron.pipeline_overhead_growth = 1.073;
  nanotron.node_efficiency = 0.9835;
  nanotron.network_efficiency = 0.5717;
  nanotron.network_latency = 0.0004534;
  nanotron.data_efficiency = 1;
  nanotron.data_spread = 0.4278;
  nanotron.gradient_traffic = 4;
  nanotron.congestion = 0.07656;
  nanotron.congestion_growth = 3.051;
  nanotron.unsharded_sync = 0.002927;
  nanotron.gradient_bytes = 5.984;
  nanotron.optimizer_bytes = 13.32;
  nanotron.hidden_scale = 1.185;
  nanotron.ffn_scale = 1.666;
  nanotron.logit_bytes = 9.694;
  nanotron.fixed_bytes = 5.396e8;
  nanotron.usable_memory = 0.94;
  nanotron.min_stage_layers = 2;
  nanotron.balance_head = true;
  return {formulas, megatron, fused, nanotron};
}

const std::vector<Calibration>& calibrations() {
  static const std::vector<Calibration> all = known_calibrations();
  return all;
}

}  // namespace

const Calibration& calibration(std::string_view name) {
  for (const Calibration& known : calibrations())
    if (known.name == name) return known;
  fail_usage("there is no calibration '{}'; there are {}", name, fmt::join(calibration_names(), ", "));
}

std::vector<std::string> calibration_names() {
  std::vector<std::string> names;
  for (const Calibration& known : calibrations()) names.push_back(known.name);
  return names;
}

std::vector<std::pair<std::string, double Calibration::*>> calibration_constants() {
  using C = Calibration;
  return {{"gemm_efficiency", &C::gemm_efficiency},
          {"memory_passes", &C::memory_passes},
          {"layer_overhead", &C::layer_overhead},
          {"pipeline_overhead", &C::pipeline_overhead},
          {"pipeline_overhead_growth", &C::pipeline_overhead_growth},
          {"node_efficiency", &C::node_efficiency},
          {"network_efficiency", &C::network_efficiency},
          {"network_latency", &C::network_latency},
          {"data_efficiency", &C::data_efficiency},
          {"gather_efficiency", &C::gather_efficiency},
          {"gather_overlap_efficiency", &C::gather_overlap_efficiency},
          {"data_spread", &C::data_spread},
          {"gradient_traffic", &C::gradient_traffic},
          {"congestion", &C::congestion},
          {"congestion_growth", &C::congestion_growth},
          {"unsharded_sync", &C::unsharded_sync},
          {"parameter_bytes", &C::parameter_bytes},
          {"gradient_bytes", &C::gradient_bytes},
          {"optimizer_bytes", &C::optimizer_bytes},
          {"hidden_scale", &C::hidden_scale},
          {"ffn_scale", &C::ffn_scale},
          {"logit_bytes", &C::logit_bytes},
          {"fixed_bytes", &C::fixed_bytes}};
}

}  // namespace llm::planner
