#include "common/training/model_choice.h"

namespace llm {

GptConfig config_of(const ModelChoice& choice, std::int64_t vocabulary) {
  GptConfig config;
  if (choice.model_name.empty()) {
    config.layers = choice.layers;
    config.heads = choice.heads;
    config.channels = choice.channels;
    config.context = choice.context;
    config.bias = config.qkv_bias = choice.bias;
  } else {
    config = gpt2_config(choice.model_name);
  }
  config.vocab_size = vocabulary;
  config.dropout = choice.dropout;
  config.initializer_range = choice.init_std;
  validate(config);
  return config;
}

}  // namespace llm
