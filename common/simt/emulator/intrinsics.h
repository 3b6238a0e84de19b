// CUDA's built-in functions for compilers that are not nvcc, by CUDA's names: warp collectives, atomics,
// asynchronous copies, bit casts and fast mathematics. Only what the book's kernels use.
//
// Sources for what each must do: the CUDA C++ Programming Guide, sections on warp shuffle, vote and reduce
// functions, atomics and pipelines.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/simt/emulator/bfloat16.h"
#include "common/simt/emulator/cuda_types.h"
#include "common/simt/emulator/launch_bounds.h"
#include "common/simt/emulator/machine.h"
#include "common/simt/emulator/position.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) alignas(n)

// ---- Warp collectives ----

namespace llm::simt {

/// `source` gives the lane to read from within a segment of `width` lanes; a lane outside of it means one's
/// own.
template <typename T>
__forceinline__ T shuffle(const char* name, std::uint32_t mask, T value, int source) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  Lane lane;
  std::memcpy(&lane.value, &value, sizeof(T));
  lane.source = source;
  join(exchange, name, mask, lane);
  std::memcpy(&value, &lane.value, sizeof(T));
  return value;
}

template <typename T>
__forceinline__ T collective(Collective what, const char* name, std::uint32_t mask, T value) {
  Lane lane;
  lane.value = static_cast<std::uint64_t>(static_cast<std::int64_t>(value));
  join(what, name, mask, lane);
  return static_cast<T>(lane.value);
}

}  // namespace llm::simt

template <typename T>
__forceinline__ T __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
  const int lane = llm::simt::lane_index();
  return llm::simt::shuffle("__shfl_sync", mask, value, (lane & ~(width - 1)) | (source & (width - 1)));
}
template <typename T>
__forceinline__ T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize) {
  const int lane = llm::simt::lane_index();
  const int source = lane ^ lane_mask;
  const bool inside = source < (lane & ~(width - 1)) + width;
  return llm::simt::shuffle("__shfl_xor_sync", mask, value, inside ? source : lane);
}
template <typename T>
__forceinline__ T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const int lane = llm::simt::lane_index();
  const int source = lane - static_cast<int>(delta);
  return llm::simt::shuffle("__shfl_up_sync", mask, value, source >= (lane & ~(width - 1)) ? source : lane);
}
template <typename T>
__forceinline__ T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const int lane = llm::simt::lane_index();
  const int source = lane + static_cast<int>(delta);
  return llm::simt::shuffle("__shfl_down_sync", mask, value,
                            source < (lane & ~(width - 1)) + width ? source : lane);
}

__forceinline__ void __syncwarp(unsigned mask = 0xffffffffu) {
  llm::simt::Lane lane;
  llm::simt::join(llm::simt::wait_only, "__syncwarp", mask, lane);
}
__forceinline__ unsigned __ballot_sync(unsigned mask, int predicate) {
  return static_cast<unsigned>(llm::simt::collective(llm::simt::ballot, "__ballot_sync", mask, predicate));
}
__forceinline__ int __any_sync(unsigned mask, int predicate) {
  return llm::simt::collective(llm::simt::ballot, "__any_sync", mask, predicate) != 0 ? 1 : 0;
}
__forceinline__ int __all_sync(unsigned mask, int predicate) {
  return llm::simt::collective(llm::simt::ballot, "__all_sync", mask, predicate == 0 ? 1 : 0) == 0 ? 1 : 0;
}
__forceinline__ unsigned __activemask() {
  return llm::simt::active_mask();
}

template <typename T>
__forceinline__ T __reduce_add_sync(unsigned mask, T value) {
  return llm::simt::collective(llm::simt::sum, "__reduce_add_sync", mask, value);
}
template <typename T>
__forceinline__ T __reduce_min_sync(unsigned mask, T value) {
  return llm::simt::collective(llm::simt::minimum, "__reduce_min_sync", mask, value);
}
template <typename T>
__forceinline__ T __reduce_max_sync(unsigned mask, T value) {
  return llm::simt::collective(llm::simt::maximum, "__reduce_max_sync", mask, value);
}
__forceinline__ unsigned __reduce_and_sync(unsigned mask, unsigned value) {
  return llm::simt::collective(llm::simt::bitwise_and, "__reduce_and_sync", mask, value);
}
__forceinline__ unsigned __reduce_or_sync(unsigned mask, unsigned value) {
  return llm::simt::collective(llm::simt::bitwise_or, "__reduce_or_sync", mask, value);
}
__forceinline__ unsigned __reduce_xor_sync(unsigned mask, unsigned value) {
  return llm::simt::collective(llm::simt::bitwise_xor, "__reduce_xor_sync", mask, value);
}

// ---- Atomics and fences ----

// Blocks run on several threads of the host, so these are atomic there too. All return the old value.

__forceinline__ void __threadfence() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
__forceinline__ void __threadfence_block() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

namespace llm::simt {

/// Replaces *address by change(*address).
template <typename T, typename Change>
__forceinline__ T atomic_update(T* address, Change change) {
  on_atomic();
  using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  auto* bits = reinterpret_cast<Bits*>(address);
  Bits old = __atomic_load_n(bits, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(bits, &old, std::bit_cast<Bits>(change(std::bit_cast<T>(old))), false,
                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return std::bit_cast<T>(old);
}

}  // namespace llm::simt

template <typename T>
__forceinline__ T atomicAdd(T* address, std::type_identity_t<T> value) {
  return llm::simt::atomic_update(address, [=](T old) { return static_cast<T>(old + value); });
}
template <typename T>
__forceinline__ T atomicSub(T* address, std::type_identity_t<T> value) {
  return llm::simt::atomic_update(address, [=](T old) { return static_cast<T>(old - value); });
}
template <typename T>
__forceinline__ T atomicMax(T* address, std::type_identity_t<T> value) {
  return llm::simt::atomic_update(address, [=](T old) { return old > value ? old : value; });
}
template <typename T>
__forceinline__ T atomicMin(T* address, std::type_identity_t<T> value) {
  return llm::simt::atomic_update(address, [=](T old) { return old < value ? old : value; });
}
template <typename T>
__forceinline__ T atomicOr(T* address, std::type_identity_t<T> value) {
  return llm::simt::atomic_update(address, [=](T old) { return static_cast<T>(old | value); });
}
template <typename T>
__forceinline__ T atomicAnd(T* address, std::type_identity_t<T> value) {
  return llm::simt::atomic_update(address, [=](T old) { return static_cast<T>(old & value); });
}
template <typename T>
__forceinline__ T atomicExch(T* address, std::type_identity_t<T> value) {
  return llm::simt::atomic_update(address, [=](T) { return value; });
}
template <typename T>
__forceinline__ T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return llm::simt::atomic_update(address, [=](T old) { return old == expected ? value : old; });
}

// ---- Asynchronous copies ----

__forceinline__ void __pipeline_memcpy_async(void* to, const void* from, std::size_t bytes,
                                             std::size_t zeros = 0) {
  llm::simt::begin_copy(to, from, bytes, zeros);
}
__forceinline__ void __pipeline_commit() {
  llm::simt::close_copies();
}
__forceinline__ void __pipeline_wait_prior(std::size_t open_groups) {
  llm::simt::wait_copies(static_cast<int>(open_groups));
}

// ---- Loads and stores with a hint for the caches ----

template <typename T>
__forceinline__ T __ldg(const T* address) {
  return *address;
}
template <typename T>
__forceinline__ T __ldcs(const T* address) {
  return *address;
}
template <typename T>
__forceinline__ T __ldcg(const T* address) {
  return *address;
}
template <typename T>
__forceinline__ void __stcs(T* address, T value) {
  *address = value;
}
template <typename T>
__forceinline__ void __stcg(T* address, T value) {
  *address = value;
}

[[noreturn]] __forceinline__ void __trap() {
  llm::simt::trap();
}
__forceinline__ void __nanosleep(unsigned) {
  llm::simt::on_atomic();
}

// ---- Bits ----

__forceinline__ unsigned __float_as_uint(float value) {
  return std::bit_cast<unsigned>(value);
}
__forceinline__ int __float_as_int(float value) {
  return std::bit_cast<int>(value);
}
__forceinline__ float __uint_as_float(unsigned bits) {
  return std::bit_cast<float>(bits);
}
__forceinline__ float __int_as_float(int bits) {
  return std::bit_cast<float>(bits);
}
__forceinline__ int __popc(unsigned value) {
  return std::popcount(value);
}
__forceinline__ int __clz(int value) {
  return std::countl_zero(static_cast<unsigned>(value));
}
__forceinline__ int __ffs(int value) {
  return __builtin_ffs(value);
}
__forceinline__ unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(a) * b) >> 32);
}

// ---- Mathematics ----

// The fast functions are the exact ones here: a GPU's differ in the last bits.

__forceinline__ float __expf(float x) {
  return std::exp(x);
}
__forceinline__ float __exp2f(float x) {
  return std::exp2(x);
}
__forceinline__ float __logf(float x) {
  return std::log(x);
}
__forceinline__ float __fdividef(float a, float b) {
  return a / b;
}
__forceinline__ float __frcp_rn(float x) {
  return 1.0F / x;
}
__forceinline__ float __fsqrt_rn(float x) {
  return std::sqrt(x);
}
__forceinline__ float rsqrtf(float x) {
  return 1.0F / std::sqrt(x);
}
__forceinline__ float __saturatef(float x) {
  return x >= 1.0F ? 1.0F : x > 0.0F ? x : 0.0F;
}

namespace llm::simt {
/// Keeps the compiler from contracting a product and a sum into one fused operation.
__forceinline__ float rounded(float x) {
#if defined(__x86_64__)
  asm("" : "+x"(x));
#else
  asm("" : "+w"(x));
#endif
  return x;
}
}  // namespace llm::simt

__forceinline__ float __fmul_rn(float a, float b) {
  return llm::simt::rounded(a * b);
}
__forceinline__ float __fadd_rn(float a, float b) {
  return llm::simt::rounded(a + b);
}
__forceinline__ float __fsub_rn(float a, float b) {
  return llm::simt::rounded(a - b);
}
__forceinline__ float __fmaf_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}

#define LLM_MIN_MAX(type)                              \
  __forceinline__ constexpr type min(type a, type b) { \
    return b < a ? b : a;                              \
  }                                                    \
  __forceinline__ constexpr type max(type a, type b) { \
    return a < b ? b : a;                              \
  }
LLM_MIN_MAX(int)
LLM_MIN_MAX(unsigned)
LLM_MIN_MAX(long)
LLM_MIN_MAX(unsigned long)
LLM_MIN_MAX(long long)
LLM_MIN_MAX(unsigned long long)
LLM_MIN_MAX(float)
LLM_MIN_MAX(double)
#undef LLM_MIN_MAX
