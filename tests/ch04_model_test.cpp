// The whole model: against PyTorch's golden files, against finite differences, and against itself.
#include <gtest/gtest.h>

#include <algorithm>

#include "common/core/error.h"
#include "common/core/threads.h"
#include "common/model/gpt.h"
#include "common/model/huggingface.h"
#include "tests/ch04_model_helpers.h"

namespace llm {
namespace {

using testing::copy;
using testing::random_ids;
using testing::randomize;
using testing::relative_distance;
using testing::run;
using testing::small_config;

// The norm: Euclidean, per tensor. Each of some ten roundings per layer is of 6e-8 relative; 1e-5 leaves room
// for their accumulation over three layers, and none for a wrong formula.
constexpr double kTolerance = 1e-5;

class GoldenModel : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenModel, AgreesWithPyTorchForwardAndBackward) {
  const std::filesystem::path folder = std::string(LLM_GOLDEN_DIR) + "/model_" + GetParam();
  GptStage model = load_huggingface(folder);
  const SafetensorsFile answers(folder / "answers.safetensors");
  const Tensor tokens = testing::read_ids(answers, "tokens");
  const Tensor targets = testing::read_ids(answers, "targets");

  StageActivations saved;
  StageScratch scratch;
  model.forward(saved, tokens);
  Tensor logits({tokens.dim(0), tokens.dim(1), model.config().vocab_size});
  model.logits(logits, saved);
  EXPECT_LT(relative_distance(logits.span(), testing::read_tensor(answers, "logits").span()), kTolerance);

  const double sum = model.loss(saved, scratch, targets, 1.0F);
  const Tensor losses = testing::read_tensor(answers, "losses");
  EXPECT_LT(relative_distance(saved.losses.span(), losses.span()), kTolerance);
  double expected = 0;
  for (const float x : losses.span()) expected += x;
  EXPECT_NEAR(sum, expected, kTolerance * expected);

  model.backward(saved, scratch, tokens);
  for (const Parameter& p : model.parameters().all()) {
    if (answers.find("grad." + p.name) == nullptr) {
      EXPECT_TRUE(std::string(GetParam()) == "half" || std::string(GetParam()) == "bfloat") << p.name;
      continue;
    }
    Tensor gradient = testing::read_tensor(answers, "grad." + p.name);
    std::vector<float> ours = copy(p.gradient);
    if (gradient.shape() != p.shape) {  // Conv1D stores (in, out)
      ASSERT_EQ(gradient.dim(0), p.shape[1]) << p.name;
      for (std::int64_t out = 0; out < p.shape[0]; ++out)
        for (std::int64_t in = 0; in < p.shape[1]; ++in)
          ours[static_cast<std::size_t>(in * p.shape[0] + out)] = p.gradient.data()[out * p.shape[1] + in];
    } else if (gradient.rank() == 2 &&
               p.shape[0] == p.shape[1]) {  // square: transposed, though it does not show
      for (std::int64_t out = 0; out < p.shape[0]; ++out)
        for (std::int64_t in = 0; in < p.shape[1]; ++in)
          ours[static_cast<std::size_t>(in * p.shape[0] + out)] = p.gradient.data()[out * p.shape[1] + in];
    }
    EXPECT_LT(relative_distance(ours, gradient.span()), kTolerance) << p.name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenModel, ::testing::Values("tied", "untied", "half", "bfloat"),
                         [](const auto& test) { return std::string(test.param); });

// Along a direction d of unit length the loss changes by (gradient, d) per step. With d the gradient itself
// that is its length, the strongest signal there is: f32 noise of the loss (1e-6 of it) over a step of 1e-2
// stays below 1e-3 of it.
void expect_finite_differences(const GptConfig& config, const ForwardOptions& options) {
  GptStage model(config);
  randomize(model, 5);
  const Tensor tokens = random_ids(2, 11, config.vocab_size, 1);
  const Tensor targets = random_ids(2, 11, config.vocab_size, 2);
  targets.data<std::int32_t>()[4] = -1;
  run(model, tokens, targets, options);
  const std::vector<float> gradients = copy(model.parameters().gradients());
  for (const Parameter& p : model.parameters().all()) {
    const std::span<const float> g = std::span(gradients).subspan(static_cast<std::size_t>(p.offset),
                                                                  static_cast<std::size_t>(p.value.numel()));
    double squares = 0;
    for (const float x : g) squares += static_cast<double>(x) * x;
    const double length = std::sqrt(squares);
    ASSERT_GT(length, 0) << p.name << " has no gradient";
    const std::vector<float> original = copy(p.value);
    const double step = std::min(1e-2, 0.05 / length);
    const auto loss_at = [&](double t) {
      for (std::size_t i = 0; i < g.size(); ++i)
        p.value.data()[i] = static_cast<float>(original[i] + t * g[i] / length);
      StageActivations saved;
      StageScratch scratch;
      model.forward(saved, tokens, options);
      return model.loss(saved, scratch, targets, std::nullopt);
    };
    const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
    std::copy(original.begin(), original.end(), p.value.data());
    EXPECT_NEAR(slope / length, 1, 5e-3) << p.name;
  }
}

TEST(GptStage, GradientsAreFiniteDifferences) {
  expect_finite_differences(small_config(), {});
  GptConfig bare = small_config();
  bare.bias = bare.qkv_bias = bare.tied_head = false;
  expect_finite_differences(bare, {});
}

TEST(GptStage, GradientsAreFiniteDifferencesUnderDropout) {
  GptConfig config = small_config();
  config.dropout = 0.3F;
  expect_finite_differences(config, {.training = true, .seed = 3, .step = 8, .first_row = 5});
}

TEST(GptStage, IsTheSameToTheBitForAnyNumberOfThreads) {
  GptConfig config = small_config();  // made large enough for every loop to be divided among threads
  config.vocab_size = 1001;
  config.context = 67;
  config.channels = 96;
  config.mlp_channels = 0;
  config.dropout = 0.1F;
  const Tensor tokens = random_ids(5, 67, config.vocab_size, 1);
  const Tensor targets = random_ids(5, 67, config.vocab_size, 2);
  std::vector<float> values;
  std::vector<float> gradients;
  double loss = 0;
  for (const int threads : {1, 2, 3}) {
    set_thread_count(threads);
    GptStage model(config);
    model.initialize(9);
    const double sum = run(model, tokens, targets, {.training = true, .seed = 1, .step = 2});
    if (threads == 1) {
      values = copy(model.parameters().values());
      gradients = copy(model.parameters().gradients());
      loss = sum;
    }
    EXPECT_EQ(copy(model.parameters().values()), values) << threads << " threads";
    EXPECT_EQ(copy(model.parameters().gradients()), gradients) << threads << " threads";
    EXPECT_EQ(sum, loss) << threads << " threads";
  }
  set_thread_count(0);
}

TEST(GptStage, DropoutDependsOnSeedStepAndGlobalRowAlone) {
  GptConfig config = small_config();
  config.dropout = 0.4F;
  GptStage model(config);
  randomize(model, 1);
  const Tensor tokens = random_ids(4, 7, config.vocab_size, 1);
  const auto output = [&](const Tensor& rows, const ForwardOptions& options) {
    StageActivations saved;
    return copy(model.forward(saved, rows, options));
  };
  const ForwardOptions options{.training = true, .seed = 3, .step = 5};
  const std::vector<float> whole = output(tokens, options);
  EXPECT_EQ(whole, output(tokens, options));
  EXPECT_NE(whole, output(tokens, {.training = true, .seed = 3, .step = 6}));
  EXPECT_NE(whole, output(tokens, {.training = true, .seed = 4, .step = 5}));
  EXPECT_EQ(output(tokens, {.training = false, .seed = 3}), output(tokens, {.training = false, .seed = 4}));
  // Rows 2 and 3 alone, as another rank would have them.
  const std::vector<float> half =
      output(tokens.slice(2, 4), {.training = true, .seed = 3, .step = 5, .first_row = 2});
  EXPECT_LT(relative_distance(half, std::span(whole).last(half.size())),
            1e-6);  // products may round otherwise
}

TEST(GptStage, TwoStagesAreTheWholeModel) {
  GptConfig config = small_config();
  config.tied_head = false;
  config.dropout = 0.2F;
  GptStage whole(config);
  randomize(whole, 3);
  GptStage first(config, 0, 1);
  GptStage second(config, 1, 3);
  for (GptStage* stage : {&first, &second})
    for (const Parameter& p : stage->parameters().all())
      p.value.copy_from(whole.parameters().find(p.name)->value);

  const Tensor tokens = random_ids(2, 9, config.vocab_size, 1);
  const Tensor targets = random_ids(2, 9, config.vocab_size, 2);
  const ForwardOptions options{.training = true, .seed = 1, .step = 1};
  const double expected = run(whole, tokens, targets, options);

  StageActivations saved1, saved2;
  StageScratch scratch1, scratch2;
  const Tensor& between = first.forward(saved1, tokens, options);
  second.forward(saved2, between, options);
  EXPECT_EQ(second.loss(saved2, scratch2, targets, 1.0F), expected);
  second.backward(saved2, scratch2, between, options);
  first.prepare(scratch1, 2, 9);
  scratch1.dstream.copy_from(scratch2.dstream);
  first.backward(saved1, scratch1, tokens, options);
  for (GptStage* stage : {&first, &second})
    for (const Parameter& p : stage->parameters().all())
      EXPECT_EQ(copy(p.gradient), copy(whole.parameters().find(p.name)->gradient)) << p.name;
}

TEST(GptStage, GradientsOfMicroBatchesAddUp) {
  GptStage model(small_config());
  randomize(model, 3);
  const Tensor tokens = random_ids(4, 9, 41, 1);
  const Tensor targets = random_ids(4, 9, 41, 2);
  run(model, tokens, targets);
  const std::vector<float> whole = copy(model.parameters().gradients());
  model.parameters().zero_gradients();
  StageActivations saved;
  StageScratch scratch;
  for (std::int64_t row = 0; row < 4; ++row) {
    model.forward(saved, tokens.slice(row, row + 1));
    model.loss(saved, scratch, targets.slice(row, row + 1), 1.0F);
    model.backward(saved, scratch, tokens.slice(row, row + 1));
  }
  EXPECT_LT(relative_distance(model.parameters().gradients().span(), whole), 1e-6);
}

// Activations are reused by a smaller batch and made anew for a larger one.
TEST(GptStage, TakesBatchesOfAnySizeOneAfterTheOther) {
  GptStage model(small_config());
  randomize(model, 3);
  StageActivations reused;
  for (const auto& [batch, tokens] : {std::pair{3, 10}, {1, 4}, {2, 7}, {5, 19}, {1, 1}}) {
    const Tensor ids = random_ids(batch, tokens, 41, 4);
    StageActivations fresh;
    EXPECT_EQ(copy(model.forward(reused, ids)), copy(model.forward(fresh, ids)));
  }
}

TEST(GptStage, DecodingOverTheCacheEqualsTheFullForward) {
  GptConfig config = small_config();
  GptStage model(config);
  randomize(model, 7);
  const std::int64_t B = 2, T = 19, V = config.vocab_size;
  const Tensor tokens = random_ids(B, T, V, 3);
  StageActivations saved;
  model.forward(saved, tokens);
  Tensor all({B, T, V});
  model.logits(all, saved);

  // Runs of 1 and of several tokens, with an empty and a filled cache.
  for (const std::vector<std::int64_t>& runs :
       {std::vector<std::int64_t>(19, 1), {19}, {5, 1, 1, 7, 1, 4}, {1, 18}}) {
    KvCache cache = model.make_cache(B, T);
    for (const std::int64_t count : runs) {
      Tensor part = Tensor::uninitialized({B, count}, DType::i32);
      for (std::int64_t b = 0; b < B; ++b)
        std::copy_n(tokens.data<std::int32_t>() + b * T + cache.length, count,
                    part.data<std::int32_t>() + b * count);
      Tensor logits({B, V});
      model.decode(logits, cache, part);
      for (std::int64_t b = 0; b < B; ++b)
        EXPECT_LT(relative_distance(logits.slice(b, b + 1).span(),
                                    all.range((b * T + cache.length - 1) * V, {V}).span()),
                  1e-5)
            << "position " << cache.length - 1;
    }
    EXPECT_THROW(model.decode(Tensor({B, V}), cache, random_ids(B, 1, V, 1)), Error) << "the cache is full";
  }
}

TEST(GptStage, RefusesWhatDoesNotFit) {
  GptStage model(small_config());
  StageActivations saved;
  EXPECT_THROW(model.forward(saved, random_ids(1, 20, 41, 1)), Error) << "longer than the context";
  EXPECT_THROW(model.forward(saved, Tensor({1, 5, 21})), Error) << "no tokens";
  const Tensor foreign = random_ids(1, 5, 41, 1);
  foreign.data<std::int32_t>()[2] = 41;
  EXPECT_THROW(model.forward(saved, foreign), Error) << "a token outside the vocabulary";
  EXPECT_THROW(model.make_cache(1, 20), Error);
}

TEST(GptStage, InitialisesLikeGpt2) {
  GptConfig config = small_config();
  config.vocab_size = 1000;
  config.channels = 96;
  config.mlp_channels = 0;
  config.initializer_range = 0.05F;
  GptStage model(config);
  model.initialize(1);
  for (const Parameter& p : model.parameters().all()) {
    double sum = 0, squares = 0;
    for (const float x : p.value.span()) {
      sum += x;
      squares += static_cast<double>(x) * x;
    }
    const auto n = static_cast<double>(p.value.numel());
    const double deviation = std::sqrt(squares / n);
    if (p.shape.size() == 1) {
      const bool norm = p.name.find("ln_") != std::string::npos && p.name.ends_with("weight");
      EXPECT_EQ(sum, norm ? n : 0) << p.name;
      continue;
    }
    const double expected = p.name.ends_with("c_proj.weight") ? 0.05 / std::sqrt(6.0) : 0.05;
    EXPECT_NEAR(deviation / expected, 1, 5 / std::sqrt(2 * n)) << p.name;  // five standard errors
    EXPECT_NEAR(sum / n, 0, 5 * expected / std::sqrt(n)) << p.name;
  }
}

TEST(ParameterStore, LaysParametersOutWithoutGaps) {
  GptStage model(small_config());
  const ParameterStore& store = model.parameters();
  std::int64_t offset = 0;
  for (const Parameter& p : store.all()) {
    EXPECT_EQ(p.offset, offset) << p.name;
    EXPECT_EQ(p.value.data(), store.values().data() + offset) << p.name;
    EXPECT_EQ(p.gradient.data(), store.gradients().data() + offset) << p.name;
    EXPECT_EQ(p.decay, p.shape.size() == 2) << p.name;
    offset += p.value.numel();
  }
  EXPECT_EQ(offset, store.count());
  EXPECT_EQ(store.find("h.2.mlp.c_proj.weight")->shape, (Shape{21, 50}));
  EXPECT_EQ(store.find("h.3.mlp.c_proj.weight"), nullptr);
}

}  // namespace
}  // namespace llm
