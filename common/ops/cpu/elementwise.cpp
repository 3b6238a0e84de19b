// GELU, addition, casts: one number in, one number out. Chapter 4.
#include "common/core/threads.h"
#include "common/ops/cpu/kernels.h"
#include "common/ops/cpu/vec.h"

namespace llm::cpu {

namespace {

// A thread is worth waking for at least this many elements.
constexpr Index kGrain = 16384;

// With u = sqrt(2/pi) (x + 0.044715 x^3) and s = 1 / (1 + e^-2u) = (1 + tanh u) / 2, GELU is x s: no
// difference of nearly equal numbers.

/// x / (1 + 2^t), t = -2u log2(e). Beyond its bounds 2^t is 0 or infinity.
[[gnu::always_inline]] inline Vec gelu(const Vec& x) {
  constexpr float kLinear = -2.3022082F, kCubic = -0.10294324F;  // -2 sqrt(2/pi) log2(e), and 0.044715 of it
  const Vec t = x * (x * x * kCubic + kLinear);
  return x / (exp2_bounded(min(max(t, splat(-127)), splat(128))) + 1.0F);
}

/// (x s)' = s + x s (1 - s) 2 sqrt(2/pi) (1 + 3 0.044715 x^2), where s = y / x takes no second exponential.
/// In float32 s is 1 for x > 10, and 1/2 where x and y may be too small to be divided.
[[gnu::always_inline]] inline Vec gelu_slope(const Vec& x, const Vec& y) {
  constexpr float kConstant = 1.5957691F, kSquare = 0.21406445F;  // 2 sqrt(2/pi), and 3 0.044715 of it
  const Vec x2 = min(x * x, splat(100));
  const Vec ratio = y / x;
  const Vec gate = from_parts([&](int i) { return x2.part[i] < 1e-30F ? splat_part(0.5F) : ratio.part[i]; });
  const Vec slope = y * (1.0F - gate) * (x2 * kSquare + kConstant) + gate;
  return from_parts([&](int i) { return x.part[i] > 10.0F ? splat_part(1) : slope.part[i]; });
}

}  // namespace

void gelu_forward(float* y, const float* x, Index count) {
  parallel_for(count, kGrain, [=](Index begin, Index end) {
    Index i = begin;
    for (; i + kLanes <= end; i += kLanes) store(y + i, gelu(load(x + i)));
    if (i < end) store_part(y + i, gelu(load_part(x + i, end - i)), end - i);
  });
}

void gelu_backward(float* dx, const float* dy, const float* x, const float* y, Index count) {
  parallel_for(count, kGrain, [=](Index begin, Index end) {
    for (Index i = begin; i < end; i += kLanes) {
      const Index left = end - i;
      const Vec slope = gelu_slope(load_up_to(x + i, left), load_up_to(y + i, left));
      store_up_to(dx + i, load_up_to(dy + i, left) * slope, left);
    }
  });
}

void add(float* y, const float* a, const float* b, Index count) {
  parallel_for(count, kGrain, [=](Index begin, Index end) {
#pragma GCC ivdep
    for (Index i = begin; i < end; ++i) y[i] = a[i] + b[i];
  });
}

void cast(BFloat16* y, const float* x, Index count) {
  parallel_for(count, kGrain, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) y[i] = BFloat16(x[i]);
  });
}
void cast(float* y, const BFloat16* x, Index count) {
  parallel_for(count, kGrain, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) y[i] = static_cast<float>(x[i]);
  });
}

}  // namespace llm::cpu
