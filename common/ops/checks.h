// What every primitive checks before it computes: shapes, dtypes and devices, both sides named in the
// sentence.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "common/core/tensor.h"
#include "common/ops/ops.h"

namespace llm {

/// One function's checks: `const Checks check{"linear_forward", "x", x}; check.shape("y", y, {n, o});`
///
/// x is the tensor that all others are compared with: they must be on its device and, unless a dtype is
/// given, of its dtype. It is f32, or on the device cuda also bf16.
struct Checks {
  std::string_view function;
  std::string_view first_name;
  Device device = Device::cpu;
  DType dtype = DType::f32;

  Checks(std::string_view function_name, std::string_view name_of_first, const Tensor& first)
      : function(function_name), first_name(name_of_first), device(first.device()), dtype(first.dtype()) {
    if (!first.defined() || !(dtype == DType::f32 || (dtype == DType::bf16 && device == Device::cuda)))
        [[unlikely]]
      wrong_first(first);
  }
  bool on_cuda() const { return device == Device::cuda; }

  /// Defined, on the device, of the dtype.
  void tensor(std::string_view name, const Tensor& t) const { tensor(name, t, dtype); }
  void tensor(std::string_view name, const Tensor& t, DType expected) const {
    if (!t.defined() || t.dtype() != expected || t.device() != device) [[unlikely]]
      wrong_tensor(name, t, expected);
  }
  /// ... and of exactly this shape.
  void shape(std::string_view name, const Tensor& t, std::initializer_list<std::int64_t> expected) const {
    shape(name, t, expected, dtype);
  }
  void shape(std::string_view name, const Tensor& t, std::initializer_list<std::int64_t> expected,
             DType expected_dtype) const {
    tensor(name, t, expected_dtype);
    if (!std::equal(expected.begin(), expected.end(), t.shape().begin(), t.shape().end())) [[unlikely]]
      wrong_shape(name, t, Shape(expected));
  }
  /// ... and of the same shape as another.
  void same_shape(std::string_view name, const Tensor& t, std::string_view other_name,
                  const Tensor& other) const {
    same_shape(name, t, other_name, other, dtype);
  }
  void same_shape(std::string_view name, const Tensor& t, std::string_view other_name, const Tensor& other,
                  DType expected_dtype) const {
    tensor(name, t, expected_dtype);
    if (t.shape() != other.shape()) [[unlikely]]
      differs(name, t, other_name, other);
  }
  /// ... and of this many elements, whatever the shape.
  void count(std::string_view name, const Tensor& t, std::int64_t expected, DType expected_dtype) const {
    tensor(name, t, expected_dtype);
    if (t.numel() != expected) [[unlikely]]
      wrong_count(name, t, expected);
  }
  /// ... and of rows along the last dimension, each of `columns`. Returns the number of rows.
  std::int64_t rows(std::string_view name, const Tensor& t, std::int64_t columns) const {
    return rows(name, t, columns, dtype);
  }
  std::int64_t rows(std::string_view name, const Tensor& t, std::int64_t columns,
                    DType expected_dtype) const {
    tensor(name, t, expected_dtype);
    if (t.rank() == 0 || t.shape().back() != columns || columns == 0) [[unlikely]]
      wrong_columns(name, t, columns);
    return t.numel() / columns;
  }
  void same_rows(std::string_view name, const Tensor& t, std::int64_t columns, std::int64_t expected) const {
    if (rows(name, t, columns) != expected) [[unlikely]]
      wrong_rows(name, t, expected);
  }
  void rank(std::string_view name, const Tensor& t, int expected) const { rank(name, t, expected, dtype); }
  void rank(std::string_view name, const Tensor& t, int expected, DType expected_dtype) const {
    tensor(name, t, expected_dtype);
    if (t.rank() != expected) [[unlikely]]
      wrong_rank(name, t, expected);
  }

  [[noreturn]] void wrong_first(const Tensor& first) const;
  [[noreturn]] void wrong_tensor(std::string_view name, const Tensor& t, DType dtype) const;
  [[noreturn]] void wrong_shape(std::string_view name, const Tensor& t, const Shape& expected) const;
  [[noreturn]] void differs(std::string_view name, const Tensor& t, std::string_view other_name,
                            const Tensor& other) const;
  [[noreturn]] void wrong_count(std::string_view name, const Tensor& t, std::int64_t expected) const;
  [[noreturn]] void wrong_columns(std::string_view name, const Tensor& t, std::int64_t columns) const;
  [[noreturn]] void wrong_rows(std::string_view name, const Tensor& t, std::int64_t expected) const;
  [[noreturn]] void wrong_rank(std::string_view name, const Tensor& t, int expected) const;
};

/// The shard, its size filled in, of a table of `rows` rows.
VocabularyShard check_shard(const Checks& check, VocabularyShard shard, std::int64_t rows);

}  // namespace llm
