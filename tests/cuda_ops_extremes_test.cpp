// The primitives on the device cuda at their limits: infinities and NaN, nothing to do, ids outside their
// range, wrong arguments, and what they allocate.
#include <unistd.h>

#include "tests/cuda_ops_helpers.h"

namespace llm {
namespace {

using namespace llm::testing;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Tensor on_cuda(const Tensor& t) {
  return t.to(Device::cuda);
}
Tensor zeros(Shape shape, DType dtype = DType::f32) {
  return Tensor(std::move(shape), dtype, Device::cuda);
}
Tensor ids(std::vector<std::int32_t> values, Shape shape) {
  return on_cuda(Tensor::from(values, std::move(shape)));
}

/// Each element NaN, infinite or close as on the CPU: by `bound` of itself, and `least`.
void expect_same(const std::string& what, const Tensor& device, const Tensor& cpu, double bound,
                 double least) {
  const Tensor got = to_host(device);
  ASSERT_EQ(got.numel(), cpu.numel()) << what;
  for (std::int64_t i = 0; i < cpu.numel(); ++i) {
    const double a = got.data()[i], b = cpu.data()[i];
    if (std::isnan(b))
      EXPECT_TRUE(std::isnan(a)) << what << ", element " << i << ": " << a << " instead of NaN";
    else if (std::isinf(b))
      EXPECT_EQ(a, b) << what << ", element " << i;
    else
      EXPECT_NEAR(a, b, bound * std::abs(b) + least) << what << ", element " << i;
  }
}

// ---- infinities, NaN ----------------------------------------------------------------------------------

TEST(CudaExtremes, SoftmaxAndCrossEntropyTreatThemAsTheCpuDoes) {
  for (const std::int64_t columns :
       {8, 13, 2304, 2305}) {  // in registers, unaligned, long, long and unaligned
    constexpr std::int64_t kRows = 9;
    const Tensor x = normal({kRows, columns}, 1), y({kRows, columns}), losses({kRows}),
                 dlogits({kRows, columns});
    const auto row = [&](std::int64_t r) {
      return x.span().subspan(static_cast<std::size_t>(r * columns), static_cast<std::size_t>(columns));
    };
    for (float& value : row(0)) value *= 1e30F;
    for (float& value : row(1)) value = -kInfinity;
    row(2)[5] = kNan;
    row(3)[static_cast<std::size_t>(columns) - 1] = kInfinity;
    for (float& value : row(4)) value = 3e38F;
    for (float& value : row(5)) value = -3e38F;
    for (float& value : row(6)) value = kNan;
    for (float& value : row(7)) value = -kInfinity;
    row(7)[3] = -2;  // the only one that is possible
    const Tensor targets = Tensor::from(std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 3, -1}, {kRows});
    softmax_forward(y, x);
    cross_entropy_forward(losses, x, targets);
    cross_entropy_backward(dlogits, x, targets, 0.5F);

    const Tensor device_x = on_cuda(x), device_y = zeros(x.shape()), device_losses = zeros({kRows});
    const Tensor device_targets = on_cuda(targets);
    softmax_forward(device_y, device_x);
    cross_entropy_forward(device_losses, device_x, device_targets);
    cross_entropy_backward(device_x, device_x, device_targets, 0.5F);
    SCOPED_TRACE(fmt::format("{} columns", columns));
    expect_same("softmax", device_y, y, 1e-5, 1e-30);
    expect_same("losses", device_losses, losses, 1e-5, 1e-6);
    expect_same("dlogits", device_x, dlogits, 1e-5, 1e-7);
  }
}

TEST(CudaExtremes, GeluTakesAllNumbers) {
  const std::vector<float> numbers = {0,   -0.0F, 1e-30F, -1e-30F, 5,     -5,        9.99F, -9.99F, 10,
                                      -10, 10.1F, -10.1F, 1e10F,   3e38F, kInfinity, kNan,  -40,    88};
  const Tensor x = Tensor::from(numbers, {static_cast<std::int64_t>(numbers.size())}), y(x.shape()),
               dx(x.shape());
  const Tensor ones(x.shape());
  ones.fill(1);
  gelu_forward(y, x);
  gelu_backward(dx, ones, x, y);
  const Tensor device_y = zeros(x.shape()), device_dx = zeros(x.shape());
  gelu_forward(device_y, on_cuda(x));
  gelu_backward(device_dx, on_cuda(ones), on_cuda(x), device_y);
  // Below zero e^-2u amplifies the rounding of u, by 2 u 2^-24: 1e-6 at -5, for each of a formula's
  // roundings.
  expect_same("y", device_y, y, 4e-6, 1e-20);
  expect_same("dx", device_dx, dx, 4e-6, 1e-20);
}

TEST(CudaExtremes, LayerNormKeepsNanInItsRow) {
  for (const std::int64_t channels : {64, 63, 4096}) {
    const Tensor x = normal({4, channels}, 1), gamma = normal({channels}, 2), beta = normal({channels}, 3);
    x.data()[channels + 7] = kNan;
    for (std::int64_t c = 0; c < channels; ++c) x.data()[2 * channels + c] = 5;  // no variance at all
    for (std::int64_t c = 0; c < channels; ++c) x.data()[3 * channels + c] *= 1e15F;
    const Tensor y(x.shape()), mean({4}), rstd({4});
    layer_norm_forward(y, mean, rstd, x, gamma, beta, 1e-5F);
    const Tensor device_y = zeros(x.shape()), device_mean = zeros({4}), device_rstd = zeros({4});
    layer_norm_forward(device_y, device_mean, device_rstd, on_cuda(x), on_cuda(gamma), on_cuda(beta), 1e-5F);
    expect_same("y", device_y, y, 1e-5, 1e-5);
    expect_same("mean", device_mean, mean, 1e-4, 1e-6);
    expect_same("rstd", device_rstd, rstd, 1e-5, 0);
  }
}

TEST(CudaExtremes, DropoutOfNothingCopies) {
  const Tensor x = normal({37}, 1), y = zeros({37});
  dropout(y, on_cuda(x), 0, {});
  EXPECT_EQ(std::memcmp(y.to(Device::cpu).raw(), x.raw(), x.bytes()), 0);
  const Tensor all = on_cuda(x);
  dropout(all, all, 0, {});
  EXPECT_EQ(std::memcmp(all.to(Device::cpu).raw(), x.raw(), x.bytes()), 0);
}

TEST(CudaExtremes, NoRowsAreNoWork) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor none = zeros({0, 8}, dtype), one = zeros({8}, dtype), w = zeros({5, 8}, dtype),
                 wide = zeros({0, 5}, dtype);
    const Tensor stats = zeros({0}), dw = zeros({5, 8}), db = zeros({5}), dgamma = zeros({8});
    const Tensor no_ids = zeros({0}, DType::i32), no_tokens = zeros({0, 3}, DType::i32);
    linear_forward(wide, none, w, Tensor());
    linear_gelu_forward(wide, wide, none, w, zeros({5}, dtype));
    linear_backward(none, dw, db, wide, none, w);
    layer_norm_forward(none, stats, stats, none, one, one, 1e-5F);
    layer_norm_backward(none, dgamma, dgamma, none, none, one, stats, stats, Tensor());
    softmax_forward(none, none);
    softmax_backward(none, none, none);
    cross_entropy_forward(stats, none, no_ids);
    cross_entropy_backward(none, none, no_ids, 1);
    linear_cross_entropy(stats, none, dw, none, w, no_ids, 1);
    embedding_forward(zeros({0, 3, 8}, dtype), no_tokens, w, w);
    embedding_backward(dw, dw, zeros({0, 3, 8}, dtype), no_tokens);
    gelu_forward(none, none);
    add(none, none, none);
    dropout(none, none, 0.5F, {});
    EXPECT_EQ(squared_norm(dw) + squared_norm(db) + squared_norm(dgamma), 0);
  }
}

// ---- ids outside their range --------------------------------------------------------------------------

TEST(CudaIds, AreCheckedWhereTheyAreUsed) {
  const Tensor table = on_cuda(normal({7, 8}, 1)), positions = on_cuda(normal({3, 8}, 2)),
               y = zeros({1, 3, 8});
  for (const std::int32_t wrong : {7, -1, 1 << 30}) {
    const std::string sentence = fmt::format("token id {} is not within the vocabulary of 7", wrong);
    const Tensor tokens = ids({3, wrong, 6}, {1, 3});
    embedding_forward(y, tokens, table, positions);
    expect_error(sentence, [&] { device_synchronize(); });
    const Tensor rows = to_host(y);  // said once; the others are as they should be
    for (std::int64_t c = 0; c < 8; ++c) {
      EXPECT_FALSE(std::isnan(rows.data()[c]));
      EXPECT_TRUE(std::isnan(rows.data()[8 + c]));
      EXPECT_FALSE(std::isnan(rows.data()[16 + c]));
    }
    const Tensor dtable = zeros({7, 8}), dpositions = zeros({3, 8}), dy = on_cuda(normal({1, 3, 8}, 3));
    embedding_backward(dtable, dpositions, dy, tokens);
    expect_error(sentence, [&] { squared_norm(dtable); });
    EXPECT_GT(squared_norm(dtable), 0);
  }
}

TEST(CudaIds, TargetsAreCheckedWhereTheyAreUsed) {
  const Tensor x = on_cuda(normal({3, 8}, 1)), w = on_cuda(normal({7, 8}, 2)), losses = zeros({3});
  for (const std::int32_t wrong : {7, -2}) {
    const std::string sentence =
        fmt::format("target {} is neither within the vocabulary of 7 nor -1 (ignored)", wrong);
    linear_cross_entropy_forward(losses, x, w, ids({3, -1, wrong}, {3}));
    expect_error(sentence, [&] { to_host(losses); });
    const Tensor values = to_host(losses);
    EXPECT_GT(values.data()[0], 0);
    EXPECT_EQ(values.data()[1], 0);
    EXPECT_TRUE(std::isnan(values.data()[2]));
  }
}

// ---- wrong arguments ------------------------------------------------------------------------------------

TEST(CudaChecks, NameBothSides) {
  const Tensor x = zeros({2, 4}), w = zeros({3, 4}), b = zeros({3}), y = zeros({2, 3});
  const Tensor x16 = zeros({2, 4}, DType::bf16), w16 = zeros({3, 4}, DType::bf16),
               y16 = zeros({2, 3}, DType::bf16);
  expect_error("linear_forward: x is on cuda, but w is on cpu", [&] {
    linear_forward(y, x, Tensor({3, 4}), b);
  });
  expect_error("linear_forward: x is on cpu, but w is on cuda", [&] {
    linear_forward(y, Tensor({2, 4}), w, b);
  });
  expect_error("linear_forward: x is on cuda, but b is on cpu",
               [&] { linear_forward(y, x, w, Tensor({3})); });
  expect_error("linear_forward: w must be bf16, as x is, but it is f32",
               [&] { linear_forward(y16, x16, w, Tensor()); });
  expect_error("linear_forward: y must be f32, but it is bf16", [&] { linear_forward(y16, x, w, b); });
  expect_error("linear_forward: x must be f32 or bf16, but it is i32", [&] {
    linear_forward(y, zeros({2, 4}, DType::i32), w, b);
  });
  expect_error("linear_forward: x must be f32, but it is bf16", [&] {
    linear_forward(y, Tensor({2, 4}, DType::bf16), w, b);
  });
  expect_error("linear_forward: the last dimension of x must be 4, but its shape is (2, 5)", [&] {
    linear_forward(y, zeros({2, 5}), w, b);
  });
  expect_error("linear_backward: dw must be f32, but it is bf16",
               [&] { linear_backward(Tensor(), w16, Tensor(), y16, x16, w16); });
  expect_error("linear_gelu_forward: y has shape (3, 2), but pre has (2, 3)", [&] {
    linear_gelu_forward(zeros({3, 2}), y, x, w, b);
  });
  const Tensor gamma = zeros({4}), stats = zeros({2});
  expect_error("layer_norm_forward: mean must be f32, but it is bf16",
               [&] { layer_norm_forward(x, zeros({2}, DType::bf16), stats, x, gamma, gamma, 1e-5F); });
  expect_error("add_layer_norm_forward: b has shape (2, 5), but a has (2, 4)", [&] {
    add_layer_norm_forward(x, x, stats, stats, x, zeros({2, 5}), gamma, gamma, 1e-5F);
  });
  expect_error("embedding_forward: y is on cuda, but tokens is on cpu", [&] {
    embedding_forward(zeros({1, 2, 4}), Tensor({1, 2}, DType::i32), w, w);
  });
  expect_error("embedding_backward: the token table must be f32, but it is bf16", [&] {
    embedding_backward(w16, w16, zeros({1, 2, 4}, DType::bf16), zeros({1, 2}, DType::i32));
  });
  expect_error("cross_entropy_forward: logits is on cuda, but targets is on cpu",
               [&] { cross_entropy_forward(stats, x, Tensor({2}, DType::i32)); });
  expect_error("linear_cross_entropy: dx must be bf16, as x is, but it is f32",
               [&] { linear_cross_entropy(stats, x, w, x16, w16, zeros({2}, DType::i32), 1); });
  expect_error("adamw_update: values must be f32, but it is bf16", [&] { adamw_update(x16, x, x, x, {}); });
  expect_error("adamw_update: copy must be bf16, but it is f32", [&] { adamw_update(x, x, x, x, {}, x); });
  expect_error("adamw_update: values is on cuda, but gradients is on cpu", [&] {
    adamw_update(x, x, x, Tensor({2, 4}), {});
  });
  expect_error("cast: x is on cuda, but y is on cpu", [&] { cast(Tensor({2, 4}, DType::bf16), x); });
  expect_error("cast: y must be f32 or bf16, but it is i32", [&] { cast(zeros({2, 4}, DType::i32), x); });
  expect_error("squared_norm: x is not defined", [&] { squared_norm(Tensor()); });
}

// ---- memory -----------------------------------------------------------------------------------------------

TEST(CudaMemory, ThatIsNotThereIsRefusedInOneSentence) {
#ifdef LLM_CUDA
  constexpr std::size_t physical = std::size_t{1} << 42;
#else
  const auto physical =
      static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
#endif
  // More than any GPU has; and what the system would promise, but cannot give once it is touched.
  for (const std::size_t bytes : {std::size_t{1} << 50, physical}) {
    try {
      device_free(device_allocate(bytes));
      ADD_FAILURE() << "there seem to be " << bytes << " bytes";
    } catch (const Error& error) {
      EXPECT_TRUE(std::string(error.what())
                      .starts_with(fmt::format("the device has no memory for {} more bytes", bytes)))
          << error.what();
    }
  }
  const Tensor still = zeros({1000});  // whoever catches it goes on
  EXPECT_EQ(still.to(Device::cpu).data()[999], 0);
}

TEST(CudaMemory, AStepAllocatesNothingTheSecondTime) {
  constexpr std::int64_t kBatch = 2, kTime = 33, kChannels = 24, kWide = 96, kVocabulary = 57,
                         kRows = kBatch * kTime;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto make = [&](Shape shape) { return zeros(std::move(shape), dtype); };
    const Tensor tokens = on_cuda(integers({kBatch, kTime}, kVocabulary, 1)), targets = tokens.view({kRows});
    const Tensor table = make({kVocabulary, kChannels}), positions = make({kTime, kChannels});
    const Tensor dtable = zeros({kVocabulary, kChannels}), dpositions = zeros({kTime, kChannels});
    const Tensor w = make({kWide, kChannels}), b = make({kWide}), dw = zeros({kWide, kChannels}),
                 db = zeros({kWide});
    const Tensor gamma = make({kChannels}), dgamma = zeros({kChannels}), dbeta = zeros({kChannels});
    const Tensor m = zeros({kWide, kChannels}), v = zeros({kWide, kChannels}),
                 master = zeros({kWide, kChannels});
    const auto step = [&] {
      const Tensor x = make({kBatch, kTime, kChannels}), y = make({kBatch, kTime, kChannels}),
                   sum = make(x.shape());
      const Tensor mean = zeros({kRows}), rstd = zeros({kRows}), losses = zeros({kRows});
      const Tensor pre = make({kBatch, kTime, kWide}), wide = make(pre.shape()), dwide = make(pre.shape());
      embedding_forward(x, tokens, table, positions);
      dropout(x, x, 0.1F, {});
      add_layer_norm_forward(sum, y, mean, rstd, x, x, gamma, gamma, 1e-5F);
      linear_gelu_forward(wide, pre, y, w, b);
      linear_cross_entropy(losses, x, dtable, y, table, targets, 1);
      gelu_backward(dwide, wide, pre, wide);
      linear_backward(x, dw, db, dwide, y, w);
      layer_norm_backward(x, dgamma, dbeta, y, sum, gamma, mean, rstd, x);
      embedding_backward(dtable, dpositions, x, tokens);
      adamw_update(master, m, v, dw, {.gradient_scale = std::sqrt(squared_norm(dw))},
                   dtype == DType::bf16 ? w : Tensor());
    };
    step();
    const std::uint64_t before = device_allocations();
    step();
    step();
    EXPECT_EQ(device_allocations(), before) << name(dtype);
  }
}

}  // namespace
}  // namespace llm
