// AdamW over a model's flat parameter buffer, and clipping of its gradients.
//
// Adam: Kingma and Ba 2015, algorithm 1; the decoupled weight decay: Loshchilov and Hutter 2019, algorithm 2.
// Decay applies to matrices and embeddings, not to biases and norms (`Parameter::decay`). Values, gradients
// and two moments are four floats, 16 bytes per parameter, in all. Chapter 5 explains it.
#pragma once

#include <cstdint>
#include <vector>

#include "common/core/tensor.h"
#include "common/model/parameter_store.h"
#include "common/ops/ops.h"

namespace llm {

struct AdamWOptions {
  float beta1 = 0.9F;
  float beta2 = 0.99F;
  float eps = 1e-8F;
  float weight_decay = 0.1F;  // of the parameters that decay
};

/// UsageError unless 0 <= beta < 1, eps > 0 and weight decay >= 0.
void validate(const AdamWOptions& options);

/// Update number `step` (from 1) with these options; of parameters that do not decay until `weight_decay` is
/// set.
AdamWStep adamw_step(const AdamWOptions& options, std::int64_t step, double learning_rate,
                     double gradient_scale);

/// A stretch of the flat buffers whose parameters all decay, or all do not.
struct DecayRange {
  std::int64_t begin = 0, end = 0;
  bool decay = true;
};

/// The store's parameters that train, as few stretches: neighbours of one kind are joined.
std::vector<DecayRange> decay_ranges(const ParameterStore& parameters);

class AdamW {
 public:
  AdamW(const ParameterStore& parameters, const AdamWOptions& options);

  /// One update of all parameters that trained when the optimizer was made, from their gradients, which are
  /// first multiplied by `gradient_scale`.
  void step(double learning_rate, double gradient_scale = 1);

  std::int64_t steps_taken = 0;
  // f32, on the parameters' device: of those that train, in their order and without gaps.
  Tensor first_moment, second_moment;

 private:
  Tensor values_, gradients_, rounded_;  // the store's
  AdamWOptions options_;
  std::vector<DecayRange> ranges_;
};

/// The Euclidean norm of all gradients (of parameters that train) as one vector, summed in double in an order
/// that depends only on their count.
double gradient_norm(const ParameterStore& parameters);

/// What gradients of norm `norm` are multiplied by so that their norm is at most `limit` (Pascanu et al.
/// 2013, algorithm 1): limit / norm where the norm is larger, else 1. A limit of 0 means no clipping.
double clip_scale(double norm, double limit);

}  // namespace llm
