#include "common/model/parameter_store.h"

#include "common/core/error.h"
#include "common/ops/ops.h"

namespace llm {

std::size_t ParameterStore::declare(std::string name, Shape shape, bool decay) {
  check(!values_.defined(), "parameter {} was declared after the buffers were allocated", name);
  check(find(name) == nullptr, "there are two parameters named {}", name);
  Parameter parameter{.name = std::move(name),
                      .shape = std::move(shape),
                      .offset = count_,
                      .decay = decay,
                      .value = {},
                      .gradient = {},
                      .working = {}};
  count_ += element_count(parameter.shape);
  parameters_.push_back(std::move(parameter));
  return parameters_.size() - 1;
}

void ParameterStore::allocate(Device device, DType working) {
  check(!values_.defined(), "the parameters are allocated already");
  values_ = Tensor({count_}, DType::f32, device);
  gradients_ = Tensor({count_}, DType::f32, device);
  if (working != DType::f32) rounded_ = Tensor({count_}, working, device);
  for (Parameter& p : parameters_) {
    p.value = values_.range(p.offset, p.shape);
    p.gradient = gradients_.range(p.offset, p.shape);
    p.working = rounded_.defined() ? rounded_.range(p.offset, p.shape) : p.value;
  }
}

void ParameterStore::round_values() const {
  if (rounded_.defined()) cast(rounded_, values_);
}

const Parameter* ParameterStore::find(std::string_view name) const {
  for (const Parameter& p : parameters_)
    if (p.name == name) return &p;
  return nullptr;
}

}  // namespace llm
