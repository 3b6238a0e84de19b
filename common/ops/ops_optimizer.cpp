// The checks of the optimizer. Chapter 5.
#include "common/ops/checks.h"
#include "common/ops/cpu/kernels.h"
#include "common/ops/cuda/kernels.h"
#include "common/ops/ops.h"

namespace llm {

void adamw_update(const Tensor& values, const Tensor& first_moment, const Tensor& second_moment,
                  const Tensor& gradients, const AdamWStep& options, const Tensor& copy) {
  const Checks check{"adamw_update", "values", values};
  check.tensor("values", values, DType::f32);
  check.count("first_moment", first_moment, values.numel(), DType::f32);
  check.count("second_moment", second_moment, values.numel(), DType::f32);
  check.count("gradients", gradients, values.numel(), DType::f32);
  if (copy.defined()) check.count("copy", copy, values.numel(), DType::bf16);
  llm::check(options.step >= 1, "adamw_update: steps are counted from 1, got {}", options.step);
  if (check.on_cuda())
    return cuda::adamw_update(values, first_moment, second_moment, gradients, options, copy);
  cpu::adamw_update(values.data(), first_moment.data(), second_moment.data(), gradients.data(),
                    values.numel(), options);
  if (copy.defined()) cpu::cast(copy.data<BFloat16>(), values.data(), values.numel());
}

double squared_norm(const Tensor& x) {
  const Checks check{"squared_norm", "x", x};
  return check.on_cuda() ? cuda::squared_norm(x) : cpu::squared_norm(x.data(), x.numel());
}

}  // namespace llm
