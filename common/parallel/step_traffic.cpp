#include "common/parallel/step_traffic.h"

namespace llm {

namespace {

double data_parallel_bytes(const ShardedStage& s, int ranks, int passes) {
  double elements = 0;  // of gradients and values over all operations, before (n - 1) / n
  const bool tied = s.stage().config().tied_head && s.stage().has_embedding() && s.stage().has_head();
  const auto& units = s.partition().units;
  const double width = static_cast<double>(size_of(s.stage().placement().dtype)) / sizeof(float);
  for (std::size_t i = 0; i < units.size(); ++i) {
    const auto n = static_cast<double>(s.zero() == 0 ? units[i].count : units[i].piece * ranks);
    // An embedding and a head of their own are gathered once per pass: the embedding's backward reads no
    // values, and the head's forward and backward are one.
    const bool twice = tied || (i > 0 && i + 1 < units.size());
    const double values = s.zero() == 3 ? passes * width * (twice ? 2 : 1) : 1;
    const double gradients = s.reduces_every_pass() ? passes : 1;
    elements += n * (values + gradients);
  }
  return elements * sizeof(float) * (ranks - 1) / ranks;
}

}  // namespace

StepTraffic step_traffic(const ParallelTrainer& trainer, std::int64_t tokens) {
  const Grid& grid = trainer.grid();
  const PipelineSchedule& schedule = trainer.runner().schedule();
  const GptConfig& config = trainer.config();
  const std::int64_t batch = trainer.run().batch;
  const int passes = schedule.micro_batches;
  StepTraffic traffic;
  std::int64_t chunk = 0;
  for (const auto& s : trainer.stages()) {
    const GptStage& stage = s->stage();
    const auto width = static_cast<double>(size_of(stage.placement().dtype));
    traffic.dp += data_parallel_bytes(*s, grid.layout.dp, passes);
    const LayerRange layers = trainer.layers()[static_cast<std::size_t>(chunk++)];
    const TensorTraffic t = tensor_traffic(config, layers.first, layers.last, batch, tokens, stage.options());
    const double share = (grid.layout.tp - 1.0) / grid.layout.tp;
    traffic.tp += share * passes *
                  (width * static_cast<double>(2 * t.all_reduce + t.reduce_scatter + t.all_gather) +
                   sizeof(float) * 2.0 * static_cast<double>(t.statistics));
    const int sums = s->reduces_every_pass() ? passes : 1;  // of gradients of which each rank has a part
    traffic.tp += share * sizeof(float) * 2.0 * sums * static_cast<double>(t.step_gradients);
  }
  const GptStage& first = trainer.stages().front()->stage();
  const auto message = static_cast<double>(element_count(first.stream_shape(batch, tokens)) *
                                           static_cast<std::int64_t>(size_of(first.placement().dtype)));
  for (const Instruction& i : schedule.instructions[static_cast<std::size_t>(grid.pp_rank)])
    if (i.sends()) traffic.pp += message;
  // The tied embedding's gradient: the last stage's sum to the first, the whole back.
  if (config.tied_head && schedule.ranks > 1)
    for (const auto& s : trainer.stages())
      if (const Parameter* matrix = s->stage().parameters().find("wte.weight"))
        traffic.pp += static_cast<double>(element_count(matrix->shape)) * sizeof(float);
  return traffic;
}

double state_bytes(const ParallelTrainer& trainer) {
  double bytes = 0;
  for (const auto& s : trainer.stages()) {
    const auto all = static_cast<double>(s->stage().parameters().count());
    const auto mine = static_cast<double>(s->partition().shard_count);
    const int moments = trainer.options().optimizer == OptimizerKind::adamw ? 2 : 0;
    const bool kept = s->zero() >= 2 && !s->reduces_every_pass() &&  // gradients between the passes
                      trainer.runner().schedule().micro_batches > 1;
    const double gradients = s->zero() < 2 ? all : mine + (kept ? all : 0);
    const double counts = moments * mine + gradients + (s->zero() == 3 ? mine : all);
    bytes += sizeof(float) * counts;
    if (s->stage().placement().dtype != DType::f32 && s->zero() < 3) bytes += 2 * all;  // rounded values
  }
  return bytes;
}

}  // namespace llm
