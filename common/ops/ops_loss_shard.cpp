// The checks of the loss over a vocabulary that several ranks share. Chapter 6.
#include "common/ops/checks.h"
#include "common/ops/cpu/kernels.h"
#include "common/ops/cuda/kernels.h"
#include "common/ops/ops.h"

namespace llm {

namespace {

/// Fills in the shard's size; its targets are those of the whole vocabulary.
VocabularyShard check_logits(const Checks& check, const Tensor& logits, const Tensor& targets,
                             VocabularyShard shard) {
  check.tensor("logits", logits);
  const std::int64_t rows = check.rows("logits", logits, logits.rank() == 0 ? 1 : logits.dim(-1));
  check.count("targets", targets, rows, DType::i32);
  shard = check_shard(check, shard, logits.dim(-1));
  if (check.on_cuda()) return shard;  // the kernels look at them: ops/cuda/ids.cuh
  for (const std::int32_t target : targets.span<std::int32_t>())
    llm::check(target >= -1 && target < shard.whole,
               "{}: target {} is neither within the vocabulary of {} nor -1 (ignored)", check.function,
               target, shard.whole);
  return shard;
}

}  // namespace

void shard_cross_entropy_statistics(const Tensor& highest, const Tensor& total, const Tensor& right,
                                    const Tensor& logits, const Tensor& targets,
                                    const VocabularyShard& part) {
  const Checks check{"shard_cross_entropy_statistics", "logits", logits};
  const VocabularyShard shard = check_logits(check, logits, targets, part);
  for (const auto& [name, t] : {std::pair("highest", &highest), {"total", &total}, {"right", &right}})
    check.count(name, *t, targets.numel(), DType::f32);
  if (check.on_cuda())
    return cuda::shard_cross_entropy_statistics(highest, total, right, logits, targets, shard);
  cpu::shard_cross_entropy_statistics(highest.data(), total.data(), right.data(), logits.data(),
                                      targets.data<std::int32_t>(), targets.numel(), logits.dim(-1),
                                      shard.first);
}

void shard_cross_entropy_rescale(const Tensor& total, const Tensor& highest, const Tensor& new_highest) {
  const Checks check{"shard_cross_entropy_rescale", "total", total};
  check.count("total", total, total.numel(), DType::f32);
  check.count("highest", highest, total.numel(), DType::f32);
  check.count("new_highest", new_highest, total.numel(), DType::f32);
  if (check.on_cuda()) return cuda::shard_cross_entropy_rescale(total, highest, new_highest);
  cpu::shard_cross_entropy_rescale(total.data(), highest.data(), new_highest.data(), total.numel());
}

void shard_cross_entropy_losses(const Tensor& losses, const Tensor& highest, const Tensor& total,
                                const Tensor& right, const Tensor& targets) {
  const Checks check{"shard_cross_entropy_losses", "losses", losses};
  const std::int64_t rows = losses.numel();
  for (const auto& [name, t] : {std::pair("highest", &highest), {"total", &total}, {"right", &right}})
    check.count(name, *t, rows, DType::f32);
  check.count("targets", targets, rows, DType::i32);
  if (check.on_cuda()) return cuda::shard_cross_entropy_losses(losses, highest, total, right, targets);
  cpu::shard_cross_entropy_losses(losses.data(), highest.data(), total.data(), right.data(),
                                  targets.data<std::int32_t>(), rows);
}

void shard_cross_entropy_backward(const Tensor& dlogits, const Tensor& logits, const Tensor& targets,
                                  const Tensor& highest, const Tensor& total, float scale,
                                  const VocabularyShard& part, const Tensor& weights) {
  const Checks check{"shard_cross_entropy_backward", "logits", logits};
  const VocabularyShard shard = check_logits(check, logits, targets, part);
  check.same_shape("dlogits", dlogits, "logits", logits);
  check.count("highest", highest, targets.numel(), DType::f32);
  check.count("total", total, targets.numel(), DType::f32);
  if (weights.defined()) check.count("weights", weights, targets.numel(), DType::f32);
  if (check.on_cuda())
    return cuda::shard_cross_entropy_backward(dlogits, logits, targets, highest, total, scale, shard,
                                              weights);
  cpu::shard_cross_entropy_backward(
      dlogits.data(), logits.data(), targets.data<std::int32_t>(), highest.data(), total.data(), scale,
      weights.defined() ? weights.data() : nullptr, targets.numel(), logits.dim(-1), shard.first);
}

}  // namespace llm
