#include "common/parallel/planner/memory.h"

#include <algorithm>

#include "common/core/error.h"

namespace llm::planner {

Memory model_states(double parameters, int dp, int zero, const Calibration& c) {
  const auto share = [&](int from_stage) { return zero >= from_stage ? double(dp) : 1.0; };
  return {.parameters = c.parameter_bytes * parameters / share(3),
          .gradients = c.gradient_bytes * parameters / share(2),
          .optimizer = c.optimizer_bytes * parameters / share(1)};
}

double layer_activations(const ModelShape& shape, double micro_batch, int tp, bool sequence_parallel,
                         Recompute recompute, const Calibration& c) {
  const double s = double(shape.sequence), b = micro_batch, h = double(shape.hidden), f = double(shape.ffn);
  const double kv = double(shape.kv_heads) / double(shape.heads), t = tp;
  if (recompute == Recompute::full) return c.hidden_scale * 2 * s * b * h / (sequence_parallel ? t : 1);
  // Along the residual stream: inputs of two norms and of two linear layers (2 bytes each), two dropout masks
  // (1).
  const double whole = 10 * h / (sequence_parallel ? t : 1);
  // Within attention: queries, keys, values, and what the heads bring back. Within the feed-forward layer:
  // what goes into the non-linearity and comes out of it, and for gated ones the other factor.
  const double attention = (4 + 4 * kv) * h / t;
  const double feed_forward = (shape.gated ? 6 : 4) * f / t;
  // Softmax's output and its dropout's (2 bytes each) and mask (1), for all pairs of positions.
  const double scores = recompute == Recompute::none ? 5 * double(shape.heads) * s / t : 0;
  return s * b * (c.hidden_scale * (whole + attention) + c.ffn_scale * feed_forward + scores);
}

std::vector<LayerRange> stages_of(const ModelShape& shape, const Layout& layout, const Calibration& c) {
  const int stages = layout.pp * layout.chunks;
  if (shape.layers < std::int64_t{stages} * (stages > 1 ? c.min_stage_layers : 1))
    fail_usage("{} layers are too few for {} stages", shape.layers, stages);
  const double head = shape.head_flops_per_token() / shape.layer_flops_per_token();
  return split_layers(shape.layers, stages, 0, c.balance_head ? head : 0);
}

double layers_in_flight(const Layout& layout, int rank, const std::vector<LayerRange>& stages) {
  const double m = double(layout.micro_batches), p = layout.pp, v = layout.chunks;
  double layers = 0;
  for (int chunk = 0; chunk < layout.chunks; ++chunk)
    layers += double(stages[static_cast<std::size_t>(chunk * layout.pp + rank)].size());
  switch (layout.schedule) {
    case PipelineKind::gpipe:
      return m * layers;
    case PipelineKind::one_f_one_b:
      return std::min(m, p - rank) * layers;
    case PipelineKind::interleaved:
      return std::min(m * v, 2 * (p - 1 - rank) + (v - 1) * p + 1) * layers / v;
  }
  return 0;
}

std::vector<Memory> memory_by_stage(const ModelShape& shape, const Layout& layout, const Calibration& c) {
  const std::vector<LayerRange> stages = stages_of(shape, layout, c);
  const double t = layout.tp, b = double(layout.micro_batch), s = double(shape.sequence);
  const double per_layer =
      layer_activations(shape, b, layout.tp, layout.sequence_parallel, layout.recompute, c);
  std::vector<Memory> ranks;
  for (int rank = 0; rank < layout.pp; ++rank) {
    double parameters = 0;
    for (int chunk = 0; chunk < layout.chunks; ++chunk)
      parameters += double(stages[static_cast<std::size_t>(chunk * layout.pp + rank)].size()) *
                    shape.layer_parameters();
    const bool first = rank == 0, last = rank + 1 == layout.pp;
    if (first)
      parameters += shape.embedding_parameters() + (shape.learned_positions ? s * double(shape.hidden) : 0);
    // A tied head on another rank than the embedding is a second copy.
    if (last && !(first && shape.tied_head)) parameters += shape.embedding_parameters();
    Memory memory = model_states(parameters / t, layout.dp, layout.zero, c);
    memory.activations = layers_in_flight(layout, rank, stages) * per_layer;
    if (layout.recompute == Recompute::full)  // one layer at a time is there in full
      memory.activations +=
          layer_activations(shape, b, layout.tp, layout.sequence_parallel, Recompute::attention, c);
    if (last) memory.activations += c.logit_bytes * b * s * double(shape.vocabulary) / t;
    memory.buffers = c.fixed_bytes;
    if (layout.zero == 3)  // the layer at work and the next one
      memory.buffers += 2 * c.parameter_bytes * shape.layer_parameters() / t;
    ranks.push_back(memory);
  }
  return ranks;
}

Memory memory_per_rank(const ModelShape& shape, const Layout& layout, const Calibration& c) {
  const std::vector<Memory> ranks = memory_by_stage(shape, layout, c);
  return *std::max_element(ranks.begin(), ranks.end(),
                           [](const Memory& a, const Memory& b) { return a.total() < b.total(); });
}

}  // namespace llm::planner
