// What a shard of a model does that a model alone does not: meet the other ranks. Chapter 6 explains it.
//
// Megatron's conjugate operators (Shoeybi et al. 2019, section 3, figure 3) stand before and behind the part
// of a branch that is shared out, which turns replicated rows into a sum over ranks:
//
//              forward      backward                with sequence parallelism (Korthikanti et al. 2022, 4.2):
//     f        nothing      all-reduce              all-gather       reduce-scatter
//     g        all-reduce   nothing                 reduce-scatter   all-gather
//
// So f's backward is g, and g's is f.
#include <algorithm>

#include "common/core/error.h"
#include "common/model/gpt.h"
#include "common/ops/ops.h"

namespace llm {

/// Returns all rows of x; `room` (B, T, C) takes them where x has only some.
const Tensor& GptStage::f(const Tensor& x, const Tensor& room) const {
  if (!rows_split()) return x;
  options_.tensor_group->all_gather(room, x);
  return room;
}

void GptStage::f_backward(const Tensor& dx, const Tensor& room) const {
  g(dx, room);
}

/// Where a product leaves this rank's part of a sum over ranks, which `g` then ends: y (its rows), or `room`.
const Tensor& GptStage::part(const Tensor& y, const Tensor& room) const {
  return rows_split() ? room : y;
}

/// y = this rank's rows of the sum of all ranks' part(y, room).
void GptStage::g(const Tensor& y, const Tensor& room) const {
  if (!split()) return;
  if (rows_split())
    options_.tensor_group->reduce_scatter(y, room);
  else
    options_.tensor_group->all_reduce(y);
}

const Tensor& GptStage::g_backward(const Tensor& dy, const Tensor& room) const {
  return f(dy, room);
}

VocabularyShard GptStage::vocabulary() const {
  return {.first = share_of(config_.vocab_size, rank_, ranks_).begin, .whole = config_.vocab_size};
}

// Logits never leave their rank. Rows are taken in blocks like those of linear_cross_entropy; for each block
// the ranks agree on every row's largest logit, then on the sum of exponentials and the target's logit. The
// blocks must be the same on all ranks, whose shards may differ by a row.
void GptStage::shard_loss(const Tensor& losses, const Tensor& dx, const Tensor& x, const Tensor& targets,
                          float scale, const Tensor& weights) const {
  const std::int64_t most_logits = std::int64_t{1} << (placement_.device == Device::cpu ? 24 : 27);
  const std::int64_t rows = targets.numel(), C = config_.channels;
  const Tensor& w = value(head_);
  const std::int64_t largest_shard = (config_.vocab_size + ranks_ - 1) / ranks_;
  const std::int64_t most_rows = std::max<std::int64_t>(1, most_logits / largest_shard);
  const std::int64_t blocks = std::max<std::int64_t>(1, (rows + most_rows - 1) / most_rows);
  const std::int64_t block = (rows + blocks - 1) / blocks;
  const Tensor logits = Tensor::uninitialized({block * w.dim(0)}, placement_.dtype, placement_.device);
  const Tensor statistics = Tensor::uninitialized({4 * block}, DType::f32, placement_.device);
  for (std::int64_t first = 0; first < rows; first += block) {
    const std::int64_t n = std::min(block, rows - first);
    const Tensor xs = x.range(first * C, {n, C});
    const Tensor wanted = targets.range(first, {n});
    const Tensor line = logits.range(0, {n, w.dim(0)});
    const Tensor highest = statistics.range(0, {n}), total = statistics.range(n, {n});
    const Tensor right = statistics.range(2 * n, {n}), highest_of_all = statistics.range(3 * n, {n});
    linear_forward(line, xs, w, {});  // (n, C) -> (n, V / t)
    shard_cross_entropy_statistics(highest, total, right, line, wanted, vocabulary());
    highest_of_all.copy_from(highest);
    options_.tensor_group->all_reduce_max(highest_of_all);
    shard_cross_entropy_rescale(total, highest, highest_of_all);
    options_.tensor_group->all_reduce(statistics.range(n, {2 * n}));  // total and right
    shard_cross_entropy_losses(losses.range(first, {n}), highest_of_all, total, right, wanted);
    if (!dx.defined()) continue;
    const Tensor shares = weights.defined() ? weights.view({rows}).range(first, {n}) : weights;
    shard_cross_entropy_backward(line, line, wanted, highest_of_all, total, scale, vocabulary(), shares);
    linear_backward(dx.range(first * C, {n, C}), gradient(head_), {}, line, xs, w);
  }
}

/// Logits (..., V) f32 of which this rank has computed `local` (..., V / t) f32: for looking at them, not for
/// training.
Tensor GptStage::gather_logits(const Tensor& local) const {
  const std::int64_t columns = local.dim(-1), V = config_.vocab_size;
  const std::int64_t rows = local.numel() / columns;
  Shape shape = local.shape();
  shape.back() = V;
  Tensor all(shape);
  const Tensor here = local.to(Device::cpu);
  const std::int64_t first = vocabulary().first;
  for (std::int64_t row = 0; row < rows; ++row)
    all.range(row * V + first, {columns}).copy_from(here.range(row * columns, {columns}));
  all = all.to(placement_.device);
  options_.tensor_group->all_reduce(all);  // the shards of the others are 0 here
  return all;
}

void GptStage::sum_partial_gradients(ParameterUnit which) const {
  const auto each = [&](const auto& body) {
    for (std::size_t i = which.first; i < which.last; ++i)
      if (parameters_[i].partial) body(parameters_[i].gradient);
  };
  std::int64_t count = 0;
  each([&](const Tensor& gradient) { count += gradient.numel(); });
  if (count == 0) return;
  const Tensor all = Tensor::uninitialized({count}, DType::f32, placement_.device);
  std::int64_t at = 0;
  const auto next = [&](const Tensor& gradient) {
    const Tensor piece = all.range(at, gradient.shape());
    at += gradient.numel();
    return piece;
  };
  each([&](const Tensor& gradient) { next(gradient).copy_from(gradient); });
  options_.tensor_group->all_reduce(all);
  at = 0;
  each([&](const Tensor& gradient) { gradient.copy_from(next(gradient)); });
}

}  // namespace llm
