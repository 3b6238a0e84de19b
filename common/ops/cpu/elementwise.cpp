// GELU, addition, casts: one number in, one number out. Chapter 4.
#include "common/core/threads.h"
#include "common/ops/cpu/kernels.h"
#include "common/ops/cpu/vec.h"

namespace llm::cpu {

namespace {

// A thread is worth waking for at least this many elements.
constexpr Index kGrain = 16384;

/// The logistic function of 2 sqrt(2/pi) (x + 0.044715 x^3), for the x given. Since
/// (1 + tanh u) / 2 = 1 / (1 + e^-2u), GELU is x times this, with no difference of nearly equal numbers. |x|
/// > 10 is taken as 10: there it is 1, or less than 1e-37, and x^3 cannot overflow.
[[gnu::always_inline]] inline Vec gelu_gate(const Vec& x) {
  constexpr float kScale = -2 * 0.7978845608028654F;
  return 1.0F / (1.0F + exp_bounded(x * kScale * (1.0F + 0.044715F * x * x)));
}
[[gnu::always_inline]] inline Vec gelu(const Vec& x) {
  return x * gelu_gate(min(max(x, splat(-10)), splat(10)));
}
/// With s the gate: (x s)' = s + x s (1 - s) 2 sqrt(2/pi) (1 + 3 0.044715 x^2).
[[gnu::always_inline]] inline Vec gelu_slope(const Vec& x) {
  const Vec near = min(max(x, splat(-10)), splat(10));
  const Vec gate = gelu_gate(near);
  return gate +
         near * gate * (1.0F - gate) * (2 * 0.7978845608028654F) * (1.0F + 3 * 0.044715F * near * near);
}

}  // namespace

void gelu_forward(float* y, const float* x, Index count) {
  parallel_for(count, kGrain, [=](Index begin, Index end) {
    Index i = begin;
    for (; i + kLanes <= end; i += kLanes) store(y + i, gelu(load(x + i)));
    if (i < end) store_part(y + i, gelu(load_part(x + i, end - i)), end - i);
  });
}

void gelu_backward(float* dx, const float* dy, const float* x, Index count) {
  parallel_for(count, kGrain, [=](Index begin, Index end) {
    Index i = begin;
    for (; i + kLanes <= end; i += kLanes) store(dx + i, load(dy + i) * gelu_slope(load(x + i)));
    if (i < end) {
      const Vec slope = gelu_slope(load_part(x + i, end - i));
      store_part(dx + i, load_part(dy + i, end - i) * slope, end - i);
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
