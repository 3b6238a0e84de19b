#include "common/parallel/planner/step_time.h"

#include <algorithm>
#include <cmath>

#include "common/parallel/planner/memory.h"

namespace llm::planner {

namespace {

constexpr double kElement = 2;  // bytes of an activation: bf16

/// Forward and backward are 3 parts of which recomputing adds one more forward; of attention alone it is
/// little.
double recompute_factor(const Layout& layout) {
  return layout.recompute == Recompute::full ? 4.0 / 3 : 1;
}

double tokens_per_pass(const ModelShape& shape, const Layout& layout) {
  return double(layout.micro_batch) * double(shape.sequence);
}

double speed(const Hardware& hw, const Calibration& c) {
  return hw.flops * c.gemm_efficiency;
}

double nodes(const Hardware& hw, const Layout& layout) {
  return std::max(1.0, double(layout.devices()) / hw.per_node);
}

/// Parameters of the stage that has most.
double stage_parameters(const ModelShape& shape, const std::vector<LayerRange>& stages,
                        const Layout& layout) {
  double most = 0;
  for (int rank = 0; rank < layout.pp; ++rank) {
    double parameters = 0;
    for (int chunk = 0; chunk < layout.chunks; ++chunk)
      parameters += double(stages[static_cast<std::size_t>(chunk * layout.pp + rank)].size()) *
                    shape.layer_parameters();
    if (rank == 0) parameters += shape.embedding_parameters();
    if (rank + 1 == layout.pp && !(rank == 0 && shape.tied_head)) parameters += shape.embedding_parameters();
    most = std::max(most, parameters);
  }
  return most / layout.tp;
}

/// Bytes per second at which a rank takes part in collectives of its data-parallel group. The ring goes
/// through each node once, over the ports of all its members there.
double data_bandwidth(const Hardware& hw, const Layout& layout, const Calibration& c) {
  if (layout.dp * layout.tp <= hw.per_node) return hw.node_bandwidth * c.node_efficiency;
  if (layout.zero == 3) return hw.network_bandwidth * c.gather_efficiency;
  const double members = std::max(1.0, double(hw.per_node) / layout.tp);
  const double network =
      hw.network_bandwidth * members * c.data_efficiency * std::pow(nodes(hw, layout), -c.data_spread);
  return std::min(network, hw.node_bandwidth * c.node_efficiency);
}

}  // namespace

PassTime layer_time(const ModelShape& shape, const Hardware& hw, const Layout& layout, const Calibration& c) {
  const double tokens = tokens_per_pass(shape, layout), t = layout.tp;
  PassTime time;
  time.compute = tokens * shape.layer_flops_per_token() * recompute_factor(layout) / t / speed(hw, c);
  const double once = layer_activations(shape, double(layout.micro_batch), layout.tp,
                                        layout.sequence_parallel, Recompute::attention, c);
  const double scores = c.fused_attention ? 0
                                          : layer_activations(shape, double(layout.micro_batch), layout.tp,
                                                              layout.sequence_parallel, Recompute::none, c) -
                                                once;
  const double again = layout.recompute == Recompute::none ? 1 : 4.0 / 3;
  time.memory = c.memory_passes * (once * recompute_factor(layout) + scores * again) / hw.memory_bandwidth;
  if (layout.tp > 1) {
    // 2 all-reduces forward, 2 backward, and 2 more where forward is done again; each moves 2 (t-1)/t of its
    // bytes.
    const double all_reduces = layout.recompute == Recompute::full ? 6 : 4;
    const double bytes = all_reduces * 2 * (t - 1) / t * tokens * double(shape.hidden) * kElement;
    const bool inside = layout.tp <= hw.per_node;
    const double bandwidth = inside ? hw.node_bandwidth * c.node_efficiency
                                    : hw.network_bandwidth * c.network_efficiency * hw.per_node;
    time.tensor = bytes / bandwidth + (inside ? 0 : 2 * all_reduces * c.network_latency * t / hw.per_node);
  }
  double least = layout.tp > 1 ? c.layer_overhead : 0;
  if (layout.pp > 1 && nodes(hw, layout) > 1)
    least = c.pipeline_overhead * std::pow(t, c.pipeline_overhead_growth);
  time.overhead = std::max(0.0, least - time.compute - time.memory - time.tensor);
  return time;
}

PassTime head_time(const ModelShape& shape, const Hardware& hw, const Layout& layout, const Calibration& c) {
  return {.compute =
              tokens_per_pass(shape, layout) * shape.head_flops_per_token() / layout.tp / speed(hw, c)};
}

Traffic traffic(const ModelShape& shape, const Layout& layout, const Calibration& c) {
  const std::vector<LayerRange> stages = stages_of(shape, layout, c);
  const double m = double(layout.micro_batches), t = layout.tp, n = layout.dp;
  const double activation = tokens_per_pass(shape, layout) * double(shape.hidden) * kElement;
  Traffic bytes;
  double layers = 0;
  for (int chunk = 0; chunk < layout.chunks; ++chunk)
    layers += double(stages[static_cast<std::size_t>(chunk * layout.pp)].size());
  bytes.tensor = layers * m * (layout.recompute == Recompute::full ? 6 : 4) * 2 * (t - 1) / t * activation;
  if (layout.pp > 1) bytes.pipeline = 2 * m * layout.chunks * activation / t;
  const double parameters = stage_parameters(shape, stages, layout);
  // ZeRO 0 and 1 add up gradients over the micro-batches first; 2 and 3 have no room for that, and scatter
  // those of each; 3 gathers the parameters twice for each.
  const double times = layout.zero == 3 ? 3 * m : layout.zero == 2 ? m + 1 : 2;
  bytes.data = times * parameters * (n - 1) / n * c.gradient_traffic;
  return bytes;
}

StepTime step_time(const ModelShape& shape, const Hardware& hw, const Layout& layout, const Calibration& c) {
  const std::vector<LayerRange> stages = stages_of(shape, layout, c);
  const double m = double(layout.micro_batches), p = layout.pp, v = layout.chunks, n = nodes(hw, layout);
  const PassTime layer = layer_time(shape, hw, layout, c), head = head_time(shape, hw, layout, c);
  // The slowest stage sets the pace of a pipeline.
  double slowest_layers = 0, slowest_head = 0;
  for (int rank = 0; rank < layout.pp; ++rank) {
    double layers = 0;
    for (int chunk = 0; chunk < layout.chunks; ++chunk)
      layers += double(stages[static_cast<std::size_t>(chunk * layout.pp + rank)].size());
    const double heads = rank + 1 == layout.pp ? 1 : 0;
    if (layers * layer.total() + heads * head.total() >
        slowest_layers * layer.total() + slowest_head * head.total()) {
      slowest_layers = layers;
      slowest_head = heads;
    }
  }
  StepTime time;
  time.compute = m * (slowest_layers * layer.compute + slowest_head * head.compute);
  time.memory = m * slowest_layers * layer.memory;
  time.tensor = m * slowest_layers * layer.tensor;
  time.overhead = m * slowest_layers * layer.overhead;
  const Traffic bytes = traffic(shape, layout, c);
  if (layout.pp > 1) {
    const bool inside = n <= 1;
    const double bandwidth =
        inside ? hw.node_bandwidth * c.node_efficiency : hw.network_bandwidth * c.network_efficiency;
    time.pipeline = bytes.pipeline / bandwidth;
    if (!inside) {
      time.pipeline += m * c.congestion * std::pow(n / 32, c.congestion_growth);
      if (layout.zero == 0 && layout.dp > 1) time.pipeline += m * c.unsharded_sync * n;
    }
  }
  time.bubble =
      (time.compute + time.memory + time.tensor + time.overhead + time.pipeline) * (p - 1) / (v * m);
  if (layout.dp > 1) {
    const double data = bytes.data / data_bandwidth(hw, layout, c);
    // ZeRO-3 fetches the next layer's parameters while this one computes, and ZeRO-2 scatters the gradients
    // of all micro-batches but one meanwhile.
    const double hidden = c.gather_overlap_efficiency * (time.compute + time.memory + time.tensor);
    const double in_the_open = layout.zero == 3 ? 0 : layout.zero == 2 ? data * 2 / (m + 1) : data;
    time.data = in_the_open + std::max(0.0, data - in_the_open - hidden);
  }
  // AdamW reads and writes value, gradient and moments once.
  const double updated = stage_parameters(shape, stages, layout) / (layout.zero > 0 ? layout.dp : 1);
  time.optimizer = 30 * updated / hw.memory_bandwidth;
  return time;
}

double model_flops_per_step(const ModelShape& shape, const Layout& layout) {
  return double(layout.batch()) * double(shape.sequence) * shape.flops_per_token();
}

double hardware_flops_per_step(const ModelShape& shape, const Layout& layout) {
  return double(layout.batch()) * double(shape.sequence) *
         (double(shape.layers) * shape.layer_flops_per_token() * recompute_factor(layout) +
          shape.head_flops_per_token());
}

}  // namespace llm::planner
