#include "common/parallel/reduce.h"

#include <algorithm>
#include <array>
#include <type_traits>

namespace llm {

namespace {

constexpr std::int64_t kBlock = 2048;  // elements added up at a time: they stay in the fastest cache

template <typename T>
using Wide = std::conditional_t<std::is_same_v<T, BFloat16>, float, T>;

template <typename W>
W add(W a, W b) {
  if constexpr (std::is_same_v<W, std::int32_t>)
    return static_cast<W>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
  else
    return a + b;
}

template <typename W>
W larger(W a, W b) {
  return b > a || b != b ? b : a;  // a NaN stays: nothing is greater than it
}

template <typename T>
void reduce_as(T* out, std::span<const void* const> from, std::int64_t count, ReduceOp reduce) {
  using W = Wide<T>;
  std::array<W, kBlock> sum;
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t n = std::min(kBlock, count - begin);
    const T* first = static_cast<const T*>(from[0]) + begin;
    for (std::int64_t i = 0; i < n; ++i) sum[i] = static_cast<W>(first[i]);
    for (const void* next : from.subspan(1)) {
      const T* x = static_cast<const T*>(next) + begin;
      if (reduce == ReduceOp::sum)
        for (std::int64_t i = 0; i < n; ++i) sum[i] = add(sum[i], static_cast<W>(x[i]));
      else
        for (std::int64_t i = 0; i < n; ++i) sum[i] = larger(sum[i], static_cast<W>(x[i]));
    }
    for (std::int64_t i = 0; i < n; ++i) out[begin + i] = static_cast<T>(sum[i]);
  }
}

}  // namespace

void reduce_in_rank_order(void* out, std::span<const void* const> from, std::int64_t count, DType dtype,
                          ReduceOp reduce) {
  switch (dtype) {
    case DType::f32:
      return reduce_as(static_cast<float*>(out), from, count, reduce);
    case DType::bf16:
      return reduce_as(static_cast<BFloat16*>(out), from, count, reduce);
    case DType::i32:
      return reduce_as(static_cast<std::int32_t*>(out), from, count, reduce);
  }
}

}  // namespace llm
