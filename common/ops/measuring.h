// What measurements of speed compute with.
#pragma once

#include "common/core/tensor.h"

namespace llm {

/// Normal numbers, a million of them over and over: which ones does not matter to the time, and making more
/// would take longer than what is measured. Zeros, or the same number everywhere, would not do: a GPU spends
/// less power on them, and multiplies them faster than anything real.
Tensor normals_for_measuring(Shape shape, DType dtype, Device device);

}  // namespace llm
