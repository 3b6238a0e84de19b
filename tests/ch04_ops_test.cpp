// The primitives of chapter 4: embedding, layer norm, GELU, losses, AdamW. Against PyTorch's numbers, at
// extremes, with wrong arguments, and on several threads.
#include "tests/ops_helpers.h"

namespace llm {
namespace {

using namespace llm::testing;

/// i32 tensor of the given numbers.
Tensor ids(std::vector<std::int32_t> values) {
  const auto count = static_cast<std::int64_t>(values.size());
  return Tensor::from(std::span<const std::int32_t>(values), {count});
}

// ---- embedding ------------------------------------------------------------------------------------

TEST(Embedding, AgreesWithPyTorch) {
  const Golden golden("embedding");
  const Tensor tokens = golden.ids(0, "tokens"), dy = golden.tensor(0, "dy"), y = poisoned(dy.shape());
  const Tensor table = golden.tensor(0, "table"), positions = golden.tensor(0, "positions");
  embedding_forward(y, tokens, table, positions, 2);
  expect_close(y, golden.tensor(0, "y"), "y");
  const Tensor dtable(table.shape()), dpositions(positions.shape());
  embedding_backward(dtable, dpositions, dy, tokens, 2);
  expect_close(dtable, golden.tensor(0, "dtable"), "dtable");
  expect_close(dpositions, golden.tensor(0, "dpositions"), "dpositions");
}

TEST(Embedding, RefusesIdsAndPositionsOutside) {
  const Tensor table({5, 4}), positions({3, 4}), y({1, 2, 4});
  const auto tokens = [](std::int32_t a, std::int32_t b) { return ids({a, b}).view({1, 2}); };
  expect_error("embedding_forward: token id 5 is not within the vocabulary of 5",
               [&] { embedding_forward(y, tokens(0, 5), table, positions); });
  expect_error("embedding_forward: token id -1 is not within the vocabulary of 5",
               [&] { embedding_forward(y, tokens(-1, 0), table, positions); });
  expect_error("embedding_backward: token id 7 is not within the vocabulary of 5",
               [&] { embedding_backward(table, positions, y, tokens(0, 7)); });
  expect_error("embedding_forward: positions 2 to 4 are not within a position table of 3 rows",
               [&] { embedding_forward(y, tokens(0, 0), table, positions, 2); });
  expect_error("embedding_forward: y must have shape (1, 2, 4), but it has (2, 4)", [&] {
    embedding_forward(Tensor({2, 4}), tokens(0, 0), table, positions);
  });
  expect_error(
      "embedding_forward: the last dimension of the position table must be 4, but its shape is (3, 6)", [&] {
        embedding_forward(y, tokens(0, 0), table, Tensor({3, 6}));
      });
  expect_error("embedding_forward: tokens must be i32, but it is f32", [&] {
    embedding_forward(y, Tensor({1, 2}), table, positions);
  });
}

// ---- layer norm -----------------------------------------------------------------------------------

TEST(LayerNorm, AgreesWithPyTorch) {
  const Golden golden("layer_norm");
  for (int i = 0; i < golden.cases(); ++i) {
    const Tensor x = golden.tensor(i, "x"), gamma = golden.tensor(i, "gamma"),
                 beta = golden.optional(i, "beta");
    const std::int64_t rows = x.dim(0);
    const Tensor y = poisoned(x.shape()), mean = poisoned({rows}), rstd = poisoned({rows});
    layer_norm_forward(y, mean, rstd, x, gamma, beta, 1e-5F);
    expect_close(y, golden.tensor(i, "y"), fmt::format("y of case {}", i));
    expect_close(mean, golden.tensor(i, "mean"), fmt::format("mean of case {}", i));
    expect_close(rstd, golden.tensor(i, "rstd"), fmt::format("rstd of case {}", i));

    const Tensor dy = golden.tensor(i, "dy"), dresidual = golden.tensor(i, "dresidual"),
                 dx = poisoned(x.shape());
    const Tensor dgamma(gamma.shape()), dbeta = beta.defined() ? Tensor(beta.shape()) : Tensor();
    layer_norm_backward(dx, dgamma, dbeta, dy, x, gamma, mean, rstd, dresidual);
    expect_close(dx, golden.tensor(i, "dx"), fmt::format("dx of case {}", i));
    expect_close(dgamma, golden.tensor(i, "dgamma"), fmt::format("dgamma of case {}", i));
    if (beta.defined()) expect_close(dbeta, golden.tensor(i, "dbeta"), fmt::format("dbeta of case {}", i));

    // In place over the residual's gradient, and adding to the parameters' gradients.
    layer_norm_backward(dresidual, dgamma, dbeta, dy, x, gamma, mean, rstd, dresidual);
    EXPECT_EQ(std::memcmp(dresidual.raw(), dx.raw(), dx.bytes()), 0);
    const Tensor twice = golden.tensor(i, "dgamma");
    for (float& value : twice.span()) value *= 2;
    expect_close(dgamma, twice, fmt::format("dgamma of case {}, twice", i));
  }
}

TEST(LayerNorm, OfAConstantRowIsBeta) {
  // 0.1 has no exact float: the mean must not leave a rest that 1 / sqrt(eps) would blow up.
  const Tensor x({2, 33}), gamma = normal({33}, 1), beta = normal({33}, 2), y = poisoned({2, 33}), mean({2}),
                           rstd({2});
  x.fill(0.1F);
  layer_norm_forward(y, mean, rstd, x, gamma, beta, 1e-5F);
  for (std::int64_t i = 0; i < y.numel(); ++i) EXPECT_NEAR(y.data()[i], beta.data()[i % 33], 1e-5);
}

TEST(LayerNorm, OfALargeOffsetLosesNothing) {
  // The variance is of differences from the mean; mean(x^2) - mean(x)^2 would lose all digits here.
  const Tensor x = normal({1, 64}, 1), shifted = x.clone(), ones({64}), zeros({64});
  ones.fill(1);
  for (std::int64_t i = 0; i < 64; ++i) {
    x.data()[i] = std::round(x.data()[i] * 64) / 64;  // exact also after adding 4096
    shifted.data()[i] = x.data()[i] + 4096;
  }
  const Tensor y({1, 64}), z({1, 64}), mean({1}), rstd({1});
  layer_norm_forward(y, mean, rstd, x, ones, zeros, 1e-5F);
  layer_norm_forward(z, mean, rstd, shifted, ones, zeros, 1e-5F);
  expect_close(z, y, "shifted", 5e-4);  // the mean itself has a spacing of 4096 * 2^-23
}

TEST(LayerNorm, NamesBothSidesOfAMismatch) {
  const Tensor x({2, 4}), row({4}), n({2});
  expect_error("layer_norm_forward: the last dimension of x must be 4, but its shape is (2, 5)", [&] {
    layer_norm_forward(x, n, n, Tensor({2, 5}), row, row, 1e-5F);
  });
  expect_error("layer_norm_forward: mean must have 2 elements, but its shape is (3)",
               [&] { layer_norm_forward(x, Tensor({3}), n, x, row, row, 1e-5F); });
  expect_error("layer_norm_forward: beta must have shape (4), but it has (5)",
               [&] { layer_norm_forward(x, n, n, x, row, Tensor({5}), 1e-5F); });
  expect_error("layer_norm_backward: dresidual must have 2 rows, but its shape is (1, 4)", [&] {
    layer_norm_backward(x, row, row, x, x, row, n, n, Tensor({1, 4}));
  });
  expect_error("layer_norm_backward: dgamma must have shape (4), but it has (2, 4)",
               [&] { layer_norm_backward(x, x, row, x, x, row, n, n, Tensor()); });
}

// ---- elementwise ----------------------------------------------------------------------------------

TEST(Gelu, AgreesWithPyTorch) {
  const Golden golden("gelu");
  const Tensor x = golden.tensor(0, "x"), y = poisoned(x.shape()), dx = poisoned(x.shape());
  gelu_forward(y, x);
  expect_close(y, golden.tensor(0, "y"), "y");
  const Tensor dy = golden.tensor(0, "dy");
  gelu_backward(dx, dy, x, y);
  expect_close(dx, golden.tensor(0, "dx"), "dx");
  gelu_backward(dy, dy, x, y);  // in place
  EXPECT_EQ(std::memcmp(dy.raw(), dx.raw(), dx.bytes()), 0);

  // Element by element, so that the large ones do not hide the small: within 4e-6 of the value, wherever that
  // is above 1e-6 (below, e^-2u amplifies the rounding of u: a relative error of 2 u 2^-24 in any float32
  // formula).
  const Tensor expected = golden.tensor(0, "y");
  for (std::int64_t i = 0; i < x.numel(); ++i)
    EXPECT_NEAR(y.data()[i], expected.data()[i], 4e-6 * std::abs(expected.data()[i]) + 1e-12)
        << "x = " << x.data()[i];
}

TEST(Gelu, KeepsNaNAndInfinity) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float values[] = {std::nanf(""), kInfinity, 3e38F};
  const Tensor x = Tensor::from(std::span<const float>(values), {3}), y({3}), ones({3}), dx({3});
  ones.fill(1);
  gelu_forward(y, x);
  gelu_backward(dx, ones, x, y);
  EXPECT_TRUE(std::isnan(y.data()[0]) && std::isnan(dx.data()[0]));
  EXPECT_EQ(y.data()[1], kInfinity);
  EXPECT_EQ(y.data()[2], 3e38F);
  EXPECT_EQ(dx.data()[1], 1);
  EXPECT_EQ(dx.data()[2], 1);
}

TEST(Elementwise, AddsAndNamesBothSidesOfAMismatch) {
  const Tensor a = normal({3, 7}, 1), b = normal({3, 7}, 2), y = poisoned({3, 7});
  add(y, a, b);
  for (std::int64_t i = 0; i < y.numel(); ++i) EXPECT_EQ(y.data()[i], a.data()[i] + b.data()[i]);
  add(a, a, b);
  EXPECT_EQ(std::memcmp(a.raw(), y.raw(), y.bytes()), 0);
  expect_error("add: b has shape (7, 3), but a has (3, 7)", [&] { add(y, a, Tensor({7, 3})); });
  expect_error("gelu_forward: y has shape (21), but x has (3, 7)", [&] { gelu_forward(Tensor({21}), a); });
  expect_error("gelu_backward: dy has shape (21), but x has (3, 7)",
               [&] { gelu_backward(y, Tensor({21}), a, y); });
  expect_error("gelu_backward: y has shape (21), but x has (3, 7)",
               [&] { gelu_backward(y, a, a, Tensor({21})); });
}

// ---- cross-entropy --------------------------------------------------------------------------------

TEST(CrossEntropy, AgreesWithPyTorch) {
  const Golden golden("cross_entropy");
  for (int i = 0; i < golden.cases(); ++i) {
    const Tensor logits = golden.tensor(i, "logits"), targets = golden.ids(i, "targets");
    const Tensor losses = poisoned(targets.shape()), dlogits = poisoned(logits.shape());
    cross_entropy_forward(losses, logits, targets);
    expect_close(losses, golden.tensor(i, "losses"), fmt::format("losses of case {}", i));
    cross_entropy_backward(dlogits, logits, targets, 0.25F);
    expect_close(dlogits, golden.tensor(i, "dlogits"), fmt::format("dlogits of case {}", i));
    cross_entropy_backward(logits, logits, targets, 0.25F);  // in place
    EXPECT_EQ(std::memcmp(logits.raw(), dlogits.raw(), dlogits.bytes()), 0);
  }
}

TEST(CrossEntropy, OfUniformLogitsIsLogV) {
  const Tensor logits({1, 50257}), losses({1});
  cross_entropy_forward(losses, logits, ids({17}));
  EXPECT_FLOAT_EQ(losses.data()[0], std::log(50257.0F));
}

TEST(CrossEntropy, OfACertainAndRightAnswerIsZeroNotNegative) {
  const Tensor logits({1, 9}), losses({1});
  logits.data()[4] = 200;
  cross_entropy_forward(losses, logits, ids({4}));
  EXPECT_EQ(losses.data()[0], 0);
  cross_entropy_forward(losses, logits, ids({3}));
  EXPECT_EQ(losses.data()[0], 200);
}

TEST(CrossEntropy, KeepsNaNInItsRow) {
  const Tensor logits = normal({2, 9}, 1), losses({2});
  logits.data()[3] = std::nanf("");
  cross_entropy_forward(losses, logits, ids({0, 0}));
  EXPECT_TRUE(std::isnan(losses.data()[0]));
  EXPECT_FALSE(std::isnan(losses.data()[1]));
}

TEST(CrossEntropy, WithTheHeadAgreesWithPyTorch) {
  const Golden golden("head");
  for (int i = 0; i < golden.cases(); ++i) {
    const Tensor x = golden.tensor(i, "x"), w = golden.tensor(i, "w"), targets = golden.ids(i, "targets");
    const Tensor losses = poisoned(targets.shape()), dx = poisoned(x.shape()), dw(w.shape());
    linear_cross_entropy_forward(losses, x, w, targets);
    expect_close(losses, golden.tensor(i, "losses"), fmt::format("losses alone of case {}", i));
    linear_cross_entropy(losses, dx, dw, x, w, targets, 0.125F);
    expect_close(losses, golden.tensor(i, "losses"), fmt::format("losses of case {}", i));
    expect_close(dx, golden.tensor(i, "dx"), fmt::format("dx of case {}", i));
    expect_close(dw, golden.tensor(i, "dw"), fmt::format("dw of case {}", i));
  }
}

TEST(CrossEntropy, WithTheHeadInBlocksIsTheSame) {
  // Enough rows and words that the logits (75 MB) do not fit one block.
  const std::int64_t rows = 350, channels = 5, vocabulary = 53'001;
  const Tensor x = normal({rows, channels}, 1), w = normal({vocabulary, channels}, 2);
  const Tensor targets = integers({rows}, vocabulary, 3), losses({rows}), dx = poisoned(x.shape()),
               dw(w.shape());
  linear_cross_entropy(losses, dx, dw, x, w, targets, 0.5F);
  const Tensor logits({rows, vocabulary}), plain({rows}), plain_dx(x.shape()), plain_dw(w.shape());
  linear_forward(logits, x, w, Tensor());
  cross_entropy_forward(plain, logits, targets);
  cross_entropy_backward(logits, logits, targets, 0.5F);
  linear_backward(plain_dx, plain_dw, Tensor(), logits, x, w);
  expect_close(losses, plain, "losses");
  expect_close(dx, plain_dx, "dx");
  expect_close(dw, plain_dw, "dw");
}

TEST(CrossEntropy, WithTheHeadGradientIsTheSlope) {
  // Finite differences of the losses in double, by a plain reference.
  const std::int64_t rows = 3, channels = 4, vocabulary = 7;
  const Tensor x = normal({rows, channels}, 1), w = normal({vocabulary, channels}, 2), losses({rows});
  const Tensor targets = ids({6, -1, 0}), dx(x.shape()), dw(w.shape());
  linear_cross_entropy(losses, dx, dw, x, w, targets, 1);
  const auto loss = [&](const std::vector<double>& xs, const std::vector<double>& ws) {
    double total = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int32_t target = targets.data<std::int32_t>()[i];
      if (target < 0) continue;
      double sum = 0, right = 0;
      for (std::int64_t v = 0; v < vocabulary; ++v) {
        double logit = 0;
        for (std::int64_t c = 0; c < channels; ++c) logit += xs[i * channels + c] * ws[v * channels + c];
        sum += std::exp(logit);
        if (v == target) right = logit;
      }
      total += std::log(sum) - right;
    }
    return total;
  };
  std::vector<double> xs(x.span().begin(), x.span().end()), ws(w.span().begin(), w.span().end());
  const Tensor slope_x(x.shape()), slope_w(w.shape());
  const auto slope = [&](std::vector<double>& values, const Tensor& out) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double before = values[i], step = 1e-5;
      values[i] = before + step;
      const double up = loss(xs, ws);
      values[i] = before - step;
      const double down = loss(xs, ws);
      values[i] = before;
      out.data()[i] = static_cast<float>((up - down) / (2 * step));
    }
  };
  slope(xs, slope_x);
  slope(ws, slope_w);
  expect_close(dx, slope_x, "dx");
  expect_close(dw, slope_w, "dw");
}

TEST(CrossEntropy, OfNothingIsNothing) {
  const Tensor logits({0, 5}), losses({0}), x({0, 3}), w = normal({5, 3}, 1), dw({5, 3});
  cross_entropy_forward(losses, logits, Tensor({0}, DType::i32));
  linear_cross_entropy(losses, x, dw, x, w, Tensor({0}, DType::i32), 1);
  for (const float value : dw.span()) EXPECT_EQ(value, 0);
}

TEST(CrossEntropy, RefusesTargetsOutsideAndMismatches) {
  const Tensor logits({2, 5}), losses({2}), x({2, 3}), w({5, 3});
  expect_error("cross_entropy_forward: target 5 is neither within the vocabulary of 5 nor -1 (ignored)", [&] {
    cross_entropy_forward(losses, logits, ids({0, 5}));
  });
  expect_error("cross_entropy_backward: target -2 is neither within the vocabulary of 5 nor -1 (ignored)",
               [&] {
                 cross_entropy_backward(logits, logits, ids({-2, 0}), 1);
               });
  expect_error("linear_cross_entropy: target 9 is neither within the vocabulary of 5 nor -1 (ignored)", [&] {
    linear_cross_entropy(losses, x, w, x, w, ids({0, 9}), 1);
  });
  expect_error("cross_entropy_forward: targets must have 2 elements, but its shape is (3)", [&] {
    cross_entropy_forward(losses, logits, ids({0, 0, 0}));
  });
  expect_error("cross_entropy_forward: targets must be i32, but it is f32",
               [&] { cross_entropy_forward(losses, logits, Tensor({2})); });
  expect_error("cross_entropy_forward: losses must have 2 elements, but its shape is (1)", [&] {
    cross_entropy_forward(Tensor({1}), logits, ids({0, 0}));
  });
  expect_error("linear_cross_entropy_forward: the last dimension of x must be 3, but its shape is (2, 4)",
               [&] {
                 linear_cross_entropy_forward(losses, Tensor({2, 4}), w, ids({0, 0}));
               });
  expect_error("linear_cross_entropy: dw has shape (3, 5), but w has (5, 3)", [&] {
    linear_cross_entropy(losses, x, Tensor({3, 5}), x, w, ids({0, 0}), 1);
  });
}

// ---- AdamW ----------------------------------------------------------------------------------------

TEST(AdamW, AgreesWithPyTorchForThreeSteps) {
  const Golden golden("adamw");
  const Tensor values = golden.tensor(0, "values"), m(values.shape()), v(values.shape());
  AdamWStep options{.learning_rate = 3e-3, .beta2 = 0.95, .weight_decay = 0.1, .gradient_scale = 0.5};
  for (int step = 1; step <= 3; ++step) {
    options.step = step;
    adamw_update(values, m, v, golden.tensor(step, "gradients"), options);
    expect_close(m, golden.tensor(step, "m"), fmt::format("first moment after step {}", step), 1e-6);
    expect_close(v, golden.tensor(step, "v"), fmt::format("second moment after step {}", step), 1e-6);
    expect_close(values, golden.tensor(step, "values"), fmt::format("values after step {}", step), 1e-6);
  }
}

TEST(AdamW, FirstStepMovesByTheLearningRate) {
  // After the bias corrections m / sqrt(v) is the gradient's sign, however small the gradient.
  const float gradients[] = {3, -1e-4F, 0};
  const Tensor values({3}), m({3}), v({3});
  adamw_update(values, m, v, Tensor::from(std::span<const float>(gradients), {3}), {.learning_rate = 0.01});
  EXPECT_NEAR(values.data()[0], -0.01, 1e-7);
  EXPECT_NEAR(values.data()[1], 0.01, 2e-6);  // eps = 1e-8 is 1e-4 of this gradient
  EXPECT_EQ(values.data()[2], 0);
}

TEST(AdamW, RefusesMismatchesAndStepZero) {
  const Tensor four({4}), five({5});
  expect_error("adamw_update: second_moment must have 4 elements, but its shape is (5)",
               [&] { adamw_update(four, four, five, four, {}); });
  expect_error("adamw_update: steps are counted from 1, got 0",
               [&] { adamw_update(four, four, four, four, {.step = 0}); });
}

TEST(SquaredNorm, IsASumInDouble) {
  const Tensor x = normal({100'001}, 1);
  double expected = 0;
  for (const float value : x.span()) expected += static_cast<double>(value) * value;
  EXPECT_NEAR(squared_norm(x), expected, 1e-12 * expected);
  EXPECT_EQ(squared_norm(Tensor({0})), 0);
  const Tensor huge({2});
  huge.fill(1e30F);  // its square is no float
  EXPECT_NEAR(squared_norm(huge), 2e60, 1e54);
  huge.data()[0] = std::nanf("");
  EXPECT_TRUE(std::isnan(squared_norm(huge)));
  expect_error("squared_norm: x must be f32, but it is i32", [] { squared_norm(Tensor({2}, DType::i32)); });
}

// ---- threads --------------------------------------------------------------------------------------

TEST(Chapter4, NoBitDependsOnTheNumberOfThreads) {
  const Tensor x = normal({301, 257}, 1), dy = normal({301, 257}, 2), gamma = normal({257}, 3),
               beta = normal({257}, 4);
  expect_same_bits_for_all_thread_counts("layer norm", [&] {
    const Tensor y(x.shape()), mean({301}), rstd({301}), dx(x.shape()), dgamma({257}), dbeta({257});
    layer_norm_forward(y, mean, rstd, x, gamma, beta, 1e-5F);
    layer_norm_backward(dx, dgamma, dbeta, dy, x, gamma, mean, rstd, dy);
    return std::vector{y, mean, rstd, dx, dgamma, dbeta};
  });
  expect_same_bits_for_all_thread_counts("gelu and add", [&] {
    const Tensor y(x.shape()), dx(x.shape()), sum(x.shape());
    gelu_forward(y, x);
    gelu_backward(dx, dy, x, y);
    add(sum, y, dx);
    return std::vector{y, dx, sum};
  });
  const Tensor tokens = integers({7, 43}, 11, 5), table = normal({11, 257}, 6),
               positions = normal({50, 257}, 7);
  expect_same_bits_for_all_thread_counts("embedding", [&] {
    const Tensor y({7, 43, 257}), dtable(table.shape()), dpositions(positions.shape());
    embedding_forward(y, tokens, table, positions);
    embedding_backward(dtable, dpositions, dy.view({7, 43, 257}), tokens);
    return std::vector{y, dtable, dpositions};
  });
  const Tensor w = normal({1001, 257}, 8), targets = integers({301}, 1001, 9);
  expect_same_bits_for_all_thread_counts("losses", [&] {
    const Tensor losses({301}), alone({301}), dx(x.shape()), dw(w.shape());
    linear_cross_entropy(losses, dx, dw, x, w, targets, 0.1F);
    cross_entropy_forward(alone, x, integers({301}, 257, 10));
    return std::vector{losses, alone, dx, dw};
  });
  expect_same_bits_for_all_thread_counts("AdamW", [&] {
    const Tensor values = w.clone(), m(w.shape()), v(w.shape());
    adamw_update(values, m, v, normal(w.shape(), 11), {});
    const double norm = squared_norm(w);
    const Tensor bits({2}, DType::i32);
    std::memcpy(bits.raw(), &norm, sizeof norm);
    return std::vector{values, m, v, bits};
  });
}

}  // namespace
}  // namespace llm
