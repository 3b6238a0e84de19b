// The matrix product and linear layers of chapter 3: against plain sums, against PyTorch's numbers, at all
// sizes, with wrong arguments.
#include "common/ops/measuring.h"
#include "tests/ops_helpers.h"

namespace llm {
namespace {

using namespace llm::testing;

TEST(Gemm, IsTheSumOfProductsForAllSizesAndLayouts) {
  for (const std::int64_t m : {1, 8, 9, 71})
    for (const std::int64_t n : {1, 16, 33, 48, 101})
      for (const std::int64_t k : {0, 1, 17, 385})
        for (const float alpha : {1.0F, 0.75F})
          for (const bool transpose_a : {false, true})
            for (const bool transpose_b : {false, true})
              for (const float beta : {0.0F, 1.0F, 0.5F}) {
                // Rows are longer than they need be; what lies between them must not be touched or used.
                const std::int64_t lda = (transpose_a ? m : k) + 3, ldc = n + 1;
                const std::int64_t ldb = transpose_b ? k + 2 : n + 2;
                const Tensor a = normal({transpose_a ? k : m, lda}, 1), c = normal({m, ldc}, 3);
                const Tensor b = normal({transpose_b ? n : k, ldb}, 2), before = c.clone();
                if (beta == 0) c.fill(std::nanf(""));  // overwritten, not multiplied by 0
                gemm(transpose_a, transpose_b, m, n, k, alpha, a.data(), lda, b.data(), ldb, beta, c.data(),
                     ldc);
                for (std::int64_t i = 0; i < m; ++i)
                  for (std::int64_t j = 0; j < n; ++j) {
                    double sum = 0, size = 1;
                    for (std::int64_t p = 0; p < k; ++p) {
                      const double left = a.data()[transpose_a ? p * lda + i : i * lda + p];
                      const double right = b.data()[transpose_b ? j * ldb + p : p * ldb + j];
                      sum += left * right;
                      size += std::abs(left * right);
                    }
                    if (beta != 0)
                      sum = alpha * sum + beta * before.data()[i * ldc + j];
                    else
                      sum *= alpha;
                    // Any order of k additions errs by less than k 2^-24 of the sum of sizes, as a rule by
                    // sqrt(k).
                    ASSERT_NEAR(c.data()[i * ldc + j], sum, 4e-7 * size)
                        << m << " x " << n << " x " << k << (transpose_a ? " A^T" : "")
                        << (transpose_b ? " B^T" : "") << " alpha " << alpha << " beta " << beta << " at "
                        << i << ", " << j;
                  }
              }
}

TEST(Gemm, TakesSizesBeyondEveryBlock) {
  // More columns, rows and depth than one block or piece of any kind holds; A^T the wider and the narrower.
  struct Size {
    std::int64_t m, n, k;
  };
  for (const auto& [m, n, k] : {Size{70, 1700, 900}, Size{690, 700, 400}, Size{700, 690, 400}}) {
    const Tensor a = normal({m, k}, 1), b = normal({n, k}, 2), expected({m, n});
    const Tensor a_columns({k, m}), b_columns({k, n});
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (std::int64_t p = 0; p < k; ++p)
          sum += static_cast<double>(a.data()[i * k + p]) * b.data()[j * k + p];
        expected.data()[i * n + j] = static_cast<float>(sum);
      }
    for (std::int64_t p = 0; p < k; ++p) {
      for (std::int64_t i = 0; i < m; ++i) a_columns.data()[p * m + i] = a.data()[i * k + p];
      for (std::int64_t j = 0; j < n; ++j) b_columns.data()[p * n + j] = b.data()[j * k + p];
    }
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true}) {
        const Tensor c = poisoned({m, n});
        gemm(transpose_a, transpose_b, m, n, k, 1, (transpose_a ? a_columns : a).data(), transpose_a ? m : k,
             (transpose_b ? b : b_columns).data(), transpose_b ? k : n, 0, c.data(), n);
        const char* const kinds[] = {"", " A^T", " B^T", " A^T B^T"};
        expect_close(c, expected,
                     fmt::format("c {} x {}{}", m, n, kinds[(transpose_a ? 1 : 0) + (transpose_b ? 2 : 0)]),
                     2e-6);
      }
  }
}

TEST(Gemm, AnElementDoesNotDependOnTheRestOfTheMatrix) {
  if (describe_gemm(Device::cpu) != "built-in matrix product")
    GTEST_SKIP() << "a property of the built-in product";
  const Tensor a = normal({100, 500}, 1), b = normal({300, 500}, 2), whole({100, 300}), part({37, 300});
  gemm(false, true, 100, 300, 500, 1, a.data(), 500, b.data(), 500, 0, whole.data(), 300);
  gemm(false, true, 37, 300, 500, 1, a.data() + 41 * 500, 500, b.data(), 500, 0, part.data(), 300);
  EXPECT_EQ(std::memcmp(part.raw(), whole.data() + 41 * 300, part.bytes()), 0);

  // A^T B of a wide A and of a narrow one, whichever of the two the threads copy together.
  const Tensor columns = normal({90, 320}, 3), right = normal({90, 96}, 4), wide({320, 96}), narrow({48, 96});
  for (const float alpha : {1.0F, 0.7F}) {
    gemm(true, false, 320, 96, 90, alpha, columns.data(), 320, right.data(), 96, 0, wide.data(), 96);
    gemm(true, false, 48, 96, 90, alpha, columns.data(), 320, right.data(), 96, 0, narrow.data(), 96);
    EXPECT_EQ(std::memcmp(narrow.raw(), wide.raw(), narrow.bytes()), 0) << "alpha " << alpha;
  }
}

TEST(Gemm, LeavesWhatIsBetweenTheRowsAlone) {
  const Tensor a = normal({9, 9}, 1), b = normal({9, 20}, 2);
  for (const bool transpose_a : {false, true}) {
    const Tensor c({9, 23});
    c.fill(7);
    gemm(transpose_a, false, 9, 20, 9, 1, a.data(), 9, b.data(), 20, 0, c.data(), 23);
    for (std::int64_t i = 0; i < 9; ++i)
      for (std::int64_t j = 20; j < 23; ++j) EXPECT_EQ(c.data()[i * 23 + j], 7);
  }
}

TEST(Gemm, SaysWhoComputes) {
  EXPECT_FALSE(describe_gemm(Device::cpu).empty());
  EXPECT_FALSE(describe_gemm(Device::cuda).empty());
}

TEST(Measuring, ComputesWithNumbersThatRepeat) {
  constexpr std::int64_t kSome = 1 << 20;
  for (const Device device : {Device::cpu, Device::cuda})
    for (const std::int64_t count : {std::int64_t{0}, std::int64_t{7}, kSome, 2 * kSome + 5}) {
      const Tensor t = normals_for_measuring({count}, DType::f32, device).to(Device::cpu);
      double squares = 0;
      for (std::int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(t.data()[i], t.data()[i % kSome]) << i;
        squares += static_cast<double>(t.data()[i]) * t.data()[i];
      }
      if (count < kSome) continue;
      EXPECT_NEAR(squares / static_cast<double>(count), 1, 0.01);  // 7 standard errors
    }
}

TEST(Linear, AgreesWithPyTorch) {
  const Golden golden("linear");
  for (int i = 0; i < golden.cases(); ++i) {
    const Tensor x = golden.tensor(i, "x"), w = golden.tensor(i, "w"), b = golden.optional(i, "b");
    const Tensor dy = golden.tensor(i, "dy"), y = poisoned(dy.shape());
    linear_forward(y, x, w, b);
    expect_close(y, golden.tensor(i, "y"), fmt::format("y of case {}", i));

    const Tensor dx = poisoned(x.shape()), dw(w.shape()), db = b.defined() ? Tensor(b.shape()) : Tensor();
    linear_backward(dx, dw, db, dy, x, w);
    expect_close(dx, golden.tensor(i, "dx"), fmt::format("dx of case {}", i));
    expect_close(dw, golden.tensor(i, "dw"), fmt::format("dw of case {}", i));
    if (b.defined()) expect_close(db, golden.tensor(i, "db"), fmt::format("db of case {}", i));

    // A second call adds to the parameters' gradients; without dx it leaves dx alone.
    linear_backward(Tensor(), dw, db, dy, x, w);
    const Tensor twice = golden.tensor(i, "dw");
    for (float& value : twice.span()) value *= 2;
    expect_close(dw, twice, fmt::format("dw of case {}, twice", i));
  }
}

TEST(Linear, SharesOutTheColumnsOfFewRows) {
  const std::int64_t rows = 5, in = 900, out = 1001;
  const Tensor x = normal({rows, in}, 1), w = normal({out, in}, 2), b = normal({out}, 3);
  const Tensor dy = normal({rows, out}, 4), y = poisoned({rows, out}), dx = poisoned({rows, in});
  linear_forward(y, x, w, b);
  linear_backward(dx, Tensor(w.shape()), Tensor(b.shape()), dy, x, w);
  const Tensor expected_y({rows, out}), expected_dx({rows, in});
  for (std::int64_t row = 0; row < rows; ++row) {
    std::vector<double> gradient(static_cast<std::size_t>(in));
    for (std::int64_t o = 0; o < out; ++o) {
      double sum = b.data()[o];
      for (std::int64_t i = 0; i < in; ++i) {
        const double weight = w.data()[o * in + i];
        sum += x.data()[row * in + i] * weight;
        gradient[static_cast<std::size_t>(i)] += dy.data()[row * out + o] * weight;
      }
      expected_y.data()[row * out + o] = static_cast<float>(sum);
    }
    for (std::int64_t i = 0; i < in; ++i)
      expected_dx.data()[row * in + i] = static_cast<float>(gradient[static_cast<std::size_t>(i)]);
  }
  expect_close(y, expected_y, "y", 2e-6);
  expect_close(dx, expected_dx, "dx", 2e-6);
}

TEST(Linear, TakesNoRowsAtAll) {
  const Tensor w = normal({3, 4}, 1), x({0, 4}), y({0, 3}), dw({3, 4}), db({3});
  linear_forward(y, x, w, db);
  linear_backward(x, dw, db, y, x, w);
  for (const float value : dw.span()) EXPECT_EQ(value, 0);
}

TEST(Linear, NamesBothSidesOfAMismatch) {
  const Tensor x({2, 4}), w({3, 4}), b({3}), y({2, 3});
  expect_error("linear_forward: the last dimension of x must be 4, but its shape is (2, 5)", [&] {
    linear_forward(y, Tensor({2, 5}), w, b);
  });
  expect_error("linear_forward: the last dimension of y must be 3, but its shape is (2, 4)",
               [&] { linear_forward(x, x, w, b); });
  expect_error("linear_forward: y must have 2 rows, but its shape is (7, 3)", [&] {
    linear_forward(Tensor({7, 3}), x, w, b);
  });
  expect_error("linear_forward: w must have 2 dimensions, but its shape is (3)",
               [&] { linear_forward(y, x, b, b); });
  expect_error("linear_forward: b must have shape (3), but it has (1, 3)", [&] {
    linear_forward(y, x, w, Tensor({1, 3}));
  });
  expect_error("linear_forward: x is not defined", [&] { linear_forward(y, Tensor(), w, b); });
  expect_error("linear_forward: x must be f32, but it is i32", [&] {
    linear_forward(y, Tensor({2, 4}, DType::i32), w, b);
  });
  expect_error("linear_backward: dw has shape (4, 3), but w has (3, 4)", [&] {
    linear_backward(x, Tensor({4, 3}), b, y, x, w);
  });
  expect_error("linear_backward: dy must have 2 rows, but its shape is (1, 3)", [&] {
    linear_backward(x, w, b, Tensor({1, 3}), x, w);
  });
  expect_error("linear_backward: dx must have 2 rows, but its shape is (1, 4)", [&] {
    linear_backward(Tensor({1, 4}), w, b, y, x, w);
  });
}

}  // namespace
}  // namespace llm
