// The primitives on the device cuda (a GPU, or the software GPU) against those on the CPU: odd sizes, f32 and
// bf16, shuffled schedules. Errors, extremes and allocations are in ch03_cuda_ops_extremes_test.cpp;
// attention has files of its own.
#include "common/ops/cuda/kernels.h"
#include "tests/cuda_ops_helpers.h"

namespace llm {
namespace {

using namespace llm::testing;

constexpr std::int64_t kRows[] = {1, 2, 63, 64, 65};
constexpr std::int64_t kColumns[] = {1, 3, 32, 80, 128, 768};

/// Calls test(rows, columns, schedules) for all sizes above, with eight schedules for some, and for one long
/// one.
template <typename F>
void for_all_sizes(const F& test) {
  for (const std::int64_t rows : kRows)
    for (const std::int64_t columns : kColumns) test(rows, columns, rows == 65 && columns != 32 ? 8 : 0);
  test(1000, 80, 0);
}

std::string size_name(std::int64_t rows, std::int64_t columns) {
  return fmt::format("{} rows of {}", rows, columns);
}

// ---- elementwise ------------------------------------------------------------------------------------

TEST(CudaElementwise, AgreesWithTheCpu) {
  for (const std::int64_t count : {1, 3, 4, 8, 1000, 2047, 2048, 4099, 70001}) {
    const Call call = [&](const Place& at) {
      const Tensor x = at(normal({count}, 1, 3)), dy = at(normal({count}, 2));
      const Tensor gelu = at.output({count}), dx = at.output({count}), sum = at.output({count});
      gelu_forward(gelu, x);
      gelu_backward(dx, dy, x, gelu);
      add(sum, x, dy);
      const Tensor in_place = at(normal({count}, 1, 3)), gradient = at(normal({count}, 2)),
                   total = at(normal({count}, 3));
      gelu_forward(in_place, in_place);
      gelu_backward(gradient, gradient, x, gelu);
      add(total, total, x);
      return std::vector<Result>{{"gelu", gelu},
                                 {"dx", dx},
                                 {"sum", sum},
                                 {"gelu in place", in_place},
                                 {"dx in place", gradient},
                                 {"sum in place", total}};
    };
    expect_like_cpu(fmt::format("{} elements", count), call, count == 4099 ? 8 : 0);
  }
}

TEST(CudaElementwise, TakesUnalignedParts) {
  // Elements 1 to 998 of a tensor: no address is a multiple of 16 bytes. Their neighbours stay as they are.
  const Call call = [](const Place& at) {
    const Tensor x = at(normal({1000}, 1)), y = at(normal({1000}, 2));
    gelu_forward(y.range(1, {997}), x.range(1, {997}));
    add(y.range(3, {500}), x.range(3, {500}), x.range(1, {500}));
    return std::vector<Result>{{"y", y}};
  };
  expect_like_cpu("997 elements", call);
}

TEST(CudaElementwise, CastsRoundToNearestEven) {
  // All 65536 bf16, the numbers half way to the next, and those just beside half way.
  std::vector<float> numbers;
  for (std::uint32_t high = 0; high < 65536; ++high)
    for (const std::uint32_t low : {0u, 0x7fffu, 0x8000u, 0x8001u})
      numbers.push_back(std::bit_cast<float>(high << 16 | low));
  numbers.push_back(1);  // an odd count
  const Shape shape = {static_cast<std::int64_t>(numbers.size())};
  const Tensor x = Tensor::from(numbers, shape), expected(shape, DType::bf16), back(shape);
  cast(expected, x);
  cast(back, expected);
  const Tensor y(shape, DType::bf16, Device::cuda), back_on_device(shape, DType::f32, Device::cuda);
  cast(y, x.to(Device::cuda));
  cast(back_on_device, y);
  const Tensor got = y.to(Device::cpu), got_back = back_on_device.to(Device::cpu);
  int wrong = 0;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    // NaN stays NaN; which one is not defined.
    if (std::isnan(numbers[i])) {
      wrong += !std::isnan(static_cast<float>(got.data<BFloat16>()[i]));
      continue;
    }
    wrong += got.data<BFloat16>()[i].bits != expected.data<BFloat16>()[i].bits;
    wrong += std::memcmp(got_back.data() + i, back.data() + i, 4) != 0;
  }
  EXPECT_EQ(wrong, 0);
}

// ---- dropout --------------------------------------------------------------------------------------

TEST(CudaDropout, HasTheMasksOfTheCpuToTheBit) {
  const Philox rng{5, stream_id("dropout")};
  for (const std::int64_t count : {1, 5, 1024, 4099})
    for (const std::uint64_t first : {0ull, 1ull, 7ull, (1ull << 40) + 2}) {
      const Tensor x = normal({count}, 1), expected = poisoned({count});
      dropout(expected, x, 0.3F, rng, first);
      const Tensor y = poisoned({count}).to(Device::cuda);
      dropout(y, x.to(Device::cuda), 0.3F, rng, first);
      EXPECT_EQ(std::memcmp(y.to(Device::cpu).raw(), expected.raw(), expected.bytes()), 0)
          << count << ", " << first;

      const Call call = [&](const Place& at) {
        const Tensor in_place = at(normal({count}, 1));
        dropout(in_place, in_place, 0.3F, rng, first);
        return std::vector<Result>{{"in place", in_place}};
      };
      expect_like_cpu(fmt::format("{} from {}", count, first), call, count == 4099 && first == 7 ? 8 : 0);
    }
}

// ---- layer norm -------------------------------------------------------------------------------------

/// A sum of C numbers of size 1 in f32, whatever the order, errs by some sqrt(C) 2^-24 of their size, so that
/// 5e-6 leaves room up to C of a thousand.
std::vector<Result> layer_norms(const Place& at, std::int64_t rows, std::int64_t channels) {
  const Shape shape = {rows, channels};
  const Tensor x = at(normal(shape, 1)), gamma = at(normal({channels}, 2)), beta = at(normal({channels}, 3));
  const Tensor dy = at(normal(shape, 4)), residual = at(normal(shape, 5));
  const Tensor y = at.output(shape), mean = at.f32_output({rows}), rstd = at.f32_output({rows});
  layer_norm_forward(y, mean, rstd, x, gamma, beta, 1e-5F);
  const Tensor no_beta = at.output(shape);
  layer_norm_forward(no_beta, mean, rstd, x, gamma, Tensor(), 1e-5F);

  const Tensor sum = at.output(shape), y2 = at.output(shape), mean2 = at.f32_output({rows}),
               rstd2 = at.f32_output({rows});
  if (at.device == Device::cuda) {
    add_layer_norm_forward(sum, y2, mean2, rstd2, x, residual, gamma, beta, 1e-5F);
  } else {
    add(sum, x, residual);
    at.store(sum);
    layer_norm_forward(y2, mean2, rstd2, sum, gamma, beta, 1e-5F);
  }

  const Tensor dx = at.output(shape), in_place = at(normal(shape, 5));
  const Tensor dgamma = at.f32(normal({channels}, 6)), dbeta = at.f32(normal({channels}, 7));
  const Tensor dgamma_alone = at.f32(normal({channels}, 6));
  layer_norm_backward(dx, dgamma, dbeta, dy, x, gamma, mean, rstd, Tensor());
  layer_norm_backward(in_place, dgamma_alone, Tensor(), dy, x, gamma, mean, rstd, in_place);
  // With a single channel y is beta, dx is 0 and what is left is rounding, magnified by rstd = 316: not
  // compared.
  const double bound = 5e-6;
  std::vector<Result> results = {{"y", y, bound},
                                 {"no beta", no_beta, bound},
                                 {"mean", mean, bound},
                                 {"rstd", rstd, bound},
                                 {"sum", sum, bound},
                                 {"y of sum", y2, bound},
                                 {"mean of sum", mean2, bound},
                                 {"dgamma", dgamma, bound},
                                 {"dbeta", dbeta, bound},
                                 {"dgamma alone", dgamma_alone, bound}};
  if (channels > 1) {
    results.push_back({"dx", dx, 2 * bound});
    results.push_back({"dx + residual", in_place, 2 * bound});
  }
  return results;
}

TEST(CudaLayerNorm, AgreesWithTheCpu) {
  for_all_sizes([](std::int64_t rows, std::int64_t channels, int schedules) {
    expect_like_cpu(
        size_name(rows, channels), [=](const Place& at) { return layer_norms(at, rows, channels); },
        schedules);
  });
}

TEST(CudaLayerNorm, TakesRowsOfAllLengths) {
  // One for each way in which a kernel holds a row, and the longest of each: registers of a warp, of 256
  // threads, none; backward with blocks of 256, 512, 1024 threads, and none.
  for (const std::int64_t channels : {256, 1024, 1600, 2048, 2056, 2304, 4096, 8192, 16384, 16392, 4097})
    expect_like_cpu(size_name(5, channels), [=](const Place& at) { return layer_norms(at, 5, channels); });
}

TEST(CudaLayerNorm, AddsGradientsInFixedPieces) {
  // More rows than pieces (512), so that a piece has several groups of rows, the last of them incomplete.
  expect_like_cpu(
      "2563 rows", [](const Place& at) { return layer_norms(at, 2563, 24); }, 2);
}

// ---- softmax --------------------------------------------------------------------------------------

TEST(CudaSoftmax, AgreesWithTheCpu) {
  const auto test = [](std::int64_t rows, std::int64_t columns, int schedules) {
    const Call call = [=](const Place& at) {
      const Shape shape = {rows, columns};
      const Tensor x = at(normal(shape, 1, 3)), dy = at(normal(shape, 2));
      const Tensor y = at.output(shape), dx = at.output(shape);
      softmax_forward(y, x);
      // Backward from the same probabilities on both sides. y (dy - dot) cancels where dy is near dot.
      const Tensor p(shape);
      softmax_forward(p, normal(shape, 1, 3));
      softmax_backward(dx, dy, at(p));
      std::vector<Result> results = {{"y", y, 5e-6}};
      if (columns > 1) results.push_back({"dx", dx, 1e-5});
      return results;
    };
    expect_like_cpu(size_name(rows, columns), call, schedules);
  };
  for_all_sizes(test);
  for (const std::int64_t columns : {256, 1024, 2048, 2049, 5000, 5003})
    test(3, columns, columns > 2048 ? 8 : 0);
}

// ---- cross-entropy ----------------------------------------------------------------------------------

/// Targets, every fifth ignored.
Tensor some_targets(std::int64_t rows, std::int64_t vocabulary) {
  const Tensor targets = integers({rows}, vocabulary, 9);
  for (std::int64_t i = 4; i < rows; i += 5) targets.data<std::int32_t>()[i] = -1;
  return targets;
}

TEST(CudaCrossEntropy, AgreesWithTheCpu) {
  const auto test = [](std::int64_t rows, std::int64_t vocabulary, int schedules) {
    const Call call = [=](const Place& at) {
      const Tensor logits = at(normal({rows, vocabulary}, 1, 3)),
                   targets = at(some_targets(rows, vocabulary));
      const Tensor losses = at.f32_output({rows}), dlogits = at.output({rows, vocabulary});
      const Tensor in_place = at(normal({rows, vocabulary}, 1, 3));
      cross_entropy_forward(losses, logits, targets);
      cross_entropy_backward(dlogits, logits, targets, 0.25F);
      cross_entropy_backward(in_place, in_place, targets, 0.25F);
      return std::vector<Result>{
          {"losses", losses, 5e-6}, {"dlogits", dlogits, 5e-6}, {"in place", in_place, 5e-6}};
    };
    expect_like_cpu(size_name(rows, vocabulary), call, schedules);
  };
  for (const std::int64_t rows : {1, 2, 65})
    for (const std::int64_t vocabulary : {1, 2, 3, 101, 256}) test(rows, vocabulary, rows == 65 ? 8 : 0);
  test(1000, 33, 0);
  test(3, 5003, 8);  // odd: rows begin at all alignments; more than one pack per thread
  test(2, 50257, 0);
}

TEST(CudaCrossEntropy, FusedWithTheHeadAgreesWithTheCpu) {
  // In blocks of 7 rows, so that the last is incomplete; 20 rows at once; and through ops.h. Vocabularies
  // below 8, of a multiple of 64, of one of 8 only, and odd ones.
  const auto test = [](std::int64_t rows_at_a_time, std::int64_t vocabulary) {
    const Call call = [=](const Place& at) {
      constexpr std::int64_t kTokens = 20, kChannels = 24;
      const Tensor x = at(normal({kTokens, kChannels}, 1)), w = at(normal({vocabulary, kChannels}, 2, 0.5F));
      const Tensor targets = at(some_targets(kTokens, vocabulary));
      const Tensor losses = at.f32_output({kTokens}), alone = at.f32_output({kTokens});
      const Tensor dx = at.output({kTokens, kChannels}), dw = at.f32(normal({vocabulary, kChannels}, 3));
      if (rows_at_a_time > 0 && at.device == Device::cuda)
        cuda::linear_cross_entropy(losses, dx, dw, x, w, targets, 0.5F, Tensor(),
                                   rows_at_a_time * ((vocabulary + 63) / 64 * 64));
      else
        linear_cross_entropy(losses, dx, dw, x, w, targets, 0.5F);
      linear_cross_entropy_forward(alone, x, w, targets);
      // In bf16 the logits (up to 10, their largest difference beside the loss's own size) are rounded before
      // the softmax, their gradients after it: by 2^-8 each, twice where both meet.
      return std::vector<Result>{{"losses", losses, 5e-6, 2 * kBf16},
                                 {"losses alone", alone, 5e-6, 2 * kBf16},
                                 {"dx", dx, 5e-6, 4 * kBf16},
                                 {"dw", dw, 5e-6, 2 * kBf16}};
    };
    expect_like_cpu(fmt::format("{} rows at a time, V {}", rows_at_a_time, vocabulary), call, 2);
  };
  for (const std::int64_t rows_at_a_time : {7, 20, 0}) test(rows_at_a_time, 53);
  for (const std::int64_t vocabulary : {5, 64, 72, 129}) test(7, vocabulary);
}

// ---- embedding ------------------------------------------------------------------------------------

TEST(CudaEmbedding, AgreesWithTheCpu) {
  const auto test = [](std::int64_t batch, std::int64_t time, std::int64_t channels, std::int64_t vocabulary,
                       int schedules) {
    const Call call = [=](const Place& at) {
      const Tensor tokens = at(integers({batch, time}, vocabulary, 1));
      const Tensor tokens_table = at(normal({vocabulary, channels}, 2)),
                   positions = at(normal({time + 3, channels}, 3));
      const Tensor y = at.output({batch, time, channels}), dy = at(normal({batch, time, channels}, 4));
      embedding_forward(y, tokens, tokens_table, positions, 2);
      const Tensor dtokens = at.f32(normal({vocabulary, channels}, 5)),
                   dpositions = at.f32(normal({time + 3, channels}, 6));
      embedding_backward(dtokens, dpositions, dy, tokens, 2);
      return std::vector<Result>{{"y", y}, {"dtokens", dtokens, 5e-6}, {"dpositions", dpositions}};
    };
    expect_like_cpu(fmt::format("B {} T {} C {} V {}", batch, time, channels, vocabulary), call, schedules);
  };
  for (const std::int64_t channels : kColumns) test(3, 65, channels, 7, channels <= 80 ? 8 : 0);
  test(1, 1, 32, 5, 0);
  test(1, 2, 3, 1, 0);
  test(1, 1000, 8, 300, 0);    // nearly every token its own run
  test(5, 1000, 8, 1, 2);      // one token for all: sums through many blocks; five tiles to merge
  test(3, 1024, 4, 70000, 2);  // more tokens in the vocabulary than rows
}

// ---- linear layers -----------------------------------------------------------------------------------

TEST(CudaLinear, AgreesWithTheCpu) {
  const auto test = [](std::int64_t rows, std::int64_t in, std::int64_t out) {
    const Call call = [=](const Place& at) {
      const Tensor x = at(normal({rows, in}, 1)), w = at(normal({out, in}, 2)), b = at(normal({out}, 3));
      const Tensor dy = at(normal({rows, out}, 4));
      const Tensor y = at.output({rows, out}), no_bias = at.output({rows, out}), dx = at.output({rows, in});
      linear_forward(y, x, w, b);
      linear_forward(no_bias, x, w, Tensor());
      const Tensor pre = at.output({rows, out}), gelu = at.output({rows, out});
      const Tensor pre_no_bias = at.output({rows, out}), gelu_no_bias = at.output({rows, out});
      linear_gelu_forward(gelu, pre, x, w, b);
      linear_gelu_forward(gelu_no_bias, pre_no_bias, x, w, Tensor());
      const Tensor dw = at.f32(normal({out, in}, 5)), db = at.f32(normal({out}, 6)),
                   dw_alone = at.f32(normal({out, in}, 5));
      linear_backward(dx, dw, db, dy, x, w);
      linear_backward(Tensor(), dw_alone, Tensor(), dy, x, w);
      // Sums of up to a thousand products: see expect_close. In bf16 a sum may be rounded before the bias is
      // added as well as after it: the emulated product does so where GELU follows, cuBLASLt where the number
      // of outputs is odd. And gelu may see what it is given before or after it is rounded (gelu' is at
      // most 1.13).
      return std::vector<Result>{{"y", y, 1e-5, 1.2 * kBf16},
                                 {"no bias", no_bias, 1e-5},
                                 {"pre", pre, 1e-5, kBf16},
                                 {"gelu", gelu, 1e-5, 2.3 * kBf16},
                                 {"pre, no bias", pre_no_bias, 1e-5},
                                 {"gelu, no bias", gelu_no_bias, 1e-5, 1.2 * kBf16},
                                 {"dx", dx, 1e-5},
                                 {"dw", dw, 1e-5},
                                 {"db", db, 1e-5},
                                 {"dw alone", dw_alone, 1e-5}};
    };
    expect_like_cpu(fmt::format("N {} I {} O {}", rows, in, out), call, rows == 65 ? 8 : 0);
  };
  test(1, 1, 1);
  test(2, 3, 5);
  test(63, 32, 80);
  test(64, 128, 33);
  test(65, 80, 768);
  test(1000, 24, 40);
  test(2500, 5, 3);
}

// ---- optimizer ------------------------------------------------------------------------------------

TEST(CudaOptimizer, AgreesWithTheCpu) {
  for (const std::int64_t count : {1, 3, 1024, 16384, 40003})
    for (const bool with_copy : {false, true}) {
      const Call call = [&](const Place& at) {
        const Tensor values = at.f32(normal({count}, 1)), g = at.f32(normal({count}, 2));
        const Tensor m = at.f32(Tensor({count})), v = at.f32(Tensor({count}));
        const Tensor copy = with_copy ? Tensor({count}, DType::bf16, at.device) : Tensor();
        AdamWStep options{.learning_rate = 1e-2, .weight_decay = 0.1, .gradient_scale = 0.7};
        for (options.step = 1; options.step <= 3; ++options.step)
          adamw_update(values, m, v, g, options, copy);
        std::vector<Result> results = {{"values", values}, {"m", m}, {"v", v}};
        if (with_copy) results.push_back({"copy", to_host(copy), 2e-6 + kBf16});
        return results;
      };
      expect_like_cpu(fmt::format("{} values", count), call, count == 40003 ? 8 : 0, {DType::f32});
    }
}

TEST(CudaOptimizer, NormsAreThoseOfTheCpu) {
  for (const std::int64_t count : {1, 5, 1000, 16384, 16385, 100003})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const double expected = squared_norm(Place{Device::cpu, dtype}(normal({count}, 1)));
      const Tensor x = Place{Device::cuda, dtype}(normal({count}, 1));
      const double first = squared_norm(x);
      EXPECT_NEAR(first, expected, 1e-12 * expected) << count;  // sums of doubles
      for (const std::uint64_t seed : {1, 2, 3}) {
        simt::set_schedule_seed(seed);
        EXPECT_EQ(squared_norm(x), first) << count;
      }
      simt::set_schedule_seed(0);
    }
  EXPECT_EQ(squared_norm(Tensor({0}, DType::f32, Device::cuda)), 0);
}

}  // namespace
}  // namespace llm
