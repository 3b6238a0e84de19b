// Gradients of a sharded stage: reduced unit by unit while backward goes on. See sharded_stage.h.
#include "common/core/error.h"
#include "common/ops/ops.h"
#include "common/parallel/sharded_stage.h"

namespace llm {

void ShardedStage::zero_gradients() {
  if (zero_ < 2)
    stage_.parameters().zero_gradients();
  else
    shard_has_sum_.assign(partition_.units.size(), false);
}

void ShardedStage::before_backward(std::size_t unit) {
  const bool reads_values = unit > 0;  // the embedding's backward only writes
  if (zero_ == 3 && reads_values) {
    fetch(unit);
    if (unit > 1) start_gather(unit - 1);
  }
  bring_gradients(unit);
}

void ShardedStage::after_backward(std::size_t unit) {
  if (zero_ == 3 && unit > 0) release(unit);
  if ((zero_ >= 2 || last_pass_) && unit != held_) reduce(unit);
}

/// zero 2 and 3: gradients of a unit exist from its backward until they are reduced.
void ShardedStage::bring_gradients(std::size_t unit) {
  if (zero_ < 2 || unit_gradients_[unit].defined()) return;
  const UnitPieces& u = partition_.units[unit];
  unit_gradients_[unit] =
      Tensor({u.piece * partition_.ranks}, DType::f32, stage_.placement().device);  // zeros, filling too
  stage_.parameters().attach_gradients(u.parameters.first, u.parameters.last, unit_gradients_[unit]);
}

/// Sequence parallelism: of norms and the like each tensor-parallel rank has seen its positions only.
void ShardedStage::sum_partial(std::size_t unit) const {
  const ParameterUnit& u = partition_.units[unit].parameters;
  for (std::size_t i = u.first; i < u.last; ++i) {
    const Parameter& p = stage_.parameters()[i];
    if (p.partial) stage_.options().tensor_group->all_reduce(p.gradient);
  }
}

void ShardedStage::reduce(std::size_t unit) {
  const UnitPieces& u = partition_.units[unit];
  if (u.count == 0) return;
  sum_partial(unit);
  const Device device = stage_.placement().device;
  if (zero_ == 0) {
    Reduction r{unit, unit_range(stage_.parameters().gradients(), unit), {}, {}};
    if (dp_.size() > 1) r.work = dp_.all_reduce(r.whole);
    reductions_.push_back(std::move(r));
    return;
  }
  Reduction r{unit, {}, {}, {}};
  if (zero_ == 1) {
    const Tensor gradients = unit_range(stage_.parameters().gradients(), unit);
    if (u.piece * partition_.ranks == u.count) {
      r.whole = gradients;
      r.part = gradients.range(partition_.rank * u.piece, {u.piece});
    } else {  // ragged: through a copy that is filled up
      r.whole = Tensor({u.piece * partition_.ranks}, DType::f32, device);
      r.whole.range(0, {u.count}).copy_from(gradients);
      r.part = Tensor::uninitialized({u.piece}, DType::f32, device);
    }
  } else {
    while (!reductions_.empty()) finish_reduction(0);  // so that at most two units have gradients
    r.whole = std::exchange(unit_gradients_[unit], Tensor());
    stage_.parameters().attach_gradients(u.parameters.first, u.parameters.last, {});
    const Tensor place = gradient_shard_.range(u.shard, {u.piece});
    r.part = shard_has_sum_[unit] ? Tensor::uninitialized({u.piece}, DType::f32, device) : place;
  }
  r.work = dp_.reduce_scatter(r.part, r.whole);
  reductions_.push_back(std::move(r));
}

void ShardedStage::finish_reduction(std::size_t index) {
  Reduction& r = reductions_[index];
  r.work.wait();
  const UnitPieces& u = partition_.units[r.unit];
  if (zero_ == 1 && r.whole.numel() != u.count) {
    for (const OwnedRange& range : partition_.owned)
      if (range.unit == r.unit)
        owned_gradients(range).copy_from(r.part.range(range.shard - u.shard, {range.count}));
  } else if (zero_ >= 2) {
    const Tensor place = gradient_shard_.range(u.shard, {u.piece});
    if (shard_has_sum_[r.unit]) add(place, place, r.part);
    shard_has_sum_[r.unit] = true;
  }
  reductions_.erase(reductions_.begin() + static_cast<std::ptrdiff_t>(index));
}

void ShardedStage::finish_gradients() {
  while (!reductions_.empty()) finish_reduction(0);
}

Tensor ShardedStage::owned_gradients(const OwnedRange& range) const {
  return zero_ < 2 ? stage_.parameters().gradients().range(range.flat, {range.count})
                   : gradient_shard_.range(range.shard, {range.count});
}

void ShardedStage::add_squares(ExactSquares& squares) const {
  for (const OwnedRange& range : norm_partition_.owned)
    if (range.counted) squares.add(owned_gradients(range).to(Device::cpu).span());
}

}  // namespace llm
