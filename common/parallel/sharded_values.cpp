// Values and moments of a sharded stage: first values, gathering, the update. See sharded_stage.h.
#include <algorithm>
#include <utility>

#include "common/core/error.h"
#include "common/ops/ops.h"
#include "common/parallel/sharded_stage.h"

namespace llm {

ShardedStage::ShardedStage(GptStage stage, Communicator& dp, int zero, OptimizerKind kind,
                           const AdamWOptions& options, bool no_sync)
    : stage_(std::move(stage)),
      dp_(dp),
      zero_(zero),
      no_sync_(no_sync),
      kind_(kind),
      options_(options),
      partition_(stage_, zero == 0 ? 1 : dp.size(), zero == 0 ? 0 : dp.rank()),
      norm_partition_(stage_, dp.size(), dp.rank()),
      unit_gradients_(partition_.units.size()),
      shard_has_sum_(partition_.units.size()),
      gathered_(partition_.units.size()) {
  validate(options);
  if (zero < 0 || zero > 3) fail_usage("there are ZeRO stages 0 (none), 1, 2 and 3, but no {}", zero);
  const Placement& at = stage_.placement();
  check(at.buffers.values == stage_buffers(zero).values &&
            at.buffers.gradients == stage_buffers(zero).gradients,
        "the stage was built with other buffers than ZeRO {} has", zero);
  if (kind == OptimizerKind::sgd && at.device != Device::cpu)
    fail_usage("SGD is there for comparisons on the CPU; use AdamW on the device");
  const Shape shape{partition_.shard_count}, moments{partition_.moment_count};
  if (kind == OptimizerKind::adamw) {
    first_moment_ = Tensor(moments, DType::f32, at.device);
    second_moment_ = Tensor(moments, DType::f32, at.device);
  }
  if (zero >= 2) gradient_shard_ = Tensor(shape, DType::f32, at.device);
  if (zero == 3) value_shard_ = Tensor(shape, DType::f32, at.device);
}

void ShardedStage::train_also(ParameterStore& store) {
  check(kind_ == OptimizerKind::adamw, "what trains beside a stage is updated by AdamW");
  beside_.push_back({&store, AdamW(store, options_)});
}

bool ShardedStage::tied() const {
  return stage_.config().tied_head && stage_.has_embedding() && stage_.has_head();
}

Tensor ShardedStage::unit_range(const Tensor& flat, std::size_t unit) const {
  return flat.range(partition_.units[unit].begin, {partition_.units[unit].count});
}

Tensor ShardedStage::owned_values(const OwnedRange& range) const {
  return zero_ < 3 ? stage_.parameters().values().range(range.flat, {range.count})
                   : value_shard_.range(range.shard, {range.count});
}

void ShardedStage::initialize(const std::function<void(const ParameterUnit&, const Tensor&)>& fill) {
  for (std::size_t i = 0; i < partition_.units.size(); ++i) {
    const UnitPieces& u = partition_.units[i];
    if (u.count == 0) continue;
    // One unit at a time, so that no rank ever needs room for all of them.
    const Tensor whole({u.piece * partition_.ranks});
    if (dp_.rank() == 0) fill(u.parameters, whole.range(0, {u.count}));
    if (dp_.size() > 1) dp_.broadcast(whole, 0).wait();
    if (zero_ < 3)
      unit_range(stage_.parameters().values(), i).copy_from(whole.range(0, {u.count}));
    else
      value_shard_.range(u.shard, {u.piece}).copy_from(whole.range(partition_.rank * u.piece, {u.piece}));
  }
  stage_.parameters().round_values();
}

// ---- zero 3: values come and go ----------------------------------------------------------------

void ShardedStage::start_gather(std::size_t unit) {
  const UnitPieces& u = partition_.units[unit];
  Gathered& g = gathered_[unit];
  if (g.values.defined() || u.count == 0) return;
  const Placement& at = stage_.placement();
  g.values = Tensor::uninitialized({u.piece * partition_.ranks}, at.dtype, at.device);
  g.part = value_shard_.range(u.shard, {u.piece});
  if (at.dtype != DType::f32) {  // half the bytes: what the model computes with
    const Tensor rounded = Tensor::uninitialized({u.piece}, at.dtype, at.device);
    cast(rounded, g.part);
    g.part = rounded;
  }
  g.work = dp_.all_gather(g.values, g.part);
}

void ShardedStage::fetch(std::size_t unit) {
  start_gather(unit);
  Gathered& g = gathered_[unit];
  if (!g.work) return;
  g.work->wait();
  g.work.reset();
  g.part = {};
  const ParameterUnit& p = partition_.units[unit].parameters;
  stage_.parameters().attach_values(p.first, p.last, g.values);
}

void ShardedStage::release(std::size_t unit) {
  const ParameterUnit& p = partition_.units[unit].parameters;
  stage_.parameters().attach_values(p.first, p.last, {});
  gathered_[unit].values = {};
}

void ShardedStage::before_forward(std::size_t unit) {
  if (zero_ < 3) return;
  fetch(unit);
  // A tied head's final norm comes with the matrix that it shares, so that each parameter is gathered once in
  // forward and once in backward.
  if (unit == 0 && tied()) fetch(head_unit());
  if (unit + 1 < head_unit()) start_gather(unit + 1);
}

void ShardedStage::after_forward(std::size_t unit) {
  if (zero_ < 3) return;
  release(unit);
  if (unit == 0 && tied()) release(head_unit());
}

void ShardedStage::before_head(bool training) {
  if (zero_ == 3) {
    fetch(head_unit());
    if (tied()) fetch(0);
    if (training && head_unit() > 1) start_gather(head_unit() - 1);
  }
  if (!training) return;
  bring_gradients(head_unit());
  if (tied() && partition_.units[0].trains) bring_gradients(0);
}

void ShardedStage::after_head(bool training) {
  if (zero_ == 3) {
    release(head_unit());
    if (tied()) release(0);
  }
  if (training && (reduces_every_pass() || last_pass_) && held_ != head_unit()) reduce(head_unit());
}

// ---- the update --------------------------------------------------------------------------------

void ShardedStage::update(double learning_rate, double gradient_scale) {
  ++steps_taken;
  AdamWStep step = adamw_step(options_, steps_taken, learning_rate, gradient_scale);
  for (const OwnedRange& range : partition_.owned) {
    const Tensor values = owned_values(range), gradients = owned_gradients(range);
    if (kind_ == OptimizerKind::sgd) {
      const auto rate = static_cast<float>(learning_rate), scale = static_cast<float>(gradient_scale);
      float* value = values.data();
      const float* gradient = gradients.data();
      for (std::int64_t i = 0; i < range.count; ++i) value[i] -= rate * (scale * gradient[i]);
      continue;
    }
    step.weight_decay = range.decay ? options_.weight_decay : 0;
    adamw_update(values, first_moment_.range(range.moment, {range.count}),
                 second_moment_.range(range.moment, {range.count}), gradients, step);
  }
  for (Beside& b : beside_) b.optimizer.step(learning_rate, gradient_scale);
  refresh_values();
}

void ShardedStage::refresh_values() {
  if (zero_ == 1 || zero_ == 2) gather_updated();
  stage_.parameters().round_values();
}

/// zero 1 and 2: every rank has updated its piece of each unit.
void ShardedStage::gather_updated() {
  struct Gather {
    Tensor all, part;
    Work work;
  };
  std::vector<Gather> gathers;
  for (std::size_t i = 0; i < partition_.units.size(); ++i) {
    const UnitPieces& u = partition_.units[i];
    if (!u.trains) continue;
    const Tensor values = unit_range(stage_.parameters().values(), i);
    Gather g{values, {}, {}};
    if (u.piece * partition_.ranks == u.count) {
      g.part = values.range(partition_.rank * u.piece, {u.piece});
    } else {  // ragged: through a copy that is filled up
      const Device device = stage_.placement().device;
      g.all = Tensor::uninitialized({u.piece * partition_.ranks}, DType::f32, device);
      g.part = Tensor({u.piece}, DType::f32, device);
      const std::int64_t mine = std::min(u.count, partition_.rank * u.piece);
      const std::int64_t count = std::min(u.count, mine + u.piece) - mine;
      g.part.range(0, {count}).copy_from(values.range(mine, {count}));
    }
    g.work = dp_.all_gather(g.all, g.part);
    gathers.push_back(std::move(g));
  }
  std::size_t next = 0;
  for (std::size_t i = 0; i < partition_.units.size(); ++i) {
    const UnitPieces& u = partition_.units[i];
    if (!u.trains) continue;
    Gather& g = gathers[next++];
    g.work.wait();
    if (g.all.numel() != u.count)
      unit_range(stage_.parameters().values(), i).copy_from(g.all.range(0, {u.count}));
  }
}

// ---- state -------------------------------------------------------------------------------------

std::vector<ShardedStage::StatePiece> ShardedStage::state_to_save() const {
  std::vector<StatePiece> pieces = pieces_of(norm_partition_);
  std::erase_if(pieces, [](const StatePiece& piece) { return !piece.parameter->owner; });
  return pieces;
}

std::vector<ShardedStage::StatePiece> ShardedStage::pieces_of(const Partition& partition) const {
  std::vector<StatePiece> pieces;
  for (const OwnedRange& range : partition.owned) {
    const ParameterUnit& unit = partition.units[range.unit].parameters;
    for (std::size_t i = unit.first; i < unit.last; ++i) {
      const Parameter& p = stage_.parameters()[i];
      const std::int64_t first = std::max(range.flat, p.offset);
      const std::int64_t last = std::min(range.flat + range.count, p.offset + element_count(p.shape));
      if (first >= last) continue;
      const std::int64_t within = first - range.flat;
      const Shape shape{last - first};
      const auto moment = [&](const Tensor& t) {
        return t.defined() ? t.range(partition_.moment_of(first), shape) : Tensor();
      };
      pieces.push_back({.parameter = &p,
                        .begin = first - p.offset,
                        .value = owned_values(range).range(within, shape),
                        .first_moment = moment(first_moment_),
                        .second_moment = moment(second_moment_)});
    }
  }
  return pieces;
}

void ShardedStage::visit_values(const std::function<void(const Parameter&)>& use) {
  for (std::size_t i = 0; i < partition_.units.size(); ++i) {
    const UnitPieces& u = partition_.units[i];
    if (u.count == 0) continue;
    Tensor whole;
    if (zero_ < 3) {
      whole = unit_range(stage_.parameters().values(), i);
    } else {
      whole = Tensor::uninitialized({u.piece * partition_.ranks}, DType::f32, stage_.placement().device);
      dp_.all_gather(whole, value_shard_.range(u.shard, {u.piece})).wait();
    }
    whole = whole.to(Device::cpu);
    for (std::size_t p = u.parameters.first; p < u.parameters.last; ++p) {
      Parameter parameter = stage_.parameters()[p];
      parameter.value = whole.range(parameter.offset - u.begin, parameter.shape);
      use(parameter);
    }
  }
}

}  // namespace llm
