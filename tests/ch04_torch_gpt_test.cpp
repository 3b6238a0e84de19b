// A number that others printed: an untrained GPT of 163 million parameters, initialised under
// torch.manual_seed(123), continues "Hello, I am" in a way that only the same weights to the last bits and
// the same arithmetic can: published for PyTorch, made here without it.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "common/core/torch_random.h"
#include "common/model/gpt.h"

namespace llm {
namespace {

TEST(GptStage, ContinuesAsPublishedForPyTorch) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "takes a minute under sanitizers; the small models run the same code";
#endif
  GptConfig config = gpt2_config("gpt2-124m");
  config.tied_head = false;
  config.qkv_bias = false;
  GptStage model(config);
  TorchRandom random(123);
  model.initialize_like_torch(random);

  std::vector<std::int32_t> text = {15496, 11, 314, 716};  // "Hello, I am"
  KvCache cache = model.make_cache(1, 14);
  Tensor logits({1, config.vocab_size});
  Tensor next = Tensor::from(std::span<const std::int32_t>(text), {1, 4});
  for (int i = 0; i < 10; ++i) {
    model.decode(logits, cache, next);
    const auto row = logits.span();
    text.push_back(static_cast<std::int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
    next = Tensor::from(std::span<const std::int32_t>(&text.back(), 1), {1, 1});
  }
  EXPECT_EQ(text, (std::vector<std::int32_t>{15496, 11, 314, 716, 27018, 24086, 47843, 30961, 42348, 7267,
                                             49706, 43231, 47062, 34657}));
}

}  // namespace
}  // namespace llm
