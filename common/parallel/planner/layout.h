// How a training run is spread over devices, and the devices.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/parallel/schedule.h"

namespace llm::planner {

/// What backward computes again instead of keeping it (Korthikanti et al. 2022, section 4).
enum class Recompute {
  none,
  attention,  // the scores and their softmax: "selective"; FlashAttention has the same effect
  full,       // everything within a layer: only its input is kept
};

/// pp x dp x tp devices, tp innermost.
struct Layout {
  int pp = 1, dp = 1, tp = 1;
  int zero = 0;  // ZeRO stage: 0 none, 1 optimizer states, 2 and gradients, 3 and parameters over dp
  bool sequence_parallel = false;
  Recompute recompute = Recompute::attention;
  std::int64_t micro_batch = 1;    // sequences of one pass
  std::int64_t micro_batches = 1;  // passes of a step, on each of the dp replicas
  PipelineKind schedule = PipelineKind::one_f_one_b;
  int chunks = 1;  // virtual stages per rank

  int devices() const { return pp * dp * tp; }
  std::int64_t batch() const { return micro_batch * micro_batches * dp; }
};

/// "pp 4 x dp 16 x tp 8, ZeRO-1, micro-batch 2 x 32, interleaved 2".
std::string to_string(const Layout& layout);

struct Hardware {
  std::string name{};
  double flops = 0;              // per second, dense bf16 products
  double memory = 0;             // bytes
  double memory_bandwidth = 0;   // bytes/s
  int per_node = 8;              // devices joined by the fast links
  double node_bandwidth = 0;     // bytes/s that a device sends within its node
  double network_bandwidth = 0;  // bytes/s that a device sends to other nodes
};

/// "a100-40g", "a100-80g", "h100-80g", "h200-141g", "b200-180g", "laptop"; UsageError that lists them.
Hardware hardware(std::string_view name);
std::vector<std::string> hardware_names();

}  // namespace llm::planner
