// Which model a training run makes: a GPT-2 by name, or sizes. Chapters 5 and 6 ask for it in the same words.
#pragma once

#include <cstdint>
#include <string>

#include "common/model/config.h"

namespace llm {

struct ModelChoice {
  std::string model_name;  // "gpt2-124m" ...; empty: the sizes below
  std::int64_t layers = 4, heads = 4, channels = 128, context = 128;
  float dropout = 0;
  float init_std = 0.02F;  // of the first weights
  bool bias = true;
};

/// The configuration of that model. UsageError if there is none of that name, or the sizes make no sense.
GptConfig config_of(const ModelChoice& choice, std::int64_t vocabulary);

}  // namespace llm
