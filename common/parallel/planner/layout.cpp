#include "common/parallel/planner/layout.h"

#include "common/core/error.h"

namespace llm::planner {

namespace {

/// From NVIDIA's data sheets: dense bf16 FLOP/s, HBM, NVLink in one direction. The network is what DGX
/// systems have: one InfiniBand port per GPU, 200 Gb/s (A100) or 400 Gb/s. "laptop": a core of one, and
/// threads as ranks.
const std::vector<Hardware>& known_hardware() {
  static const std::vector<Hardware> devices = {
      {"a100-40g", 312e12, 40e9, 1.555e12, 8, 300e9, 25e9},
      {"a100-80g", 312e12, 80e9, 2.039e12, 8, 300e9, 25e9},
      {"h100-80g", 989.4e12, 80e9, 3.35e12, 8, 450e9, 50e9},
      {"h200-141g", 989.4e12, 141e9, 4.8e12, 8, 450e9, 50e9},
      {"laptop", 80e9, 4e9, 10e9, 1024, 5e9, 5e9},
      {"b200-180g", 2250e12, 180e9, 8e12, 8, 900e9, 50e9},
  };
  return devices;
}

}  // namespace

std::string to_string(const Layout& l) {
  std::string text = fmt::format("pp {} x dp {} x tp {}, ZeRO-{}, micro-batch {} x {}", l.pp, l.dp, l.tp,
                                 l.zero, l.micro_batch, l.micro_batches);
  if (l.pp > 1) text += fmt::format(", {}", pipeline_kind_name(l.schedule));
  if (l.chunks > 1) text += fmt::format(" with {} chunks", l.chunks);
  if (l.recompute == Recompute::full) text += ", recomputing";
  return text;
}

Hardware hardware(std::string_view name) {
  for (const Hardware& device : known_hardware())
    if (device.name == name) return device;
  fail_usage("there is no device '{}'; there are {}", name, fmt::join(hardware_names(), ", "));
}

std::vector<std::string> hardware_names() {
  std::vector<std::string> names;
  for (const Hardware& device : known_hardware()) names.push_back(device.name);
  return names;
}

}  // namespace llm::planner
