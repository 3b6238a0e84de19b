// What every .cu file includes: the language of kernels, for nvcc and for g++.
//
// Under nvcc this is CUDA itself. Under g++, where there is no CUDA, it is the same names over the software
// GPU (common/simt/emulator): the kernels compile as ordinary C++ and every thread of a block is a fiber. So
// one .cu file serves both, and what is said here is all a kernel may use beyond CUDA. Chapter 3 explains it.
//
// Shared memory is asked for by function, so that the software GPU can own it:
//
//     struct Tiles { float a[64][65], b[64][65]; };          // a struct of its own for each kernel
//     Tiles& tiles = block_shared<Tiles>();                  // CUDA: __shared__ Tiles tiles;
//     float* scores = dynamic_shared<float>();               // CUDA: extern __shared__ float scores[];
#pragma once

#include <type_traits>
#include <typeinfo>

#include "common/core/dtype.h"
#include "common/simt/launch.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_pipeline.h>
#include <cuda_runtime.h>
#else
#include "common/simt/emulator/intrinsics.h"
#endif

namespace llm {

template <>
inline constexpr DType dtype_of<__nv_bfloat16> = DType::bf16;

/// The block's dynamic shared memory (LaunchConfig::shared_bytes), 128-byte aligned.
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ __align__(128) unsigned char llm_dynamic_shared[];
  return reinterpret_cast<T*>(llm_dynamic_shared);
#else
  return reinterpret_cast<T*>(simt::dynamic_shared_memory);
#endif
}

/// The block's one static object of type T, shared by its threads; it starts as anything.
template <typename T>
__device__ __forceinline__ T& block_shared() {
  static_assert(std::is_trivially_default_constructible_v<T>, "shared memory runs no constructors");
  static_assert(sizeof(T) <= 48 * 1024,
                "static shared memory ends at 48 KB; ask for more with dynamic_shared");
#ifdef __CUDACC__
  __shared__ T object;
  return object;
#else
  return *static_cast<T*>(simt::shared_object(typeid(T).name(), sizeof(T), alignof(T)));
#endif
}

}  // namespace llm
