// Sizes, and what follows from them.
#include <gtest/gtest.h>

#include <limits>

#include "common/core/error.h"
#include "common/model/config.h"
#include "common/model/gpt.h"
#include "tests/ch04_model_helpers.h"

namespace llm {
namespace {

TEST(GptConfig, CountsTheParametersThatArePublished) {
  EXPECT_EQ(parameter_count(gpt2_config("gpt2-124m")), 124'439'808);
  EXPECT_EQ(parameter_count(gpt2_config("gpt2-355m")), 354'823'168);
  EXPECT_EQ(parameter_count(gpt2_config("gpt2-774m")), 774'030'080);
  EXPECT_EQ(parameter_count(gpt2_config("gpt2-1.5b")), 1'557'611'200);
  GptConfig untied = gpt2_config("gpt2-124m");
  untied.tied_head = false;
  EXPECT_EQ(parameter_count(untied), 163'037'184);
  untied.qkv_bias = false;
  EXPECT_EQ(parameter_count(untied), 163'009'536);
  EXPECT_THROW(gpt2_config("gpt2"), UsageError);
}

TEST(GptConfig, CountsWhatAModelAllocates) {
  for (int variant = 0; variant < 8; ++variant) {
    GptConfig config = testing::small_config();
    config.bias = variant & 1;
    config.qkv_bias = variant & 2;
    config.tied_head = variant & 4;
    GptStage model(config);
    EXPECT_EQ(model.parameters().count(), parameter_count(config));
    StageActivations saved;
    StageScratch scratch;
    testing::randomize(model, 1);
    const Tensor tokens = testing::random_ids(3, 5, config.vocab_size, 1);
    model.forward(saved, tokens);
    model.loss(saved, scratch, tokens, 1.0F);
    EXPECT_EQ(saved.bytes() + scratch.bytes(), activation_bytes(config, 3, 5));
  }
}

// 6 operations per weight that multiplies (85.0 million in the blocks and 38.6 million in the head) and
// 12 L C T for the attention: 855 million at the full context, as published for GPT-2 124M.
TEST(GptConfig, CountsOperations) {
  const GptConfig c = gpt2_config("gpt2-124m");
  EXPECT_EQ(training_flops_per_token(c, 1024), 6.0 * (84'934'656 + 38'597'376) + 12.0 * 12 * 768 * 1024);
}

TEST(GptConfig, RefusesAbsurdSizesWithASentence) {
  const auto refused = [](auto change) {
    GptConfig config;
    change(config);
    try {
      validate(config);
      return std::string("accepted");
    } catch (const UsageError& error) {
      return std::string(error.what());
    }
  };
  EXPECT_EQ(refused([](GptConfig&) {}), "accepted");
  EXPECT_EQ(refused([](GptConfig& c) { c.heads = 7; }),
            "a model's channels are divided evenly among its heads, but 768 is no multiple of 7");
  constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t bad : {std::int64_t{0}, std::int64_t{-1}, kHuge, -kHuge}) {
    EXPECT_NE(refused([=](GptConfig& c) { c.vocab_size = bad; }), "accepted");
    EXPECT_NE(refused([=](GptConfig& c) { c.context = bad; }), "accepted");
    EXPECT_NE(refused([=](GptConfig& c) { c.channels = bad; }), "accepted");
    EXPECT_NE(refused([=](GptConfig& c) { c.layers = bad; }), "accepted");
    EXPECT_NE(refused([=](GptConfig& c) { c.heads = bad; }), "accepted");
    EXPECT_NE(refused([=](GptConfig& c) { c.mlp_channels = bad == 0 ? -5 : bad; }), "accepted");
  }
  for (const float bad : {-0.1F, 1.0F, std::numeric_limits<float>::quiet_NaN()})
    EXPECT_NE(refused([=](GptConfig& c) { c.dropout = bad; }), "accepted");
  for (const float bad : {0.0F, -1.0F, 2.0F, std::numeric_limits<float>::quiet_NaN()})
    EXPECT_NE(refused([=](GptConfig& c) { c.layer_norm_eps = bad; }), "accepted");
  for (const float bad : {0.0F, -0.02F, 1.5F, std::numeric_limits<float>::quiet_NaN()})
    EXPECT_NE(refused([=](GptConfig& c) { c.initializer_range = bad; }), "accepted");
}

}  // namespace
}  // namespace llm
