// The software GPU (or the real one) runs right what is right: barriers, collectives, shared memory, copies,
// tensor cores.
#include <gtest/gtest.h>

#include <numeric>

#include "common/core/device_event.h"
#include "common/core/device_memory.h"
#include "common/core/error.h"
#include "common/core/philox.h"
#include "tests/simt_kernels.h"

namespace llm {
namespace {

using namespace simt_test;

Tensor random_tensor(Shape shape, std::uint64_t seed) {
  const Tensor t = Tensor::uninitialized(std::move(shape));
  const Philox random{seed, stream_id("simt_test")};
  for (std::int64_t i = 0; i < t.numel(); ++i)
    t.data()[i] = random.uniform(static_cast<std::uint64_t>(i)) - 0.5F;
  return t;
}

Tensor to_bf16(const Tensor& x) {
  const Tensor y = Tensor::uninitialized(x.shape(), DType::bf16);
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    y.data<BFloat16>()[i] = BFloat16(x.data()[i]);
    x.data()[i] = static_cast<float>(y.data<BFloat16>()[i]);
  }
  return y;
}

TEST(SimtBasic, RunsEveryThreadOfEveryBlock) {
  const Tensor y({100'003}, DType::f32, Device::cuda);
  fill_with_indices(y);
  const Tensor host = y.to(Device::cpu);
  for (std::int64_t i = 0; i < host.numel(); ++i) ASSERT_EQ(host.data()[i], static_cast<float>(i));
}

TEST(SimtBasic, EventsFollowTheStream) {
  const Tensor y({1'000'003}, DType::f32, Device::cuda);
  DeviceEvent begin, end;
  EXPECT_THROW(end.wait(), Error);
  EXPECT_THROW(static_cast<void>(end.reached()), Error);
  begin.record();
  fill_with_indices(y);
  end.record();
  end.wait();
  EXPECT_TRUE(begin.reached());
  EXPECT_TRUE(end.reached());
  EXPECT_GT(end.seconds_since(begin), 0);
  const DeviceEvent moved = std::move(end);
  EXPECT_GT(moved.seconds_since(begin), 0);
}

TEST(SimtBasic, SumsABlock) {
  const Tensor x = random_tensor({37, 256}, 1);
  const Tensor sums({37}, DType::f32, Device::cuda);
  block_sums(sums, x.to(Device::cuda));
  const Tensor host = sums.to(Device::cpu);
  for (std::int64_t b = 0; b < 37; ++b) {
    const auto row = x.slice(b, b + 1).span();
    EXPECT_NEAR(host.data()[b], std::accumulate(row.begin(), row.end(), 0.0), 1e-5);
  }
}

TEST(SimtBasic, ReversesThroughDynamicSharedMemory) {
  const Tensor x = random_tensor({9, 128}, 2);
  const Tensor device = x.to(Device::cuda);
  reverse_blocks(device);
  const Tensor host = device.to(Device::cpu);
  for (std::int64_t b = 0; b < 9; ++b)
    for (std::int64_t i = 0; i < 128; ++i) ASSERT_EQ(host.data()[b * 128 + i], x.data()[b * 128 + 127 - i]);
}

TEST(SimtBasic, ThreadsThatReturnedAreNotRunAgainAndHoldNobodyUp) {
  const Tensor visits({96}, DType::i32, Device::cuda);
  early_return(visits, 40);
  const Tensor host = visits.to(Device::cpu);
  for (int i = 0; i < 96; ++i) EXPECT_EQ(host.data<std::int32_t>()[i], i < 40 ? 111 : 1) << i;
}

TEST(SimtBasic, CopiesAsynchronously) {
  const Tensor x = random_tensor({5, 128}, 3);
  const Tensor y({5, 128}, DType::f32, Device::cuda);
  copy_async(y, x.to(Device::cuda));
  const Tensor host = y.to(Device::cpu);
  for (std::int64_t i = 0; i < 5; ++i)
    for (std::int64_t j = 0; j < 128; ++j) ASSERT_EQ(host.data()[i * 128 + j], x.data()[i * 128 + 127 - j]);
}

TEST(SimtBasic, MultipliesTilesOnTensorCores) {
  const Tensor a = random_tensor({16, 16}, 4), b = random_tensor({16, 8}, 5);
  const Tensor a16 = to_bf16(a), b16 = to_bf16(b);
  const Tensor d({16, 8}, DType::f32, Device::cuda);
  multiply_tiles(d, a16.to(Device::cuda), b16.to(Device::cuda));
  const Tensor host = d.to(Device::cpu);
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) {
      double sum = 0;
      for (int k = 0; k < 16; ++k) sum += double{a.data()[i * 16 + k]} * double{b.data()[k * 8 + j]};
      EXPECT_NEAR(host.data()[i * 8 + j], sum, 1e-6) << i << " " << j;
    }
}

TEST(SimtBasic, MemoryIsKeptAndReused) {
  { const Tensor warm({1000, 33}, DType::f32, Device::cuda); }
  const auto before = device_allocations();
  for (int i = 0; i < 10; ++i) const Tensor t({1000, 33}, DType::f32, Device::cuda);
  EXPECT_EQ(device_allocations(), before);
}

TEST(SimtBasic, TensorsMoveBetweenDevices) {
  const Tensor x = random_tensor({7, 3}, 6);
  const Tensor y = x.to(Device::cuda).clone();
  y.slice(2, 3).zero();
  y.slice(3, 4).fill(2.5F);
  const Tensor z = y.to(Device::cpu);
  EXPECT_EQ(z.data()[0], x.data()[0]);
  EXPECT_EQ(z.data()[6], 0.0F);
  EXPECT_EQ(z.data()[9], 2.5F);
  EXPECT_THROW(copy_to_device(x.raw(), x.raw(), 4), Error);
  const Tensor after({64}, DType::f32, Device::cuda);
  fill_with_indices(after);  // a launch is not blamed for a copy that failed before it
  EXPECT_EQ(after.to(Device::cpu).data()[63], 63.0F);
}

}  // namespace
}  // namespace llm
