// The checks of the losses. Chapter 4.
#include "common/ops/checks.h"
#include "common/ops/cpu/kernels.h"
#include "common/ops/cuda/kernels.h"
#include "common/ops/ops.h"

namespace llm {

namespace {

void check_targets(const Checks& check, const Tensor& targets, std::int64_t rows, std::int64_t vocabulary) {
  check.count("targets", targets, rows, DType::i32);
  if (check.on_cuda()) return;  // the kernels look at them: ops/cuda/ids.cuh
  for (const std::int32_t target : targets.span<std::int32_t>())
    llm::check(target >= -1 && target < vocabulary,
               "{}: target {} is neither within the vocabulary of {} nor -1 (ignored)", check.function,
               target, vocabulary);
}

/// Returns the number of rows.
std::int64_t check_logits(const Checks& check, const Tensor& logits, const Tensor& targets) {
  check.tensor("logits", logits);
  const std::int64_t vocabulary = logits.rank() == 0 ? 1 : logits.dim(-1);
  const std::int64_t rows = check.rows("logits", logits, vocabulary);
  check_targets(check, targets, rows, vocabulary);
  return rows;
}

/// Returns the number of rows.
std::int64_t check_head(const Checks& check, const Tensor& losses, const Tensor& x, const Tensor& w,
                        const Tensor& targets) {
  check.rank("w", w, 2);
  const std::int64_t rows = check.rows("x", x, w.dim(1));
  check_targets(check, targets, rows, w.dim(0));
  check.count("losses", losses, rows, DType::f32);
  return rows;
}

}  // namespace

void cross_entropy_forward(const Tensor& losses, const Tensor& logits, const Tensor& targets) {
  const Checks check{"cross_entropy_forward", "logits", logits};
  const std::int64_t rows = check_logits(check, logits, targets);
  check.count("losses", losses, rows, DType::f32);
  if (check.on_cuda()) return cuda::cross_entropy_forward(losses, logits, targets);
  cpu::cross_entropy_forward(losses.data(), logits.data(), targets.data<std::int32_t>(), rows,
                             logits.dim(-1));
}

void cross_entropy_backward(const Tensor& dlogits, const Tensor& logits, const Tensor& targets, float scale) {
  const Checks check{"cross_entropy_backward", "logits", logits};
  const std::int64_t rows = check_logits(check, logits, targets);
  check.same_shape("dlogits", dlogits, "logits", logits);
  if (check.on_cuda()) return cuda::cross_entropy_backward(dlogits, logits, targets, scale);
  cpu::cross_entropy_backward(dlogits.data(), logits.data(), targets.data<std::int32_t>(), scale, rows,
                              logits.dim(-1));
}

void linear_cross_entropy_forward(const Tensor& losses, const Tensor& x, const Tensor& w,
                                  const Tensor& targets) {
  const Checks check{"linear_cross_entropy_forward", "x", x};
  const std::int64_t rows = check_head(check, losses, x, w, targets);
  if (check.on_cuda())
    return cuda::linear_cross_entropy(losses, Tensor(), Tensor(), x, w, targets, 0, Tensor());
  cpu::linear_cross_entropy(losses.data(), nullptr, nullptr, x.data(), w.data(), targets.data<std::int32_t>(),
                            0, nullptr, rows, w.dim(1), w.dim(0));
}

void linear_cross_entropy(const Tensor& losses, const Tensor& dx, const Tensor& dw, const Tensor& x,
                          const Tensor& w, const Tensor& targets, float scale, const Tensor& weights) {
  const Checks check{"linear_cross_entropy", "x", x};
  const std::int64_t rows = check_head(check, losses, x, w, targets);
  if (dw.defined()) check.same_shape("dw", dw, "w", w, DType::f32);
  check.same_rows("dx", dx, w.dim(1), rows);
  if (weights.defined()) check.count("weights", weights, rows, DType::f32);
  if (check.on_cuda()) return cuda::linear_cross_entropy(losses, dx, dw, x, w, targets, scale, weights);
  cpu::linear_cross_entropy(losses.data(), dx.data(), dw.defined() ? dw.data() : nullptr, x.data(), w.data(),
                            targets.data<std::int32_t>(), scale, weights.defined() ? weights.data() : nullptr,
                            rows, w.dim(1), w.dim(0));
}

}  // namespace llm
