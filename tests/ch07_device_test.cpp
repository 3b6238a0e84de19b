// Fine-tuning on the device cuda (the GPU in software where there is no other): the losses of the CPU.
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "tests/ch07_tuning_helpers.h"
#include "tests/ops_helpers.h"

namespace llm {
namespace {

using namespace tuning_test;
using testing::expect_close;
using testing::integers;
using testing::normal;

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

// ---- the primitives that only fine-tuning uses -------------------------------------------------------

/// c = alpha op(a) op(b) + beta c, over columns [2, 2 + n) of c's rows.
Tensor product(Device device, std::int64_t m, std::int64_t n, std::int64_t k, bool transpose_a,
               bool transpose_b) {
  const Tensor c = normal({m, n + 5}, 1).to(device);
  const Tensor a = normal(transpose_a ? Shape{k, m + 3} : Shape{m, k + 3}, 2).to(device);
  const Tensor b = normal(transpose_b ? Shape{n, k} : Shape{k, n}, 3).to(device);
  matrix_product({c, 2, n}, {a, 1, transpose_a ? m : k}, {b},
                 {.transpose_a = transpose_a, .transpose_b = transpose_b, .alpha = 0.5F, .beta = 0.25F});
  return c.to(Device::cpu);
}

TEST(FinetuningDevice, ProductsOfColumns) {
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true})
      for (const auto& [m, n, k] : {std::tuple(1, 2, 3), std::tuple(33, 4, 48), std::tuple(5, 70, 2)})
        expect_close(product(Device::cuda, m, n, k, transpose_a, transpose_b),
                     product(Device::cpu, m, n, k, transpose_a, transpose_b),
                     fmt::format("{} x {} x {}, {}{}", m, n, k, transpose_a, transpose_b));
}

TEST(FinetuningDevice, WeightedLosses) {
  constexpr std::int64_t N = 9, C = 12, V = 35;
  std::vector<Tensor> results[2];
  for (const Device device : {Device::cpu, Device::cuda}) {
    Tensor targets = integers({N}, V, 4);
    targets.data<std::int32_t>()[3] = -1;
    const Tensor losses({N}, DType::f32, device), dx({N, C}, DType::f32, device),
        dw({V, C}, DType::f32, device);
    linear_cross_entropy(losses, dx, dw, normal({N, C}, 5).to(device), normal({V, C}, 6).to(device),
                         targets.to(device), 0.5F, normal({N}, 7).to(device));
    for (const Tensor& t : {losses, dx, dw})
      results[device == Device::cuda ? 1 : 0].push_back(t.to(Device::cpu));
  }
  for (std::size_t i = 0; i < 3; ++i) expect_close(results[1][i], results[0][i], fmt::format("result {}", i));
}

// ---- whole steps -------------------------------------------------------------------------------------

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
