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

/// Which of its flat buffers a store allocates itself. ZeRO (chapter 6) brings the others piece by piece.
struct FlatBuffers {
  bool values = true;  // and what the model computes with
  bool gradients = true;
};

/// Places [begin, end) of one dimension.
struct Slice {
  std::int64_t begin = 0, end = 0;
};

/// A named tensor of the model, or the part of it that stands here: a shard of a tensor-parallel group
/// (chapter 6) holds a part of most matrices. What is not split is whole on all its ranks, with the same
/// bits.
struct Parameter {
  std::string name;         // GPT-2's tensor name, e.g. "h.0.attn.c_attn.weight"
  Shape shape = {};         // as stored here: linear weights are (out, in)
  std::int64_t offset = 0;  // first element within the flat buffers
  bool decay = true;        // weight decay applies (matrices and embeddings, not biases and norms)
  bool trains = true;       // false: frozen, the optimizer leaves it alone and its gradient means nothing

  // Where this part lies within the tensor of the whole model. The rows (split_dim 0) or columns (1) of the
  // slices stand here one after the other; queries, keys and values are three slices. Of an unsplit
  // parameter the one slice is everything.
  Shape whole = {};
  int split_dim = 0;
  std::vector<Slice> slices = {};

  /// Of all ranks of a pipeline and tensor-parallel group that hold these elements, one is the owner: it
  /// alone counts them in norms and numbers of parameters, and writes them into checkpoints.
  bool owner = true;
  /// Sequence parallel: each rank of the tensor-parallel group has seen only its positions, so that the
  /// gradient is a part of a sum over them.
  bool partial = false;
  /// The tied embedding of a pipeline: its first and last stage both have it, and its gradient is the sum of
  /// the two. (The owner is the first.)
  bool shared = false;

  Tensor value = {};     // f32
  Tensor gradient = {};  // f32
  Tensor working = {};   // what the model computes with: `value` itself, or its bf16 copy

  bool is_split() const { return shape != whole; }
};

/// A piece of a parameter that is contiguous in the whole tensor and here.
struct ParameterRun {
  std::int64_t whole = 0, here = 0;  // first element, within the whole tensor and within this part
  std::int64_t count = 0;
};
/// All of them, ascending in both: one for an unsplit parameter, one per slice of rows, or one per row and
/// slice of columns.
std::vector<ParameterRun> runs(const Parameter& parameter);

/// part (the parameter's shape) = the parameter's elements of `whole` (its whole shape), or the other way
/// around. Any dtype, on the CPU.
void copy_from_whole(const Parameter& parameter, const Tensor& part, const Tensor& whole);
void copy_into_whole(const Parameter& parameter, const Tensor& whole, const Tensor& part);

class ParameterStore {
 public:
  /// Declares a parameter and returns its index. All are declared before `allocate`.
  std::size_t declare(std::string name, Shape shape, bool decay);
  /// ... with all that a part of a tensor has to say: everything but offset and tensors.
  std::size_t declare(Parameter parameter);
  /// Allocates the flat buffers (zeros) and makes the views. `working` is the dtype to compute with.
  void allocate(Device device = Device::cpu, DType working = DType::f32, FlatBuffers buffers = {});

  /// For a store without flat values: parameters [first, last), which are neighbours, are read from `flat`
  /// from now on, which begins with the first one's first element; an undefined tensor takes them away. A
  /// bf16 tensor is what the model computes with; an f32 one is the values as well.
  void attach_values(std::size_t first, std::size_t last, const Tensor& flat);
  /// For a store without flat gradients: the same for them.
  void attach_gradients(std::size_t first, std::size_t last, const Tensor& flat);

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
  /// Elements of parameters [first, last), which are neighbours.
  std::int64_t count(std::size_t first, std::size_t last) const;
  /// Freezes parameter `index`, or lets it train again.
  void set_trains(std::size_t index, bool trains) { parameters_[index].trains = trains; }
  /// Elements of parameters that train.
  std::int64_t trained_count() const;

 private:
  std::vector<Parameter> parameters_;
  std::int64_t count_ = 0;
  Tensor values_;
  Tensor gradients_;
  Tensor rounded_;
};

}  // namespace llm
