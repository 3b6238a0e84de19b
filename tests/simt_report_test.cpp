// What the software GPU counts, what it does not report, that no bit depends on the order of threads, and its
// limits.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <thread>

#include "common/core/device_memory.h"
#include "common/core/threads.h"
#include "common/simt/report.h"
#include "tests/simt_kernels.h"

namespace llm {
namespace {

using namespace simt_test;

Tensor ones(Shape shape) {
  const Tensor t(std::move(shape));
  t.fill(1);
  return t.to(Device::cuda);
}

Tensor device(Shape shape, DType dtype = DType::f32) {
  return Tensor(std::move(shape), dtype, Device::cuda);
}

/// The counts of the one launch that `run` makes.
simt::Counts counts_of(const std::function<void()>& run) {
  simt::clear_counts();
  run();
  const auto all = simt::counted_launches();
  EXPECT_EQ(all.size(), 1U);
  return all.empty() ? simt::Counts{} : all.front();
}

TEST(SimtCounts, BytesAndSectors) {
  if (!simt::checked()) GTEST_SKIP() << "only the checked build counts";
  const Tensor x = ones({1024 * 8}), y = device({1024});
  const auto dense = counts_of([&] { copy_strided(y, x, 1); });
  EXPECT_EQ(dense.kernel, "copy_strided_kernel");
  EXPECT_EQ(dense.grid[0], 16U);
  EXPECT_EQ(dense.block[0], 64U);
  EXPECT_EQ(dense.global_load_bytes, 4096);
  EXPECT_EQ(dense.global_store_bytes, 4096);
  EXPECT_EQ(dense.warp_loads, 32);
  EXPECT_EQ(dense.warp_stores, 32);
  EXPECT_EQ(dense.global_load_sectors, 4 * 32);
  EXPECT_EQ(dense.global_store_sectors, 4 * 32);

  const auto strided = counts_of([&] { copy_strided(y, x, 8); });
  EXPECT_EQ(strided.global_load_bytes, 4096);
  EXPECT_EQ(strided.global_load_sectors, 32 * 32);  // each float in a sector of its own
  EXPECT_EQ(strided.global_store_sectors, 4 * 32);

  const auto wide = counts_of([&] { copy_wide(y, x); });
  EXPECT_EQ(wide.global_load_bytes, 4096);
  EXPECT_EQ(wide.warp_loads, 8);
  EXPECT_EQ(wide.global_load_sectors, 4 * 32);
}

TEST(SimtCounts, BankConflicts) {
  if (!simt::checked()) GTEST_SKIP() << "only the checked build counts";
  const Tensor x = ones({32, 32}), y = device({32, 32});
  const auto plain = counts_of([&] { transpose(y, x, false); });
  EXPECT_EQ(plain.shared_stores, 32);
  EXPECT_EQ(plain.shared_loads, 32);
  EXPECT_EQ(plain.bank_conflicts, 32 * 31);  // a column lies in one bank
  EXPECT_EQ(plain.barriers, 1);
  EXPECT_EQ(counts_of([&] { transpose(y, x, true); }).bank_conflicts, 0);
}

TEST(SimtCounts, TensorCoresCopiesAndAtomics) {
  if (!simt::checked()) GTEST_SKIP() << "only the checked build counts";
  const Tensor a = device({16, 16}, DType::bf16), b = device({16, 8}, DType::bf16), d = device({16, 8});
  const auto product = counts_of([&] { multiply_tiles(d, a, b); });
  EXPECT_EQ(product.mma_operations, 1);
  EXPECT_EQ(product.barriers, 1);
  const Tensor x = ones({5, 128}), y = device({5, 128});
  const auto copies = counts_of([&] { copy_async(y, x); });
  EXPECT_EQ(copies.async_copies, 5 * 32);
  EXPECT_EQ(copies.global_load_bytes, 5 * 512);
  EXPECT_EQ(copies.global_load_sectors, 5 * 16);
  const Tensor bins = device({32}, DType::i32), values = device({1000}, DType::i32);
  EXPECT_EQ(counts_of([&] { histogram(bins, values, 3); }).atomics, 3 * (1000 + 32));
}

// ---- What is right is not reported, and gives the same bits in every order ----

struct Clean {
  std::string name;
  Shape shape;
  DType dtype;
  std::function<void(const Tensor&)> run;
};

void PrintTo(const Clean& clean, std::ostream* out) {
  *out << clean.name;
}

std::vector<Clean> clean_kernels() {
  const auto random = [](Shape shape) {
    const Tensor t(std::move(shape));
    for (std::int64_t i = 0; i < t.numel(); ++i) t.data()[i] = static_cast<float>(i * i % 101) / 37.0F - 1.3F;
    return t.to(Device::cuda);
  };
  return {
      {"fill", {1000}, DType::f32, [](const Tensor& y) { fill_with_indices(y); }},
      {"block_sums",
       {20},
       DType::f32,
       [=](const Tensor& y) {
         block_sums(y, random({20, 256}));
       }},
      {"reverse", {9, 128}, DType::f32, [](const Tensor& y) { fill_with_indices(y), reverse_blocks(y); }},
      {"early_return", {96}, DType::i32, [](const Tensor& y) { early_return(y, 40); }},
      {"copy_async",
       {7, 128},
       DType::f32,
       [=](const Tensor& y) {
         copy_async(y, random({7, 128}));
       }},
      {"multiply",
       {16, 8},
       DType::f32,
       [](const Tensor& y) {
         const Tensor a({16, 16}, DType::bf16), b({16, 8}, DType::bf16);
         for (int i = 0; i < 256; ++i) a.data<BFloat16>()[i] = BFloat16(static_cast<float>(i) / 7);
         for (int i = 0; i < 128; ++i) b.data<BFloat16>()[i] = BFloat16(static_cast<float>(i) / 9);
         multiply_tiles(y, a.to(Device::cuda), b.to(Device::cuda));
       }},
      {"transpose",
       {32, 32},
       DType::f32,
       [=](const Tensor& y) {
         transpose(y, random({32, 32}), true);
       }},
      {"halves", {64}, DType::bf16, [](const Tensor& y) { write_halves(y); }},
      {"syncwarp", {64}, DType::f32, [](const Tensor& y) { exchange_in_warps(y); }},
      {"last_block",
       {1},
       DType::f32,
       [](const Tensor& y) { sum_in_last_block(y, device({10}), device({1}, DType::i32)); }},
      {"histogram",
       {32},
       DType::i32,
       [](const Tensor& y) {
         std::vector<std::int32_t> values(500);
         for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::int32_t>(i * i % 32);
         histogram(y, Tensor::from(values, {500}).to(Device::cuda), 4);
       }},
      {"two_halves", {64}, DType::f32, [](const Tensor& y) { two_halves(y); }},
  };
}

class CleanKernel : public testing::TestWithParam<Clean> {};

TEST_P(CleanKernel, GivesTheSameBitsInEveryOrder) {
  const Clean& clean = GetParam();
  const auto result = [&](std::uint64_t seed) {
    simt::set_schedule_seed(seed);
    const Tensor y = device(clean.shape, clean.dtype);
    clean.run(y);
    simt::set_schedule_seed(0);
    return y.to(Device::cpu);
  };
  const Tensor in_order = result(0);
  for (std::uint64_t seed = 1; seed <= 8; ++seed)
    ASSERT_EQ(std::memcmp(result(seed).raw(), in_order.raw(), in_order.bytes()), 0) << "seed " << seed;
}

INSTANTIATE_TEST_SUITE_P(Simt, CleanKernel, testing::ValuesIn(clean_kernels()),
                         [](const auto& test) { return test.param.name; });

TEST(SimtBasic, CollectivesOfHalvesOfAWarp) {
  const Tensor y = device({64});
  two_halves(y);
  const Tensor host = y.to(Device::cpu);
  for (int t = 0; t < 64; ++t) {
    const int warp = t / 32 * 32, lane = t % 32;
    const auto value = [&](int l) {
      return l < 16 ? 16.0F * static_cast<float>(warp) + 120.0F : static_cast<float>(warp) + 31.0F;
    };
    const int votes =
        warp == 0 ? 16 : 16;  // 120 > 100 in the first warp's lower half; 16 * 32 + 120 in the second's
    const float any = t < 32 ? 1.0F : 0.0F;
    const float up = value(lane == 0 ? 0 : lane - 1), down = value(lane % 8 == 7 ? lane : lane + 1);
    const float expected = value(lane) + static_cast<float>(votes) + 100.0F * (any + 2.0F) +
                           1000.0F * 496.0F + (3.0F - 31.0F) + 0.25F * (up + down) + 0.5F * value(0);
    EXPECT_EQ(host.data()[t], expected) << t;
  }
}

// ---- Limits ----

#ifndef LLM_CUDA  // which has sentences of its own
std::string refusal(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was refused";
}
#endif

TEST(SimtLimits, AreThoseOfADevice) {
  const Tensor y = device({2048});
#ifndef LLM_CUDA
  EXPECT_EQ(refusal([&] { launch_bounded(y, dim3(1), dim3(2048)); }),
            "kernel 'bounded_kernel' cannot be launched: its blocks have 2048 threads (2048, 1, 1); a block "
            "has at most "
            "1024 (1024, 1024, 64)");
  EXPECT_EQ(refusal([&] { launch_bounded(y, dim3(1), dim3(96)); }),
            "kernel 'bounded_kernel' cannot be launched: its blocks have 96 threads, but it was compiled for "
            "at most 64 "
            "(__launch_bounds__)");
  EXPECT_EQ(refusal([&] { launch_bounded(y, dim3(1, 70000), dim3(64)); }),
            "kernel 'bounded_kernel' cannot be launched: its grid is (1, 70000, 1); a grid has at most "
            "(2147483647, "
            "65535, 65535)");
  EXPECT_EQ(refusal([&] { launch_bounded(y, dim3(0), dim3(64)); }),
            "kernel 'bounded_kernel' cannot be launched: its grid is empty (0, 1, 1)");
  EXPECT_EQ(refusal([&] { launch_large_shared(y, 240 * 1024); }),
            "kernel 'large_shared_kernel' cannot be launched: it asks for 245760 bytes of shared memory; a "
            "block has at "
            "most 232448");
  simt::set_shared_memory_limit(99 * 1024);
  EXPECT_THROW(launch_large_shared(y, 100 * 1024), Error);
  simt::set_shared_memory_limit(227 * 1024);
#else
  EXPECT_THROW(launch_bounded(y, dim3(1), dim3(2048)), Error);
  EXPECT_THROW(launch_bounded(y, dim3(1), dim3(96)), Error);
#endif
  launch_bounded(y, dim3(1), dim3(64));
  launch_bounded_template(y, dim3(96));
  EXPECT_THROW(launch_bounded_template(y, dim3(128)), Error);
  launch_large_shared(y, 96 * 1024);
  EXPECT_EQ(y.to(Device::cpu).data()[0], 1.0F);
}

TEST(SimtLimits, SeveralHostThreadsMayLaunch) {
  std::vector<std::thread> threads;
  std::vector<Tensor> results(4);
  for (std::size_t i = 0; i < results.size(); ++i)
    threads.emplace_back([&, i] {
      results[i] = device({20'000});
      for (int round = 0; round < 5; ++round) fill_with_indices(results[i]);
    });
  for (auto& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result.to(Device::cpu).data()[19'999], 19'999.0F);
}

}  // namespace
}  // namespace llm
