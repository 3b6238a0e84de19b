// What a planner cannot know from sizes and data sheets: how good a training program and its machines are.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llm::planner {

struct Calibration {
  std::string name{};

  // Compute. Share of the device's operations that matrix products reach. What is not a product is as slow as
  // memory: all activations of the layer go there memory_passes times. With fused_attention (FlashAttention)
  // the scores do not.
  double gemm_efficiency = 0.7;
  double memory_passes = 5;
  bool fused_attention = true;

  // Seconds that forward and backward of one layer take at least, however small they are: the host has to
  // start each kernel. Alone, and where a pipeline crosses nodes (times tp to a power).
  double layer_overhead = 0;
  double pipeline_overhead = 0;
  double pipeline_overhead_growth = 0;

  // Shares of the links' bandwidth, and seconds per collective of tp over the network and tp / per_node.
  double node_efficiency = 0.7;
  double network_efficiency = 0.7;
  double network_latency = 0;

  // Data parallelism: share of the bandwidth of all ports of a node, falling as (nodes)^-spread, and bytes of
  // a gradient. ZeRO-3 gathers layer by layer, at a share of one port's bandwidth, and hides that behind a
  // share of the compute.
  double data_efficiency = 0.7;
  double gather_efficiency = 0.65;
  double gather_overlap_efficiency = 0.75;
  double data_spread = 0;
  double gradient_traffic = 2;

  // Seconds per micro-batch that a pipeline over nodes loses, at 32 nodes and growing as (nodes / 32)^growth;
  // and per node where gradients are not sharded (ZeRO-0).
  double congestion = 0;
  double congestion_growth = 1;
  double unsharded_sync = 0;

  // Memory. Bytes per parameter; activations against the formula's, the part of the hidden size and the part
  // of the feed-forward layer; bytes per logit; bytes that are always there.
  double parameter_bytes = 2, gradient_bytes = 2, optimizer_bytes = 12;
  double hidden_scale = 1, ffn_scale = 1, logit_bytes = 4;
  double fixed_bytes = 0;
  double usable_memory = 1;  // share of the device's memory that a run can use

  int min_stage_layers = 1;
  bool balance_head = false;  // the head counts when layers are shared out over the stages
};

/// "formulas": published formulas and no measured overheads. "megatron": Megatron-LM on A100s. "nanotron":
/// nanotron on H100s. How each was obtained stands in calibration.cpp. UsageError that lists them.
const Calibration& calibration(std::string_view name);
std::vector<std::string> calibration_names();

/// The constants by name, to fit and to print.
std::vector<std::pair<std::string, double Calibration::*>> calibration_constants();

}  // namespace llm::planner
