// Tensor: a contiguous, row-major block of numbers with a shape, a dtype and a device.
//
// No strides, no broadcasting, nothing lazy. Copying a Tensor copies the handle, not the numbers: it
// shares its storage, so `view` (another shape) and `slice` (a range of dimension 0) are free.
// Large blocks are mapped page-aligned and ask for huge pages; all blocks start at a multiple of 64
// bytes. Chapter 2 explains it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/core/device.h"
#include "common/core/dtype.h"
#include "common/core/error.h"

namespace llm {

using Shape = std::vector<std::int64_t>;

/// Number of elements of a shape; 1 for the empty shape (a scalar). Error if negative or absurdly large.
std::int64_t element_count(const Shape& shape);

/// "(2, 3, 4)".
std::string to_string(const Shape& shape);

class Tensor {
 public:
  /// No storage, no elements, shape (0).
  Tensor() = default;

  /// Zeros of the given shape. On `Device::cuda` the memory is the GPU's, or the software GPU's
  /// (device_memory.h).
  explicit Tensor(Shape shape, DType dtype = DType::f32, Device device = Device::cpu);

  /// Like the constructor, but the numbers are whatever the memory held.
  static Tensor uninitialized(Shape shape, DType dtype = DType::f32, Device device = Device::cpu);

  /// A copy of `values` with the given shape; their counts must agree.
  static Tensor from(std::span<const float> values, Shape shape);
  static Tensor from(std::span<const std::int32_t> values, Shape shape);

  const Shape& shape() const { return shape_; }
  int rank() const { return static_cast<int>(shape_.size()); }
  /// Size of dimension `i`; negative counts from the end.
  std::int64_t dim(int i) const;
  std::int64_t numel() const { return numel_; }
  std::size_t bytes() const { return static_cast<std::size_t>(numel_) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  bool defined() const { return storage_ != nullptr; }

  /// The first element. Error if `T` is not this tensor's dtype. Of a tensor on `Device::cuda` this is an
  /// address for kernels; the host must not read or write through it.
  template <typename T = float>
  T* data() const {
    if (dtype_of<T> != dtype_) [[unlikely]]
      wrong_dtype(dtype_of<T>);
    return static_cast<T*>(raw());
  }
  template <typename T = float>
  std::span<T> span() const {
    return {data<T>(), static_cast<std::size_t>(numel_)};
  }
  void* raw() const { return storage_ ? storage_.get() + offset_ : nullptr; }

  /// The same elements under another shape of equal count; shares storage.
  Tensor view(Shape shape) const;
  /// Rows [begin, end) of dimension 0; shares storage.
  Tensor slice(std::int64_t begin, std::int64_t end) const;
  /// `count` elements from element `begin` on, as shape `shape`; shares storage (flat buffers use it).
  Tensor range(std::int64_t begin, Shape shape) const;

  /// A deep copy.
  Tensor clone() const;
  /// This tensor if it lives on `device`, and a copy there otherwise.
  Tensor to(Device device) const;
  /// Copies all elements of `source` (same count and dtype, any device) into this storage.
  void copy_from(const Tensor& source) const;
  /// Sets every element. f32 only.
  void fill(float value) const;
  void zero() const;

 private:
  [[noreturn]] void wrong_dtype(DType asked) const;

  Shape shape_ = {0};
  std::int64_t numel_ = 0;
  DType dtype_ = DType::f32;
  Device device_ = Device::cpu;
  std::shared_ptr<std::byte[]> storage_;
  std::size_t offset_ = 0;  // bytes
};

}  // namespace llm
