// Softmax, attention and dropout of chapter 3. Against PyTorch's numbers, against each
// other, at extremes, with wrong arguments, and on several threads.
#include "tests/ops_helpers.h"

namespace llm {
namespace {

using namespace llm::testing;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// ---- softmax --------------------------------------------------------------------------------------

TEST(Softmax, AgreesWithPyTorch) {
  const Golden golden("softmax");
  for (int i = 0; i < golden.cases(); ++i) {
    const Tensor x = golden.tensor(i, "x"), y = poisoned(x.shape()), dx = poisoned(x.shape());
    softmax_forward(y, x);
    expect_close(y, golden.tensor(i, "y"), fmt::format("y of case {}", i));
    softmax_backward(dx, golden.tensor(i, "dy"), y);
    expect_close(dx, golden.tensor(i, "dx"), fmt::format("dx of case {}", i));
  }
}

TEST(Softmax, KeepsNaNInItsRow) {
  const Tensor x = normal({3, 40}, 1), y = poisoned({3, 40});
  x.data()[40 + 7] = std::nanf("");
  softmax_forward(y, x);
  for (int i = 0; i < 40; ++i) {
    EXPECT_FALSE(std::isnan(y.data()[i]));
    EXPECT_TRUE(std::isnan(y.data()[40 + i]));
    EXPECT_FALSE(std::isnan(y.data()[80 + i]));
  }
}

TEST(Softmax, TakesMinusInfinityAsProbabilityZero) {
  const Tensor x({2, 20}), y = poisoned({2, 20});
  x.fill(-kInfinity);
  x.data()[3] = x.data()[17] = 2;
  softmax_forward(y, x);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(y.data()[i], i == 3 || i == 17 ? 0.5F : 0.0F);
  // A row of nothing but -inf has no answer; PyTorch says NaN.
  for (int i = 20; i < 40; ++i) EXPECT_TRUE(std::isnan(y.data()[i]));
}

TEST(Softmax, NamesBothSidesOfAMismatch) {
  expect_error("softmax_forward: y has shape (3, 2), but x has (2, 3)", [] {
    softmax_forward(Tensor({3, 2}), Tensor({2, 3}));
  });
  expect_error("softmax_forward: the rows of x are empty", [] {
    softmax_forward(Tensor({2, 0}), Tensor({2, 0}));
  });
  expect_error("softmax_backward: dy has shape (2), but y has (2, 3)", [] {
    softmax_backward(Tensor({2, 3}), Tensor({2}), Tensor({2, 3}));
  });
}

// ---- attention ------------------------------------------------------------------------------------

struct Attention {
  Tensor y, dqkv, saved;
};
Attention naive(const Tensor& qkv, const Tensor& dy, const AttentionOptions& options) {
  const std::int64_t b = qkv.dim(0), t = qkv.dim(1);
  const Attention a{poisoned(dy.shape()), poisoned(qkv.shape()), poisoned({b, options.heads, t, t})};
  attention_naive_forward(a.y, a.saved, qkv, options);
  attention_naive_backward(a.dqkv, dy, a.saved, qkv, options);
  return a;
}
Attention flash(const Tensor& qkv, const Tensor& dy, const AttentionOptions& options) {
  const Attention a{poisoned(dy.shape()), poisoned(qkv.shape()),
                    poisoned({qkv.dim(0), options.heads, qkv.dim(1)})};
  attention_flash_forward(a.y, a.saved, qkv, options);
  attention_flash_backward(a.dqkv, dy, a.y, a.saved, qkv, options);
  return a;
}

TEST(Attention, AgreesWithPyTorch) {
  const Golden golden("attention");
  for (int i = 0; i < golden.cases(); ++i) {
    const Tensor qkv = golden.tensor(i, "qkv"), dy = golden.tensor(i, "dy");
    AttentionOptions options;
    options.heads = golden.ids(i, "heads").data<std::int32_t>()[0];
    const Attention n = naive(qkv, dy, options), f = flash(qkv, dy, options);
    expect_close(n.y, golden.tensor(i, "y"), fmt::format("naive y of case {}", i));
    expect_close(n.dqkv, golden.tensor(i, "dqkv"), fmt::format("naive dqkv of case {}", i));
    expect_close(f.y, golden.tensor(i, "y"), fmt::format("flash y of case {}", i));
    expect_close(f.dqkv, golden.tensor(i, "dqkv"), fmt::format("flash dqkv of case {}", i));
    expect_close(f.saved, golden.tensor(i, "lse"), fmt::format("lse of case {}", i));
  }
}

TEST(Attention, FlashEqualsNaiveAtOddSizesWithAndWithoutDropout) {
  for (const std::int64_t time : {1, 2, 15, 16, 17, 63, 64, 65, 129, 200})
    for (const std::int64_t size : {1, 5, 16, 32, 80})
      for (const float p : {0.0F, 0.3F}) {
        const std::int64_t heads = 2;
        const Tensor qkv = normal({2, time, 3 * heads * size}, 1), dy = normal({2, time, heads * size}, 2);
        const AttentionOptions options{heads, p, Philox{5, 6}, 1001};
        const Attention n = naive(qkv, dy, options), f = flash(qkv, dy, options);
        const std::string what = fmt::format("T = {}, D = {}, dropout {}", time, size, p);
        expect_close(f.y, n.y, "y, " + what);
        expect_close(f.dqkv, n.dqkv, "dqkv, " + what);
      }
}

TEST(Attention, WeightsAreCausalAndSumToOne) {
  const std::int64_t time = 37;
  const Tensor qkv = normal({2, time, 24}, 1, 3), y({2, time, 8}), weights = poisoned({2, 2, time, time});
  attention_naive_forward(y, weights, qkv, {.heads = 2});
  for (std::int64_t row = 0; row < 4 * time; ++row) {
    double total = 0;
    for (std::int64_t j = 0; j < time; ++j) {
      const float weight = weights.data()[row * time + j];
      if (j > row % time) {
        EXPECT_EQ(weight, 0);
      }
      total += weight;
    }
    EXPECT_NEAR(total, 1, 1e-6);
  }
}

TEST(Attention, SeesNothingOfTheFuture) {
  // Whatever positions 40 and later hold, no bit of the output before changes.
  const Tensor qkv = normal({1, 70, 96}, 1), changed = qkv.clone();
  for (std::int64_t i = 40 * 96; i < changed.numel(); ++i) changed.data()[i] = 1e3F * qkv.data()[i - 1];
  for (const bool use_flash : {false, true}) {
    const Tensor a({1, 70, 32}), b({1, 70, 32});
    const Tensor saved = use_flash ? Tensor({1, 2, 70}) : Tensor({1, 2, 70, 70});
    for (const auto& [out, in] : {std::pair{a, qkv}, {b, changed}}) {
      if (use_flash)
        attention_flash_forward(out, saved, in, {.heads = 2});
      else
        attention_naive_forward(out, saved, in, {.heads = 2});
    }
    EXPECT_EQ(std::memcmp(a.raw(), b.raw(), 40 * 32 * sizeof(float)), 0) << (use_flash ? "flash" : "naive");
    EXPECT_NE(std::memcmp(a.data() + 40 * 32, b.data() + 40 * 32, 30 * 32 * sizeof(float)), 0);
  }
}

TEST(Attention, SurvivesHugeScores) {
  // Scores of +-1e4 make one weight 1 and the others 0; exp without the running maximum would overflow.
  const Tensor qkv = normal({1, 150, 48}, 1, 50), dy = normal({1, 150, 16}, 2);
  const Attention n = naive(qkv, dy, {.heads = 1}), f = flash(qkv, dy, {.heads = 1});
  expect_close(f.y, n.y, "y");
  for (const float value : f.dqkv.span()) ASSERT_TRUE(std::isfinite(value));
}

TEST(Attention, GradientIsTheSlope) {
  // Finite differences in double of a plain double reference.
  const std::int64_t time = 5, heads = 2, size = 3, width = 3 * heads * size;
  const Tensor qkv = normal({1, time, width}, 1), dy = normal({1, time, heads * size}, 2);
  const auto loss = [&](const std::vector<double>& in) {
    double total = 0;
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < time; ++i) {
        std::vector<double> weights;
        double sum = 0;
        for (std::int64_t j = 0; j <= i; ++j) {
          double score = 0;
          for (std::int64_t d = 0; d < size; ++d)
            score += in[i * width + h * size + d] * in[j * width + heads * size + h * size + d];
          weights.push_back(std::exp(score / std::sqrt(static_cast<double>(size))));
          sum += weights.back();
        }
        for (std::int64_t j = 0; j <= i; ++j)
          for (std::int64_t d = 0; d < size; ++d)
            total += weights[j] / sum * in[j * width + 2 * heads * size + h * size + d] *
                     dy.data()[i * heads * size + h * size + d];
      }
    return total;
  };
  const Tensor slope(qkv.shape());
  std::vector<double> point(qkv.span().begin(), qkv.span().end());
  for (std::size_t i = 0; i < point.size(); ++i) {
    const double before = point[i], step = 1e-5;
    point[i] = before + step;
    const double up = loss(point);
    point[i] = before - step;
    const double down = loss(point);
    point[i] = before;
    slope.data()[i] = static_cast<float>((up - down) / (2 * step));
  }
  expect_close(naive(qkv, dy, {.heads = heads}).dqkv, slope, "naive");
  expect_close(flash(qkv, dy, {.heads = heads}).dqkv, slope, "flash");
}

TEST(Attention, DecodingEqualsForward) {
  const std::int64_t batch = 2, time = 21, heads = 3, size = 5, channels = heads * size, capacity = 30;
  const Tensor qkv = normal({batch, time, 3 * channels}, 1), y({batch, time, channels}),
               lse({batch, heads, time});
  attention_flash_forward(y, lse, qkv, {.heads = heads});

  // The first 13 positions at once, the others one by one.
  const Tensor keys = poisoned({batch, heads, capacity, size}),
               values = poisoned({batch, heads, capacity, size});
  const auto positions = [&](std::int64_t first, std::int64_t count) {
    Tensor part({batch, count, 3 * channels});
    for (std::int64_t b = 0; b < batch; ++b)
      std::copy_n(qkv.data() + (b * time + first) * 3 * channels, count * 3 * channels,
                  part.data() + b * count * 3 * channels);
    return part;
  };
  attention_fill_cache(keys, values, positions(0, 5), 0, heads);
  attention_fill_cache(keys, values, positions(5, 8), 5, heads);
  for (std::int64_t t = 13; t < time; ++t) {
    const Tensor out = poisoned({batch, 1, channels}), expected({batch, 1, channels});
    attention_decode(out, keys, values, positions(t, 1), t, heads);
    for (std::int64_t b = 0; b < batch; ++b)
      std::copy_n(y.data() + (b * time + t) * channels, channels, expected.data() + b * channels);
    expect_close(out, expected, fmt::format("position {}", t));
  }
}

TEST(Attention, NamesBothSidesOfAMismatch) {
  const Tensor qkv({2, 4, 24}), y({2, 4, 8}), lse({2, 2, 4}), weights({2, 2, 4, 4});
  expect_error("attention_flash_forward: qkv must have 3 dimensions, but its shape is (4, 24)", [&] {
    attention_flash_forward(y, lse, Tensor({4, 24}), {.heads = 2});
  });
  expect_error(
      "attention_flash_forward: the last dimension of qkv must be a multiple of 3 x 5 heads, but its shape "
      "is "
      "(2, 4, 24)",
      [&] { attention_flash_forward(y, lse, qkv, {.heads = 5}); });
  expect_error("attention_flash_forward: the number of heads must be at least 1, got 0",
               [&] { attention_flash_forward(y, lse, qkv, {.heads = 0}); });
  expect_error("attention_flash_forward: the dropout must be at least 0 and less than 1, got 1",
               [&] { attention_flash_forward(y, lse, qkv, {.heads = 2, .dropout = 1}); });
  expect_error("attention_flash_forward: y must have shape (2, 4, 8), but it has (2, 4, 24)",
               [&] { attention_flash_forward(qkv, lse, qkv, {.heads = 2}); });
  expect_error("attention_flash_forward: lse must have shape (2, 2, 4), but it has (2, 2, 4, 4)",
               [&] { attention_flash_forward(y, weights, qkv, {.heads = 2}); });
  expect_error("attention_flash_backward: dqkv has shape (2, 4, 8), but qkv has (2, 4, 24)",
               [&] { attention_flash_backward(y, y, y, lse, qkv, {.heads = 2}); });
  expect_error("attention_naive_forward: weights must have shape (2, 2, 4, 4), but it has (2, 2, 4)",
               [&] { attention_naive_forward(y, lse, qkv, {.heads = 2}); });
  expect_error("attention_naive_backward: dy must have shape (2, 4, 8), but it has (2, 4, 24)",
               [&] { attention_naive_backward(qkv, qkv, weights, qkv, {.heads = 2}); });

  const Tensor cache({2, 2, 9, 4}), one({2, 1, 24}), out({2, 1, 8});
  expect_error("attention_decode: position 9 is not within caches of 9 positions",
               [&] { attention_decode(out, cache, cache, one, 9, 2); });
  expect_error("attention_decode: qkv must have shape (2, 1, 24), but it has (2, 4, 24)",
               [&] { attention_decode(out, cache, cache, qkv, 0, 2); });
  expect_error("attention_decode: key_cache must have shape (2, 2, 9, 4), but it has (2, 1, 9, 8)", [&] {
    attention_decode(out, Tensor({2, 1, 9, 8}), cache, one, 0, 2);
  });
  expect_error("attention_fill_cache: positions 6 to 10 are not within caches of 9 positions",
               [&] { attention_fill_cache(cache, cache, qkv, 6, 2); });
}

// ---- dropout --------------------------------------------------------------------------------------

TEST(Dropout, DropsTheRightShareAndKeepsTheMean) {
  const std::int64_t n = 100'000;
  const Tensor x({n}), y = poisoned({n});
  x.fill(1);
  for (const float p : {0.1F, 0.5F, 0.9F}) {
    dropout(y, x, p, Philox{3, 4});
    std::int64_t dropped = 0;
    for (const float value : y.span()) {
      if (value == 0)
        ++dropped;
      else
        EXPECT_FLOAT_EQ(value, 1 / (1 - p));
    }
    // Five standard deviations of a binomial count: wrong once in a million seeds.
    EXPECT_NEAR(static_cast<double>(dropped), n * static_cast<double>(p), 5 * std::sqrt(n * p * (1 - p)));
  }
}

TEST(Dropout, IsAFunctionOfTheElementsIndex) {
  // Element i draws number i of its stream, wherever the tensor begins.
  const Philox rng{3, 4};
  const Tensor x = normal({1003}, 1), y({1003}), part({500});
  dropout(y, x, 0.4F, rng, 77);
  for (std::int64_t i = 0; i < x.numel(); ++i)
    EXPECT_EQ(y.data()[i],
              rng.uniform(77 + static_cast<std::uint64_t>(i)) >= 0.4F ? x.data()[i] * (1 / (1 - 0.4F)) : 0);
  dropout(part, x.range(501, {500}), 0.4F, rng, 77 + 501);
  EXPECT_EQ(std::memcmp(part.raw(), y.data() + 501, part.bytes()), 0);
}

TEST(Dropout, OfZeroIsACopyAndInPlaceWorks) {
  const Tensor x = normal({99}, 1), y = poisoned({99}), z = x.clone();
  dropout(y, x, 0, Philox{});
  EXPECT_EQ(std::memcmp(x.raw(), y.raw(), x.bytes()), 0);
  dropout(y, x, 0.5F, Philox{1, 1});
  dropout(z, z, 0.5F, Philox{1, 1});
  EXPECT_EQ(std::memcmp(z.raw(), y.raw(), y.bytes()), 0);
}

TEST(Dropout, RefusesImpossibleProbabilities) {
  const Tensor x({3});
  expect_error("dropout: the probability must be at least 0 and less than 1, got 1",
               [&] { dropout(x, x, 1, Philox{}); });
  expect_error("dropout: the probability must be at least 0 and less than 1, got -0.5",
               [&] { dropout(x, x, -0.5F, Philox{}); });
  expect_error("dropout: the probability must be at least 0 and less than 1, got nan",
               [&] { dropout(x, x, std::nanf(""), Philox{}); });
}

// ---- threads --------------------------------------------------------------------------------------

TEST(Chapter3, NoBitDependsOnTheNumberOfThreads) {
  const Tensor x = normal({130, 200}, 1), w = normal({391, 200}, 2), b = normal({391}, 3),
               dy = normal({130, 391}, 4);
  expect_same_bits_for_all_thread_counts("linear", [&] {
    const Tensor y({130, 391}), dx(x.shape()), dw(w.shape()), db(b.shape());
    linear_forward(y, x, w, b);
    linear_backward(dx, dw, db, dy, x, w);
    return std::vector{y, dx, dw, db};
  });
  expect_same_bits_for_all_thread_counts("softmax", [&] {
    const Tensor y(dy.shape()), dx(dy.shape());
    softmax_forward(y, dy);
    softmax_backward(dx, dy, y);
    return std::vector{y, dx};
  });
  const Tensor qkv = normal({3, 70, 3 * 40}, 5), grad = normal({3, 70, 40}, 6);
  const AttentionOptions options{5, 0.2F, Philox{1, 2}, 0};
  expect_same_bits_for_all_thread_counts("attention", [&] {
    const Attention n = naive(qkv, grad, options), f = flash(qkv, grad, options);
    return std::vector{n.y, n.dqkv, f.y, f.dqkv, f.saved};
  });
  expect_same_bits_for_all_thread_counts("decode", [&] {
    const Tensor keys = normal({3, 8, 400, 16}, 7), values = normal({3, 8, 400, 16}, 8), y({3, 1, 128});
    attention_decode(y, keys, values, normal({3, 1, 384}, 9), 399, 8);
    return std::vector{y, keys, values};
  });
  expect_same_bits_for_all_thread_counts("dropout", [&] {
    const Tensor y(w.shape());
    dropout(y, w, 0.3F, Philox{1, 2}, 3);
    return std::vector{y};
  });
}

}  // namespace
}  // namespace llm
