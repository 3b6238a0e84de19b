// What every primitive checks before it computes: shapes, dtypes and devices, both sides named in the
// sentence.
#pragma once

#include <initializer_list>
#include <string_view>

#include <algorithm>
#include "common/core/tensor.h"

namespace llm {

/// One function's checks: `const Checks check{"linear_forward"}; check.shape("y", y, {n, o});`
struct Checks {
  std::string_view function;

  /// Defined, of this dtype, on this build's device.
  void tensor(std::string_view name, const Tensor& t, DType dtype = DType::f32) const {
    if (!t.defined() || t.dtype() != dtype || t.device() != Device::cpu) [[unlikely]]
      wrong_tensor(name, t, dtype);
  }
  /// ... and of exactly this shape.
  void shape(std::string_view name, const Tensor& t, std::initializer_list<std::int64_t> expected,
             DType dtype = DType::f32) const {
    tensor(name, t, dtype);
    if (!std::equal(expected.begin(), expected.end(), t.shape().begin(), t.shape().end())) [[unlikely]]
      wrong_shape(name, t, Shape(expected));
  }
  /// ... and of the same shape as another.
  void same_shape(std::string_view name, const Tensor& t, std::string_view other_name, const Tensor& other,
                  DType dtype = DType::f32) const {
    tensor(name, t, dtype);
    if (t.shape() != other.shape()) [[unlikely]]
      differs(name, t, other_name, other);
  }
  /// ... and of this many elements, whatever the shape.
  void count(std::string_view name, const Tensor& t, std::int64_t expected, DType dtype = DType::f32) const {
    tensor(name, t, dtype);
    if (t.numel() != expected) [[unlikely]]
      wrong_count(name, t, expected);
  }
  /// ... and of rows along the last dimension, each of `columns`. Returns the number of rows.
  std::int64_t rows(std::string_view name, const Tensor& t, std::int64_t columns) const {
    tensor(name, t);
    if (t.rank() == 0 || t.shape().back() != columns || columns == 0) [[unlikely]]
      wrong_columns(name, t, columns);
    return t.numel() / columns;
  }
  void same_rows(std::string_view name, const Tensor& t, std::int64_t columns, std::int64_t expected) const {
    if (rows(name, t, columns) != expected) [[unlikely]]
      wrong_rows(name, t, expected);
  }
  void rank(std::string_view name, const Tensor& t, int expected, DType dtype = DType::f32) const {
    tensor(name, t, dtype);
    if (t.rank() != expected) [[unlikely]]
      wrong_rank(name, t, expected);
  }

  [[noreturn]] void wrong_tensor(std::string_view name, const Tensor& t, DType dtype) const;
  [[noreturn]] void wrong_shape(std::string_view name, const Tensor& t, const Shape& expected) const;
  [[noreturn]] void differs(std::string_view name, const Tensor& t, std::string_view other_name,
                            const Tensor& other) const;
  [[noreturn]] void wrong_count(std::string_view name, const Tensor& t, std::int64_t expected) const;
  [[noreturn]] void wrong_columns(std::string_view name, const Tensor& t, std::int64_t columns) const;
  [[noreturn]] void wrong_rows(std::string_view name, const Tensor& t, std::int64_t expected) const;
  [[noreturn]] void wrong_rank(std::string_view name, const Tensor& t, int expected) const;
};

}  // namespace llm
