// What may be added to a model's linear layers without touching their weights. Chapter 7's LoRA is one.
#pragma once

#include <cstddef>

#include "common/core/tensor.h"

namespace llm {

struct ForwardOptions;

class LinearAdapter {
 public:
  virtual ~LinearAdapter() = default;
  /// y += the adapter's share of the layer whose weight is parameter number `weight` of the store.
  /// x (..., I), y (..., O), both of the dtype that the model computes with.
  virtual void forward(const Tensor& y, const Tensor& x, std::size_t weight,
                       const ForwardOptions& options) const = 0;
  /// dx += what comes through the adapter; the gradients of its own parameters accumulate. dx is undefined
  /// where nobody needs it. x, weight and options as in forward.
  virtual void backward(const Tensor& dx, const Tensor& dy, const Tensor& x, std::size_t weight,
                        const ForwardOptions& options) = 0;
  /// Whether the layer has a share at all.
  virtual bool adapts(std::size_t weight) const = 0;
};

}  // namespace llm
