// What the tests of the device's primitives share: the same call on the CPU and on the device, in f32 and
// bf16, under shuffled schedules.
#pragma once

#include "common/core/device_memory.h"
#include "common/simt/report.h"
#include "tests/ops_helpers.h"

namespace llm::testing {

/// A tensor as f32 on the CPU, wherever and whatever it is.
inline Tensor to_host(const Tensor& t) {
  const Tensor here = t.to(Device::cpu);
  if (here.dtype() != DType::bf16) return here;
  const Tensor floats(here.shape());
  cast(floats, here);
  return floats;
}

/// f32 numbers as bf16 has them.
inline Tensor rounded(const Tensor& t) {
  const Tensor small(t.shape(), DType::bf16);
  cast(small, t);
  return to_host(small);
}

/// Where a test's call runs, and in which type. On the CPU bf16 means f32 with the inputs rounded to bf16, so
/// that both sides are given the same numbers and differ by rounding the results alone.
struct Place {
  Device device;
  DType dtype;

  /// An input, or a parameter, or a gradient of an activation.
  Tensor operator()(const Tensor& t) const {
    if (t.dtype() == DType::i32 || dtype == DType::f32) return on_device(t);
    if (device == Device::cpu) return rounded(t);
    const Tensor small(t.shape(), DType::bf16);
    cast(small, t);
    return small.to(device);
  }
  /// f32 even where activations are bf16: statistics, gradients of parameters.
  Tensor f32(const Tensor& t) const { return on_device(t); }
  /// An output full of NaN.
  Tensor output(Shape shape) const { return (*this)(poisoned(std::move(shape))); }
  Tensor f32_output(Shape shape) const { return on_device(poisoned(std::move(shape))); }
  /// On the CPU: what storing an intermediate result as bf16 does to it.
  void store(const Tensor& t) const {
    if (device == Device::cpu && dtype == DType::bf16) t.copy_from(rounded(t));
  }

 private:
  Tensor on_device(const Tensor& t) const { return device == Device::cpu ? t.clone() : t.to(device); }
};

/// One result of a call. `bound` is what f32 arithmetic may differ by (in the sense of expect_close),
/// `bf16_bound` is added where the call is in bf16, beyond the rounding of a bf16 result itself.
struct Result {
  std::string name;
  Tensor tensor;
  double bound = 2e-6, bf16_bound = 0;
};

/// Rounding to bf16 (8 significant bits) changes a number by at most this part of itself.
constexpr double kBf16 = 0x1p-8;

using Call = std::function<std::vector<Result>(const Place&)>;

/// Runs `call` on the CPU and on the device; each result must be close. On the device it runs once more under
/// each of `schedules` shuffled schedules, which must give the same bits.
inline void expect_like_cpu(const std::string& what, const Call& call, int schedules = 0,
                            std::initializer_list<DType> dtypes = {DType::f32, DType::bf16}) {
  if (simt::checked()) schedules = std::min(schedules, 1);  // watched, one more order is enough
  for (const DType dtype : dtypes) {
    const std::string where = fmt::format("{}, {}", what, name(dtype));
    SCOPED_TRACE(where);
    const std::vector<Result> expected = call({Device::cpu, dtype});
    std::vector<Tensor> first;  // as they are on the device, copied to the host
    for (int seed = 0; seed <= schedules; ++seed) {
      simt::set_schedule_seed(static_cast<std::uint64_t>(seed));
      const std::vector<Result> got = call({Device::cuda, dtype});
      simt::set_schedule_seed(0);
      ASSERT_EQ(got.size(), expected.size());
      for (std::size_t i = 0; i < got.size(); ++i) {
        const Tensor bits = got[i].tensor.to(Device::cpu);
        if (seed == 0) {
          double bound = expected[i].bound;
          if (dtype == DType::bf16) bound += expected[i].bf16_bound;
          if (bits.dtype() == DType::bf16) bound += kBf16;
          expect_close(to_host(bits), expected[i].tensor, expected[i].name, bound);
          first.push_back(bits);
        } else {
          EXPECT_EQ(std::memcmp(bits.raw(), first[i].raw(), bits.bytes()), 0)
              << expected[i].name << " has other bits under schedule " << seed;
        }
      }
      if (::testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace llm::testing
