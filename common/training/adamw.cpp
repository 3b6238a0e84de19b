// AdamW and gradient clipping. See adamw.h.
#include "common/training/adamw.h"

#include <cmath>

#include "common/core/error.h"
#include "common/ops/ops.h"

namespace llm {

void validate(const AdamWOptions& options) {
  for (const float beta : {options.beta1, options.beta2})
    if (!(beta >= 0 && beta < 1)) fail_usage("beta must be at least 0 and below 1, got {}", beta);
  if (!(options.eps > 0)) fail_usage("AdamW's eps must be positive, got {}", options.eps);
  if (!(options.weight_decay >= 0) || !std::isfinite(options.weight_decay))
    fail_usage("the weight decay must be a number that is not negative, got {}", options.weight_decay);
}

std::vector<DecayRange> decay_ranges(const ParameterStore& parameters) {
  std::vector<DecayRange> ranges;
  for (const Parameter& p : parameters.all()) {
    if (!p.trains) continue;
    const std::int64_t end = p.offset + p.value.numel();
    if (!ranges.empty() && ranges.back().end == p.offset && ranges.back().decay == p.decay)
      ranges.back().end = end;
    else
      ranges.push_back({p.offset, end, p.decay});
  }
  return ranges;
}

AdamWStep adamw_step(const AdamWOptions& options, std::int64_t step, double learning_rate,
                     double gradient_scale) {
  AdamWStep update;
  update.learning_rate = static_cast<float>(learning_rate);
  update.beta1 = options.beta1;
  update.beta2 = options.beta2;
  update.eps = options.eps;
  update.step = step;
  update.gradient_scale = static_cast<float>(gradient_scale);
  return update;
}

AdamW::AdamW(const ParameterStore& parameters, const AdamWOptions& options)
    : first_moment(Shape{parameters.trained_count()}, DType::f32, parameters.values().device()),
      second_moment(Shape{parameters.trained_count()}, DType::f32, parameters.values().device()),
      values_(parameters.values()),
      gradients_(parameters.gradients()),
      rounded_(parameters.rounded()),
      options_(options),
      ranges_(decay_ranges(parameters)) {
  validate(options);
}

void AdamW::step(double learning_rate, double gradient_scale) {
  ++steps_taken;
  AdamWStep update = adamw_step(options_, steps_taken, learning_rate, gradient_scale);
  std::int64_t moment = 0;
  for (const DecayRange& range : ranges_) {
    update.weight_decay = range.decay ? options_.weight_decay : 0;
    const Shape shape{range.end - range.begin};
    adamw_update(values_.range(range.begin, shape), first_moment.range(moment, shape),
                 second_moment.range(moment, shape), gradients_.range(range.begin, shape), update,
                 rounded_.defined() ? rounded_.range(range.begin, shape) : Tensor());
    moment += range.end - range.begin;
  }
}

double gradient_norm(const ParameterStore& parameters) {
  if (parameters.trained_count() == parameters.count())
    return std::sqrt(squared_norm(parameters.gradients()));
  double sum = 0;
  for (const DecayRange& range : decay_ranges(parameters))
    sum += squared_norm(parameters.gradients().range(range.begin, {range.end - range.begin}));
  return std::sqrt(sum);
}

double clip_scale(double norm, double limit) {
  return limit > 0 && norm > limit ? limit / norm : 1.0;
}

}  // namespace llm
