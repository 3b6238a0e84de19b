#include "common/model/parameter_store.h"

#include "common/core/error.h"
#include "common/ops/ops.h"

namespace llm {

std::size_t ParameterStore::declare(std::string name, Shape shape, bool decay) {
  return declare({.name = std::move(name), .shape = std::move(shape), .decay = decay});
}

std::size_t ParameterStore::declare(Parameter p) {
  check(!values_.defined(), "parameter {} was declared after the buffers were allocated", p.name);
  check(find(p.name) == nullptr, "there are two parameters named {}", p.name);
  if (p.whole.empty()) p.whole = p.shape;
  const auto dim = static_cast<std::size_t>(p.split_dim);
  if (p.slices.empty()) p.slices = {{0, p.whole.at(dim)}};
  std::int64_t extent = 0;
  for (const Slice& slice : p.slices) extent += slice.end - slice.begin;
  check(p.whole.size() == p.shape.size() && p.shape.at(dim) == extent,
        "parameter {} of shape {} is no part of {}", p.name, to_string(p.shape), to_string(p.whole));
  p.offset = count_;
  count_ += element_count(p.shape);
  parameters_.push_back(std::move(p));
  return parameters_.size() - 1;
}

void ParameterStore::allocate(Device device, DType working, FlatBuffers buffers) {
  check(!values_.defined(), "the parameters are allocated already");
  if (buffers.values) {
    values_ = Tensor({count_}, DType::f32, device);
    if (working != DType::f32) rounded_ = Tensor({count_}, working, device);
  }
  if (buffers.gradients) gradients_ = Tensor({count_}, DType::f32, device);
  for (Parameter& p : parameters_) {
    if (buffers.values) {
      p.value = values_.range(p.offset, p.shape);
      p.working = rounded_.defined() ? rounded_.range(p.offset, p.shape) : p.value;
    }
    if (buffers.gradients) p.gradient = gradients_.range(p.offset, p.shape);
  }
}

void ParameterStore::attach_values(std::size_t first, std::size_t last, const Tensor& flat) {
  check(!values_.defined(), "the store has flat values of its own");
  for (std::size_t i = first; i < last; ++i) {
    Parameter& p = parameters_[i];
    p.working = flat.defined() ? flat.range(p.offset - parameters_[first].offset, p.shape) : Tensor();
    p.value = flat.dtype() == DType::f32 ? p.working : Tensor();
  }
}

void ParameterStore::attach_gradients(std::size_t first, std::size_t last, const Tensor& flat) {
  check(!gradients_.defined(), "the store has flat gradients of its own");
  for (std::size_t i = first; i < last; ++i) {
    Parameter& p = parameters_[i];
    p.gradient = flat.defined() ? flat.range(p.offset - parameters_[first].offset, p.shape) : Tensor();
  }
}

std::int64_t ParameterStore::count(std::size_t first, std::size_t last) const {
  std::int64_t elements = 0;
  for (std::size_t i = first; i < last; ++i) elements += element_count(parameters_[i].shape);
  return elements;
}

void ParameterStore::round_values() const {
  if (rounded_.defined()) cast(rounded_, values_);
}

std::int64_t ParameterStore::trained_count() const {
  std::int64_t count = 0;
  for (const Parameter& p : parameters_)
    if (p.trains) count += element_count(p.shape);
  return count;
}

const Parameter* ParameterStore::find(std::string_view name) const {
  for (const Parameter& p : parameters_)
    if (p.name == name) return &p;
  return nullptr;
}

std::vector<ParameterRun> runs(const Parameter& p) {
  if (!p.is_split()) return {{0, 0, element_count(p.shape)}};
  const auto dim = static_cast<std::size_t>(p.split_dim);
  std::int64_t outer = 1, inner = 1;  // elements before and behind the dimension that is split
  for (std::size_t i = 0; i < dim; ++i) outer *= p.whole[i];
  for (std::size_t i = dim + 1; i < p.whole.size(); ++i) inner *= p.whole[i];
  std::vector<ParameterRun> result;
  std::int64_t here = 0;
  for (std::int64_t i = 0; i < outer; ++i)
    for (const Slice& slice : p.slices) {
      const std::int64_t count = (slice.end - slice.begin) * inner;
      result.push_back({(i * p.whole[dim] + slice.begin) * inner, here, count});
      here += count;
    }
  return result;
}

namespace {

void check_whole(const Parameter& p, const Tensor& part, const Tensor& whole) {
  check(part.numel() == element_count(p.shape) && whole.numel() == element_count(p.whole),
        "{} is {} of {} here, but was copied between tensors of shapes {} and {}", p.name, to_string(p.shape),
        to_string(p.whole), to_string(part.shape()), to_string(whole.shape()));
}

}  // namespace

void copy_from_whole(const Parameter& p, const Tensor& part, const Tensor& whole) {
  check_whole(p, part, whole);
  for (const ParameterRun& run : runs(p))
    part.range(run.here, {run.count}).copy_from(whole.range(run.whole, {run.count}));
}

void copy_into_whole(const Parameter& p, const Tensor& whole, const Tensor& part) {
  check_whole(p, part, whole);
  for (const ParameterRun& run : runs(p))
    whole.range(run.whole, {run.count}).copy_from(part.range(run.here, {run.count}));
}

}  // namespace llm
