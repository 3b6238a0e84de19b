#include "common/ops/measuring.h"

#include <algorithm>

#include "common/core/philox.h"
#include "common/ops/ops.h"

namespace llm {

Tensor normals_for_measuring(Shape shape, DType dtype, Device device) {
  const Tensor t(std::move(shape), dtype, device);
  const Tensor numbers({std::min(t.numel(), std::int64_t{1} << 20)});
  const Philox rng{1, 1};
  for (std::int64_t i = 0; i < numbers.numel(); ++i)
    numbers.data()[i] = rng.normal(static_cast<std::uint64_t>(i));
  const Tensor rounded(numbers.shape(), dtype);
  cast(rounded, numbers);
  t.range(0, numbers.shape()).copy_from(rounded);
  for (std::int64_t done = numbers.numel(); done < t.numel(); done *= 2) {
    const std::int64_t count = std::min(done, t.numel() - done);
    t.range(done, {count}).copy_from(t.range(0, {count}));
  }
  return t;
}

}  // namespace llm
