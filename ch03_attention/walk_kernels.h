// The walk's first kernels, on tensors of the device. Sides are multiples of 32.
#pragma once

#include "common/core/tensor.h"

namespace llm::ch03 {

/// y = x. Neighbouring threads take elements `step` apart (a divisor of their number).
void copy(const Tensor& y, const Tensor& x, int step);

/// y = x transposed, (N, N). The last way is wrong: it shows what the software GPU says.
enum class Transpose { directly, through_a_tile, through_a_padded_tile, without_the_barrier };
void transpose(const Tensor& y, const Tensor& x, Transpose how);

/// c = a b, (N, N) each.
void multiply_naive(const Tensor& c, const Tensor& a, const Tensor& b);
void multiply_tiled(const Tensor& c, const Tensor& a, const Tensor& b);

}  // namespace llm::ch03
