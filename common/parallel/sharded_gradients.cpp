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
  for (const Beside& b : beside_) b.store->zero_gradients();
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
  if ((reduces_every_pass() || last_pass_) && unit != held_) reduce(unit);
}

/// zero 2 and 3: gradients of a unit exist from its (first) backward until they are reduced.
void ShardedStage::bring_gradients(std::size_t unit) {
  if (zero_ < 2 || unit_gradients_[unit].defined()) return;
  const UnitPieces& u = partition_.units[unit];
  unit_gradients_[unit] =
      Tensor({u.piece * partition_.ranks}, DType::f32, stage_.placement().device);  // zeros, filling too
  stage_.parameters().attach_gradients(u.parameters.first, u.parameters.last, unit_gradients_[unit]);
}

/// Of what is not split, each tensor-parallel rank may have seen its part only: its positions (norms, with
/// sequence parallelism), or its share of a layer (adapters).
void ShardedStage::sum_partial(const Parameter& p) const {
  if (p.partial && p.trains) stage_.options().tensor_group->all_reduce(p.gradient);
}

void ShardedStage::reduce(std::size_t unit) {
  const UnitPieces& u = partition_.units[unit];
  if (!u.trains) {
    unit_gradients_[unit] = {};
    if (zero_ >= 2) stage_.parameters().attach_gradients(u.parameters.first, u.parameters.last, {});
    return;
  }
  for (std::size_t i = u.parameters.first; i < u.parameters.last; ++i) sum_partial(stage_.parameters()[i]);
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
  for (const Beside& b : beside_) {
    for (const Parameter& p : b.store->all()) sum_partial(p);
    if (dp_.size() > 1) dp_.all_reduce(b.store->gradients()).wait();
  }
}

Tensor ShardedStage::owned_gradients(const OwnedRange& range) const {
  return zero_ < 2 ? stage_.parameters().gradients().range(range.flat, {range.count})
                   : gradient_shard_.range(range.shard, {range.count});
}

void ShardedStage::add_squares(ExactSquares& squares) const {
  for (const OwnedRange& range : norm_partition_.owned)
    if (range.counted) squares.add(owned_gradients(range).to(Device::cpu).span());
  if (dp_.rank() != 0) return;  // all of them have the same beside it
  for (const Beside& b : beside_)
    for (const Parameter& p : b.store->all())
      if (p.trains && p.owner) squares.add(p.gradient.to(Device::cpu).span());
}

std::int64_t ShardedStage::trained_count() const {
  std::int64_t count = 0;
  const auto add_store = [&](const ParameterStore& store) {
    for (const Parameter& p : store.all())
      if (p.trains && p.owner) count += element_count(p.shape);
  };
  add_store(stage_.parameters());
  for (const Beside& b : beside_) add_store(*b.store);
  return count;
}

double ShardedStage::squares_alone() const {
  double sum = 0;
  for (const OwnedRange& range : norm_partition_.owned) sum += squared_norm(owned_gradients(range));
  for (const Beside& b : beside_)
    for (const Parameter& p : b.store->all())
      if (p.trains) sum += squared_norm(p.gradient);
  return sum;
}

}  // namespace llm
