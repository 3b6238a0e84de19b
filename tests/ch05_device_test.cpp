// Training and generation on the device `cuda` (a GPU, or the software GPU): the same run as on the CPU.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <vector>

#include "common/core/device_memory.h"
#include "common/generation/generate.h"
#include "common/training/trainer.h"
#include "tests/ch04_model_helpers.h"

namespace llm {
namespace {

constexpr Placement kCuda{Device::cuda, DType::f32}, kCudaBf16{Device::cuda, DType::bf16};

GptConfig small_config(float dropout = 0) {
  GptConfig config;
  config.vocab_size = 61;
  config.context = 24;
  config.channels = 64;
  config.layers = 2;
  config.heads = 2;
  config.dropout = dropout;
  return config;
}

/// A text with something to learn: every other token follows from the one before.
std::vector<std::uint16_t> small_text() {
  std::vector<std::uint16_t> tokens(5000);
  PhiloxSequence random(3, stream_id("small text"));
  for (std::size_t i = 0; i < tokens.size(); i += 2) {
    tokens[i] = static_cast<std::uint16_t>(random.below(25));
    tokens[i + 1] = static_cast<std::uint16_t>(25 + tokens[i]);
  }
  return tokens;
}

TrainerOptions small_options() {
  TrainerOptions o;
  o.schedule = {.peak = 1e-2, .floor = 1e-3, .warmup = 4, .steps = 20};
  o.clip = 0.8;
  o.batch = 3;
  o.accumulate = 2;
  o.seed = 7;
  return o;
}

GptStage small_model(Placement placement, float dropout = 0) {
  GptStage model(small_config(dropout));
  model.initialize(5);
  return placement.device == Device::cpu ? std::move(model) : model.placed(placement);
}

std::vector<float> on_host(const Tensor& t) {
  const Tensor here = t.to(Device::cpu);
  return {here.span().begin(), here.span().end()};
}

TEST(DeviceTraining, TwentyStepsInF32AreThoseOfTheCpu) {
  const auto tokens = small_text();
  for (const float dropout : {0.0F, 0.2F}) {
    GptStage here = small_model({}, dropout), there = small_model(kCuda, dropout);
    Trainer cpu(here, tokens, 0, small_options()), cuda(there, tokens, 0, small_options());
    for (int step = 1; step <= 20; ++step) {
      const StepReport a = cpu.step(), b = cuda.step();
      // Sums in other orders differ by some 1e-6; twenty steps of Adam, which divides by the root of small
      // second moments, make more of it.
      EXPECT_NEAR(b.loss, a.loss, 1e-4 * a.loss) << "step " << step << ", dropout " << dropout;
      EXPECT_NEAR(b.gradient_norm, a.gradient_norm, 1e-4 * a.gradient_norm) << "step " << step;
      if (step == 1) {
        EXPECT_LT(testing::relative_distance(on_host(there.parameters().gradients()),
                                             on_host(here.parameters().gradients())),
                  1e-5);
      }
    }
    EXPECT_LT(
        testing::relative_distance(on_host(there.parameters().values()), on_host(here.parameters().values())),
        1e-3);
  }
}

TEST(DeviceTraining, Bf16StaysWithinItsRounding) {
  const auto tokens = small_text();
  GptStage here = small_model({}), there = small_model(kCudaBf16);
  Trainer cpu(here, tokens, 0, small_options()), cuda(there, tokens, 0, small_options());
  // bf16 rounds each number by at most u = 2^-8 of itself. The stream is rounded 2L + 1 times and the
  // weights, norms and logits once each, at random: the logits, which are of the order of 1, are off by about
  // u sqrt(2L + 4), and a mean loss by less. Gradients pass twice as many roundings, half of them correlated
  // over the rows of a batch.
  const double u = 0x1p-8;
  const double of_loss = u * std::sqrt(2.0 * 2 + 4), of_gradient = 4 * of_loss;
  for (int step = 1; step <= 20; ++step) {
    const StepReport a = cpu.step(), b = cuda.step();
    EXPECT_NEAR(b.loss, a.loss, (step == 1 ? 1 : 4) * of_loss) << "step " << step;
    if (step == 1) {
      EXPECT_LT(testing::relative_distance(on_host(there.parameters().gradients()),
                                           on_host(here.parameters().gradients())),
                of_gradient);
    }
  }
  EXPECT_LT(cpu.step().loss, 3.0) << "the run learned nothing, so the comparison says little";
}

TEST(DeviceTraining, ResumesToTheSameBits) {
  const auto tokens = small_text();
  const std::filesystem::path file =
      std::filesystem::temp_directory_path() / fmt::format("device_{}.ckpt", getpid());
  for (const Placement placement : {kCuda, kCudaBf16}) {
    GptStage whole = small_model(placement, 0.1F), first = small_model(placement, 0.1F);
    Trainer uninterrupted(whole, tokens, 0, small_options()), interrupted(first, tokens, 0, small_options());
    for (int step = 0; step < 6; ++step) uninterrupted.step();
    for (int step = 0; step < 3; ++step) interrupted.step();
    interrupted.save(file);
    GptStage second(small_config(0.1F), placement);
    Trainer resumed(second, tokens, 0, small_options());
    resumed.resume(file);
    for (int step = 3; step < 6; ++step) resumed.step();
    const auto a = on_host(whole.parameters().values()), b = on_host(second.parameters().values());
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << name(placement.dtype);
  }
  GptStage other = small_model(kCuda, 0.1F);
  Trainer f32(other, tokens, 0, small_options());
  EXPECT_THROW(f32.resume(file), Error) << "a bf16 run was resumed in f32";
  std::filesystem::remove(file);
}

TEST(DeviceTraining, AStepAllocatesNothing) {
  const auto tokens = small_text();
  GptStage model = small_model(kCudaBf16, 0.1F);
  Trainer trainer(model, tokens, 0, small_options());
  for (int step = 0; step < 2; ++step) trainer.step();
  const auto before = device_allocations();
  for (int step = 0; step < 3; ++step) trainer.step();
  EXPECT_EQ(device_allocations(), before);
}

TEST(DeviceGeneration, WritesWhatTheCpuWrites) {
  GptStage here(small_config());
  testing::randomize(here, 11);
  const GptStage there = here.placed(kCuda);
  const std::vector<std::int32_t> prompt = {3, 1, 4, 1, 5};
  GenerateOptions options;
  options.max_new_tokens = 40;  // more than the context, so that the text is read again
  options.sampling.temperature = 0;
  const Generated a = generate(here, prompt, options), b = generate(there, prompt, options);
  EXPECT_EQ(b.tokens, a.tokens);
  options.sampling.temperature = 1;
  options.stop_token = 7;  // sequences leave the batch one by one
  const auto many_a = generate_many(here, prompt, 9, options, 4),
             many_b = generate_many(there, prompt, 9, options, 4);
  for (std::size_t i = 0; i < many_a.size(); ++i) EXPECT_EQ(many_b[i].tokens, many_a[i].tokens) << i;
}

TEST(DeviceGeneration, DecodingInBf16IsTheForwardPass) {
  GptStage here(small_config());
  here.initialize(5);
  const GptStage there = here.placed(kCudaBf16);
  const Tensor tokens = testing::random_ids(2, 9, 61, 1);
  StageActivations saved;
  there.forward(saved, tokens);
  const Tensor all({2, 9, 61});
  there.logits(all, saved);
  KvCache cache = there.make_cache(2, 9);
  const Tensor last({2, 61});
  there.decode(last, cache, tokens);
  for (int b = 0; b < 2; ++b)
    for (int v = 0; v < 61; ++v) {
      const float expected = all.data()[(b * 9 + 8) * 61 + v];
      EXPECT_NEAR(last.data()[b * 61 + v], expected, 0x1p-6 * (0.1 + std::abs(expected)));
    }
}

TEST(DevicePlacement, Bf16OnTheCpuIsRefused) {
  EXPECT_THROW(GptStage(small_config(), {Device::cpu, DType::bf16}), Error);
}

}  // namespace
}  // namespace llm
