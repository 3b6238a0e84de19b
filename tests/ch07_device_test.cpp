// Fine-tuning on the device cuda (the GPU in software where there is no other): the losses of the CPU.
#include <gtest/gtest.h>

#include <string>

#include "tests/ch07_tuning_helpers.h"

namespace llm {
namespace {

using namespace tuning_test;

/// The device's attention takes heads of 16 channels or more.
TuningRun on(Device device, TuningRun r) {
  r.config = config_of();
  r.config.channels = 32;
  r.placement = {device, DType::f32};
  r.steps = 2;
  return r;
}

void expect_device_as_cpu(const TuningRun& r) {
  const Outcome expected = run(on(Device::cpu, r)), got = run(on(Device::cuda, r));
  // 1e-4 asks for the right formulas; the first loss is before any step and much nearer.
  expect_close_runs(got, expected, 1e-4);
  EXPECT_NEAR(got.losses[0], expected.losses[0], 1e-5 * expected.losses[0]);
}

TEST(FinetuningDevice, AnswersAsOnTheCpu) {
  expect_device_as_cpu({.task = Task::answers});
}

TEST(FinetuningDevice, AdaptersAsOnTheCpu) {
  LoraOptions lora{.rank = 2, .alpha = 4, .dropout = 0.1F, .split_qkv = true};
  expect_device_as_cpu({.task = Task::packed, .lora = lora});
}

TEST(FinetuningDevice, ClassesAsOnTheCpu) {
  LoraOptions lora = kLora;
  lora.targets.emplace_back("score");
  expect_device_as_cpu({.task = Task::classes, .part = TrainedPart::last_block});
  expect_device_as_cpu({.task = Task::classes, .lora = lora, .part = TrainedPart::lora});
}

TEST(FinetuningDevice, PairsAsOnTheCpu) {
  expect_device_as_cpu({.task = Task::pairs});
}

TEST(FinetuningDevice, LayoutsOnTheDevice) {
  for (const Layout layout : {Layout{.dp = 2}, Layout{.tp = 2}, Layout{.pp = 2}}) {
    SCOPED_TRACE(to_string(layout));
    expect_device_as_cpu({.task = Task::answers, .layout = layout, .lora = kLora});
  }
}

// bf16 rounds weights and activations to 8 bits: near, and learning.
TEST(FinetuningDevice, Bf16Learns) {
  TuningRun r = on(Device::cuda, {.task = Task::answers, .lora = kLora});
  const Outcome f32 = run(r);
  r.placement.dtype = DType::bf16;
  const Outcome bf16 = run(r);
  for (std::size_t i = 0; i < f32.losses.size(); ++i)
    EXPECT_NEAR(bf16.losses[i], f32.losses[i], 0.02 * f32.losses[i]);
}

}  // namespace
}  // namespace llm
