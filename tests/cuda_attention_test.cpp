// Attention on the device: every variant against the CPU's, forward and backward.
#include "common/ops/cuda/attention.h"
#include "tests/cuda_ops_helpers.h"

namespace llm {
namespace {

using namespace llm::testing;

/// B sequences of T positions, H heads of D channels.
struct Sizes {
  std::int64_t batch, time, heads, head_size;
  std::int64_t channels() const { return heads * head_size; }
  Shape qkv() const { return {batch, time, 3 * channels()}; }
  Shape y() const { return {batch, time, channels()}; }
  Shape lse() const { return {batch, heads, time}; }
  Shape weights() const { return {batch, heads, time, time}; }
  std::string name() const { return fmt::format("B {} T {} H {} D {}", batch, time, heads, head_size); }
};

using Forward = void (*)(const Tensor&, const Tensor&, const Tensor&, const AttentionOptions&);
using StoredBackward = void (*)(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                const AttentionOptions&);
using FlashBackward = void (*)(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                               const AttentionOptions&);

// What bf16 adds to the rounding of results. The weights are rounded before they meet the values (2^-9 of
// each at most, at random): half of 2^-8 in y. Backward, y is read as rounded (2^-9 of delta), and d(scores)
// is rounded before it meets keys and queries: three roundings of 2^-9, doubled for the largest element of
// many.
constexpr double kForwardBound = 0x1p-8, kBackwardBound = 3 * 0x1p-8;

AttentionOptions options_for(const Sizes& s, float dropout) {
  return {s.heads, dropout, Philox{7, stream_id("attention dropout")}, 1'000'003};
}

/// A variant that stores its weights.
Call stored(const Sizes& s, Forward forward, StoredBackward backward, float dropout = 0) {
  return [=](const Place& at) -> std::vector<Result> {
    const bool here = at.device == Device::cpu;
    const AttentionOptions options = options_for(s, dropout);
    const Tensor qkv = at(normal(s.qkv(), 1)), dy = at(normal(s.y(), 2));
    const Tensor y = at.output(s.y()), weights = at.f32_output(s.weights()), dqkv = at.output(s.qkv());
    (here ? &attention_naive_forward : forward)(y, weights, qkv, options);
    (here ? &attention_naive_backward : backward)(dqkv, dy, weights, qkv, options);
    return {{"y", y}, {"weights", weights}, {"dqkv", dqkv, 4e-6}};
  };
}

/// A variant that does not.
Call flash(const Sizes& s, Forward forward, FlashBackward backward, float dropout = 0, float size = 1) {
  return [=](const Place& at) -> std::vector<Result> {
    const bool here = at.device == Device::cpu;
    const AttentionOptions options = options_for(s, dropout);
    const Tensor qkv = at(normal(s.qkv(), 1, size)), dy = at(normal(s.y(), 2));
    const Tensor y = at.output(s.y()), lse = at.f32_output(s.lse()), dqkv = at.output(s.qkv());
    (here ? &attention_flash_forward : forward)(y, lse, qkv, options);
    at.store(y);
    (here ? &attention_flash_backward : backward)(dqkv, dy, y, lse, qkv, options);
    return {{"y", y, 2e-6, kForwardBound}, {"lse", lse, 2e-6}, {"dqkv", dqkv, 4e-6, kBackwardBound}};
  };
}

Call naive(const Sizes& s, float dropout = 0) {
  return stored(s, cuda::attention_naive_forward, cuda::attention_naive_backward, dropout);
}
Call tiled(const Sizes& s, float dropout = 0) {
  return stored(s, cuda::attention_tiled_forward, cuda::attention_tiled_backward, dropout);
}
Call flash_simt(const Sizes& s, float dropout = 0, float size = 1) {
  return flash(s, cuda::attention_flash_forward, cuda::attention_flash_backward, dropout, size);
}
Call flash_mma(const Sizes& s, float dropout = 0, float size = 1) {
  return flash(s, cuda::attention_flash_mma_forward, cuda::attention_flash_mma_backward, dropout, size);
}

// Around the edges of tiles of 32, 64 and 128, all head sizes, an odd number of heads in all.
const std::vector<Sizes> kSizes = {{1, 1, 1, 32},  {3, 2, 1, 64},  {1, 63, 3, 80},  {1, 64, 1, 128},
                                   {3, 65, 1, 32}, {1, 65, 1, 80}, {1, 129, 1, 64}, {1, 65, 1, 128}};
const Sizes kSeveralTiles = {1, 150, 1, 64};

TEST(CudaAttention, NaiveAgreesWithTheCpu) {
  for (const Sizes& s : kSizes) expect_like_cpu(s.name(), naive(s), 0, {DType::f32});
}

TEST(CudaAttention, TiledAgreesWithTheCpu) {
  for (const Sizes& s : kSizes) expect_like_cpu(s.name(), tiled(s), 0, {DType::f32});
}

TEST(CudaAttention, FlashAgreesWithTheCpu) {
  for (const Sizes& s : kSizes) expect_like_cpu(s.name(), flash_simt(s));
}

TEST(CudaAttention, FlashMmaAgreesWithTheCpu) {
  for (const Sizes& s : kSizes) expect_like_cpu(s.name(), flash_mma(s), 0, {DType::bf16});
}

TEST(CudaAttention, TakesLongSequences) {
  const Sizes s = {1, 1000, 1, 64};
  expect_like_cpu(s.name(), flash_simt(s), 0, {DType::f32});
  expect_like_cpu(s.name(), flash_mma(s), 0, {DType::bf16});
}

TEST(CudaAttention, TakesEveryMultipleOfEight) {
  for (const std::int64_t size : {8, 24, 40, 72, 104, 120}) {
    const Sizes s = {1, 33, 1, size};
    expect_like_cpu(s.name(), flash_simt(s));
    expect_like_cpu(s.name(), flash_mma(s), 0, {DType::bf16});
  }
}

TEST(CudaAttention, DropsTheWeightsTheCpuDrops) {
  // Sequences of odd and even length: the generator makes four numbers at a time, rows need not begin with
  // one.
  for (const Sizes& s : {Sizes{1, 67, 3, 32}, Sizes{3, 66, 1, 64}}) {
    expect_like_cpu("naive, " + s.name(), naive(s, 0.3F), 0, {DType::f32});
    expect_like_cpu("tiled, " + s.name(), tiled(s, 0.3F), 0, {DType::f32});
    expect_like_cpu("flash, " + s.name(), flash_simt(s, 0.3F));
    expect_like_cpu("flash_mma, " + s.name(), flash_mma(s, 0.3F), 0, {DType::bf16});
  }
  const Sizes wide = {1, 70, 1, 128};
  expect_like_cpu("flash, " + wide.name(), flash_simt(wide, 0.3F), 0, {DType::f32});
  expect_like_cpu("flash_mma, " + wide.name(), flash_mma(wide, 0.3F), 0, {DType::bf16});
}

TEST(CudaAttention, GivesTheSameBitsUnderEverySchedule) {
  const Sizes small = {3, 40, 1, 32};
  expect_like_cpu("naive", naive(small), 8, {DType::f32});
  expect_like_cpu("tiled", tiled(small), 8, {DType::f32});
  expect_like_cpu("flash", flash_simt({1, 70, 3, 32}), 8);
  expect_like_cpu("flash_mma", flash_mma(kSeveralTiles), 8, {DType::bf16});
  expect_like_cpu("flash_mma, wide", flash_mma({1, 70, 1, 128}, 0.2F), 8, {DType::bf16});
}

TEST(CudaAttention, ChoosesByDtype) {
  const Sizes s = {1, 33, 3, 32};
  expect_like_cpu("naive", stored(s, attention_naive_forward, attention_naive_backward), 0, {DType::f32});
  expect_like_cpu("flash", flash(s, attention_flash_forward, attention_flash_backward));
}

TEST(CudaAttention, HugeScoresDoNotOverflow) {
  // Scores of some ten thousand: exp of any of them would be infinite. The softmax then picks one key, or
  // shares between near equals, where an error of 2^-24 of the score is e^(1e4 2^-24) = 0.1% of the weight.
  for (const float size : {100.0F}) {
    const Sizes s = {1, 70, 1, 64};
    const Tensor qkv = normal(s.qkv(), 1, size), y(s.y()), lse(s.lse());
    attention_flash_forward(y, lse, qkv, {1});
    const Tensor on_device = Tensor(s.y(), DType::f32, Device::cuda);
    const Tensor device_lse = Tensor(s.lse(), DType::f32, Device::cuda);
    cuda::attention_flash_forward(on_device, device_lse, qkv.to(Device::cuda), {1});
    expect_close(on_device.to(Device::cpu), y, "y", 2e-3);
    expect_close(device_lse.to(Device::cpu), lse, "lse");

    const Place bf16{Device::cuda, DType::bf16};
    const Tensor small = bf16.output(s.y());
    attention_flash_forward(y, lse, rounded(qkv), {1});
    cuda::attention_flash_mma_forward(small, device_lse, bf16(qkv), {1});
    expect_close(to_host(small), y, "y", 2e-3 + 2 * kBf16);
    expect_close(device_lse.to(Device::cpu), lse, "lse");
  }
}

TEST(CudaAttention, NaNPassesThrough) {
  const Sizes s = {1, 70, 1, 32};
  const Tensor qkv = normal(s.qkv(), 1);
  qkv.data()[20 * 3 * 32] = std::nanf("");       // a query: row 20 alone
  qkv.data()[50 * 3 * 32 + 32] = std::nanf("");  // a key: every row that sees it
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Place at{Device::cuda, dtype};
    const Tensor y = at(normal(s.y(), 2)), lse = at.f32_output(s.lse());
    attention_flash_forward(y, lse, at(qkv), {1});
    const Tensor host = to_host(y), host_lse = lse.to(Device::cpu);
    for (std::int64_t t = 0; t < s.time; ++t) {
      const bool expected = t == 20 || t >= 50;
      EXPECT_EQ(std::isnan(host.data()[t * 32]), expected) << name(dtype) << ", position " << t;
      EXPECT_EQ(std::isnan(host_lse.data()[t]), expected) << name(dtype) << ", lse of position " << t;
    }
  }
}

TEST(CudaAttention, TakesNothingAtAll) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Sizes& s : {Sizes{0, 5, 1, 32}, Sizes{2, 0, 1, 32}}) {
      const Tensor qkv(s.qkv(), dtype, Device::cuda), y(s.y(), dtype, Device::cuda);
      const Tensor lse(s.lse(), DType::f32, Device::cuda);
      attention_flash_forward(y, lse, qkv, {1});
      attention_flash_backward(qkv.clone(), y, y, lse, qkv, {1});
      if (dtype == DType::f32) attention_naive_forward(y, Tensor(s.weights(), dtype, Device::cuda), qkv, {1});
    }
}

// ---- decoding -------------------------------------------------------------------------------------

/// Fills caches with the first `length` positions and decodes the next one.
Call decoded(const Sizes& s, std::int64_t length) {
  return [=](const Place& at) -> std::vector<Result> {
    const std::int64_t capacity = length + 3;
    const Tensor past = at(normal({s.batch, length, 3 * s.channels()}, 3));
    const Tensor now = at(normal({s.batch, 1, 3 * s.channels()}, 4)),
                 y = at.output({s.batch, 1, s.channels()});
    const Shape cache = {s.batch, s.heads, capacity, s.head_size};
    const Tensor keys = at(normal(cache, 5)), values = at(normal(cache, 6));
    attention_fill_cache(keys, values, past, 0, s.heads);
    attention_decode(y, keys, values, now, length, s.heads);
    return {{"y", y}, {"keys", keys, 0}, {"values", values, 0}};
  };
}

TEST(CudaAttention, DecodesAsTheCpuDoes) {
  for (const std::int64_t length : {0, 1, 15, 16, 17, 255, 256})
    expect_like_cpu(fmt::format("after {}", length), decoded({1, 1, 3, 64}, length));
  for (const std::int64_t size : {8, 32, 80, 128})
    expect_like_cpu(fmt::format("heads of {}", size), decoded({3, 1, 1, size}, 33));
}

TEST(CudaAttention, DecodesLongCachesInPieces) {
  expect_like_cpu("two pieces", decoded({1, 1, 3, 32}, 300), 8);
  expect_like_cpu("four pieces", decoded({1, 1, 1, 80}, 1000));
  expect_like_cpu("more heads than pieces", decoded({3, 1, 101, 8}, 600), 0, {DType::f32});
}

TEST(CudaAttention, DecodesWhatTheFullForwardComputes) {
  const Sizes s = {2, 40, 3, 32};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Place at{Device::cuda, dtype};
    const Tensor numbers = normal(s.qkv(), 1), y = at.output(s.y()), lse = at.f32_output(s.lse());
    attention_flash_forward(y, lse, at(numbers), {s.heads});
    const Tensor expected = to_host(y);
    const Tensor keys(Shape{2, 3, 40, 32}, dtype, Device::cuda), values = keys.clone();
    const std::int64_t width = 3 * s.channels();
    for (std::int64_t t = 0; t < s.time; ++t) {
      Tensor row({2, 1, width}), wanted({2, 1, s.channels()});
      for (std::int64_t b = 0; b < 2; ++b) {
        std::copy_n(numbers.data() + (b * s.time + t) * width, width, row.data() + b * width);
        std::copy_n(expected.data() + (b * s.time + t) * s.channels(), s.channels(),
                    wanted.data() + b * s.channels());
      }
      const Tensor now = at.output({2, 1, s.channels()});
      attention_decode(now, keys, values, at(row), t, s.heads);
      expect_close(to_host(now), wanted, fmt::format("{}, position {}", name(dtype), t),
                   dtype == DType::f32 ? 2e-6 : 3 * kBf16);
    }
  }
}

TEST(CudaAttention, FillsTheCacheFromAnyPosition) {
  expect_like_cpu("from 3", [](const Place& at) -> std::vector<Result> {
    const Tensor keys = at(normal({3, 5, 11, 12}, 1)), values = at(normal({3, 5, 11, 12}, 2));
    attention_fill_cache(keys, values, at(normal({3, 7, 180}, 3)), 3, 5);
    return {{"keys", keys, 0}, {"values", values, 0}};
  });
}

// ---- wrong arguments --------------------------------------------------------------------------------

TEST(CudaAttention, SaysWhatItCannotDo) {
  const auto tensor = [](Shape shape, DType dtype = DType::f32) {
    return Tensor(std::move(shape), dtype, Device::cuda);
  };
  const Tensor lse = tensor({1, 2, 4});
  const std::string sizes =
      "a head must have a multiple of 8 channels and at most 128 on the device, but it has";
  expect_error("attention_flash_forward: " + sizes + " 12", [&] {
    attention_flash_forward(tensor({1, 4, 24}), lse, tensor({1, 4, 72}), {2});
  });
  expect_error("attention_flash_mma_forward: " + sizes + " 136", [&] {
    attention_flash_forward(tensor({1, 4, 272}, DType::bf16), lse, tensor({1, 4, 816}, DType::bf16), {2});
  });
  expect_error("attention_flash_backward: " + sizes + " 12", [&] {
    const Tensor qkv = tensor({1, 4, 72}), y = tensor({1, 4, 24});
    attention_flash_backward(qkv, y, y, lse, qkv, {2});
  });
  expect_error("attention_decode: " + sizes + " 4", [&] {
    const Tensor cache = tensor({1, 2, 8, 4});
    attention_decode(tensor({1, 1, 8}), cache, cache, tensor({1, 1, 24}), 0, 2);
  });
  const Tensor qkv = tensor({1, 4, 48}), y = tensor({1, 4, 16});
  expect_error("attention_flash_mma_forward: qkv must be bf16, but it is f32",
               [&] { cuda::attention_flash_mma_forward(y, lse, qkv, {2}); });
  expect_error("attention_naive_forward: qkv must be f32, but it is bf16", [&] {
    attention_naive_forward(tensor({1, 4, 16}, DType::bf16), tensor({1, 2, 4, 4}),
                            tensor({1, 4, 48}, DType::bf16), {2});
  });
  expect_error("attention_tiled_forward: qkv must be on cuda, but it is on cpu", [&] {
    cuda::attention_tiled_forward(Tensor({1, 4, 16}), Tensor({1, 2, 4, 4}), Tensor({1, 4, 48}), {2});
  });
  expect_error("attention_flash_forward: qkv is on cuda, but y is on cpu", [&] {
    attention_flash_forward(Tensor({1, 4, 16}), lse, qkv, {2});
  });
  expect_error("attention_flash_forward: lse must have shape (1, 2, 4), but it has (1, 2, 5)", [&] {
    attention_flash_forward(y, tensor({1, 2, 5}), qkv, {2});
  });
  expect_error(
      "attention_flash_forward: a tensor of shape (1, 4, 48) does not begin at a multiple of 16 bytes, as "
      "the "
      "device's kernels need",
      [&] {
        attention_flash_forward(y, lse, tensor({200}).range(1, {1, 4, 48}), {2});
      });
}

}  // namespace
}  // namespace llm
