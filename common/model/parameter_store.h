// All parameters of a model in one flat buffer, all their gradients in another.
//
// With bf16 there is a third buffer: the values are kept in f32 and the model computes with a rounded copy of
// them (Micikevicius et al. 2018, "Mixed precision training", section 3.1).
//
// Optimizers, clipping, all-reduce, ZeRO shards and checkpoints are then loops over ranges. A
// parameter is a named view of its range. Chapter 4 explains it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/core/tensor.h"

namespace llm {

struct Parameter {
  std::string name;         // GPT-2's tensor name, e.g. "h.0.attn.c_attn.weight"
  Shape shape;              // as stored here: linear weights are (out, in)
  std::int64_t offset = 0;  // first element within the flat buffers
  bool decay = true;        // weight decay applies (matrices and embeddings, not biases and norms)
  Tensor value;             // f32
  Tensor gradient;          // f32
  Tensor working;           // what the model computes with: `value` itself, or its bf16 copy
};

class ParameterStore {
 public:
  /// Declares a parameter and returns its index. All are declared before `allocate`.
  std::size_t declare(std::string name, Shape shape, bool decay);
  /// Allocates the flat buffers (zeros) and makes the views. `working` is the dtype to compute with.
  void allocate(Device device = Device::cpu, DType working = DType::f32);

  const Tensor& values() const { return values_; }        // (count) f32
  const Tensor& gradients() const { return gradients_; }  // (count) f32
  /// (count) bf16; undefined where the model computes with the values themselves. Whoever writes into the
  /// values calls `round_values` afterwards, or writes both.
  const Tensor& rounded() const { return rounded_; }
  void round_values() const;
  std::int64_t count() const { return count_; }
  const std::vector<Parameter>& all() const { return parameters_; }
  const Parameter& operator[](std::size_t index) const { return parameters_[index]; }
  /// nullptr if there is none of that name.
  const Parameter* find(std::string_view name) const;
  void zero_gradients() const { gradients_.zero(); }

 private:
  std::vector<Parameter> parameters_;
  std::int64_t count_ = 0;
  Tensor values_;
  Tensor gradients_;
  Tensor rounded_;
};

}  // namespace llm
