// Checks of the exercises of chapter 6 on layers and losses that are cut. Expected numbers: by hand, or what
// the library makes of the whole.
#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "ch06_multi_gpu/exercises.h"
#include "common/core/philox.h"
#include "common/ops/ops.h"
#include "tests/exercises/exercise_test.h"
#include "tests/exercises/group.h"

namespace llm::exercises {
namespace {

// ---- 6.3 ------------------------------------------------------------------------------------------

using ch06::LinearShard;
using ch06::Matrix;

Matrix matrix(std::size_t rows, std::size_t columns, std::vector<float> numbers) {
  Matrix m(rows, columns);
  m.numbers = std::move(numbers);
  return m;
}
Matrix random_matrix(std::size_t rows, std::size_t columns, std::uint64_t stream) {
  Matrix m(rows, columns);
  const Philox philox{6, stream};
  for (std::size_t i = 0; i < m.numbers.size(); ++i) m.numbers[i] = philox.normal(i);
  return m;
}
Shape shape_of(const Matrix& m) {
  return {static_cast<std::int64_t>(m.rows), static_cast<std::int64_t>(m.columns)};
}
Tensor tensor(const Matrix& m) {
  return Tensor::from(m.numbers, shape_of(m));
}
Tensor tensor(std::span<const float> numbers) {
  return Tensor::from(numbers, {static_cast<std::int64_t>(numbers.size())});
}
/// Columns [begin, end).
Matrix columns_of(const Matrix& m, std::size_t begin, std::size_t end) {
  Matrix part(m.rows, end - begin);
  for (std::size_t r = 0; r < m.rows; ++r)
    for (std::size_t c = begin; c < end; ++c) part(r, c - begin) = m(r, c);
  return part;
}
Matrix rows_of(const Matrix& m, std::size_t begin, std::size_t end) {
  Matrix part(end - begin, m.columns);
  std::copy_n(m.numbers.begin() + static_cast<std::ptrdiff_t>(begin * m.columns), part.numbers.size(),
              part.numbers.begin());
  return part;
}
/// Checks a matrix of a rank that ran in a thread of its own.
void expect_matrix(const Matrix& got, const Matrix& expected, std::string_view hint) {
  if (got.rows != expected.rows || got.columns != expected.columns)
    return report_difference("the shape", to_string(shape_of(expected)), to_string(shape_of(got)), hint);
  expect_close(got.numbers, expected.numbers, shape_of(expected), hint, {1e-4, 1e-4});
}

/// A layer and what the library makes of it, whole.
struct WholeLayer {
  Matrix x, w, dy;
  std::vector<float> b;
  Matrix y, dx, dw;
  std::vector<float> db;

  WholeLayer(std::size_t n, std::size_t in, std::size_t out)
      : x(random_matrix(n, in, 1)),
        w(random_matrix(out, in, 2)),
        dy(random_matrix(n, out, 3)),
        b(random_matrix(1, out, 4).numbers),
        y(n, out),
        dx(n, in),
        dw(out, in),
        db(out) {
    const Tensor ty(shape_of(y)), tdx(shape_of(x)), tdw(shape_of(w)), tdb({static_cast<std::int64_t>(out)});
    linear_forward(ty, tensor(x), tensor(w), tensor(b));
    linear_backward(tdx, tdw, tdb, tensor(dy), tensor(x), tensor(w));
    const auto take = [](std::vector<float>& to, const Tensor& from) {
      to.assign(from.span().begin(), from.span().end());
    };
    take(y.numbers, ty);
    take(dx.numbers, tdx);
    take(dw.numbers, tdw);
    take(db, tdb);
  }
};
LinearShard zeros_like(const LinearShard& shard) {
  return {Matrix(shard.w.rows, shard.w.columns), std::vector<float>(shard.b.size())};
}
std::vector<float> doubled(std::vector<float> x) {
  for (float& v : x) v *= 2;
  return x;
}

TEST(Exercise_6_3, TakesRowsOfTheWeight) {
  const Matrix w = matrix(4, 3, {0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32});
  const std::vector<float> b = {5, 6, 7, 8};
  const LinearShard shard = ch06::column_shard(w, b, 1, 2);
  expect_matrix(shard.w, matrix(2, 3, {20, 21, 22, 30, 31, 32}),
                "outputs 2 and 3 are rows 2 and 3 of w (O, I)");
  expect_close(shard.b, std::vector<float>{7, 8}, "each output has its bias");
}

TEST(Exercise_6_3, ComputesItsOutputs) {
  // By hand: x = (1, 2), the rows of w are (1, 0), (3, -1).
  const LinearShard shard{matrix(2, 2, {1, 0, 3, -1}), {0.5F, 10}};
  expect_matrix(ch06::column_forward(matrix(1, 2, {1, 2}), shard), matrix(1, 2, {1.5F, 11}),
                "y = x w^T + b with the rank's rows of w");
}

TEST(Exercise_6_3, SumsTheInputsGradientOverTheRanks) {
  // By hand: rank r has w = (r + 1) and dy = 1, so dx is 1 + 2 on both.
  std::vector<Matrix> dx(2);
  if (!run_group(2, [&](GroupRank& group) {
        const auto r = static_cast<std::size_t>(group.rank);
        const LinearShard shard{matrix(1, 1, {static_cast<float>(r + 1)}), {0}};
        LinearShard gradient = zeros_like(shard);
        dx[r] = ch06::column_backward(gradient, matrix(1, 1, {1}), matrix(1, 1, {1}), shard, group.sum);
      }))
    return;
  for (const Matrix& m : dx)
    expect_matrix(m, matrix(1, 1, {3}),
                  "x went into the outputs of all ranks, so its gradient is a sum over them");
}

TEST(Exercise_6_3, ColumnsFollowTheWholeLayer) {
  for (const std::size_t ranks : {1, 2, 3}) {
    const WholeLayer whole(5, 7, 6);
    std::vector<Matrix> y(ranks), dx(ranks);
    std::vector<LinearShard> gradients(ranks);
    if (!run_group(static_cast<int>(ranks), [&](GroupRank& group) {
          const auto r = static_cast<std::size_t>(group.rank);
          const std::size_t share = 6 / ranks;
          const LinearShard shard{rows_of(whole.w, r * share, (r + 1) * share),
                                  {whole.b.begin() + static_cast<std::ptrdiff_t>(r * share),
                                   whole.b.begin() + static_cast<std::ptrdiff_t>((r + 1) * share)}};
          y[r] = ch06::column_forward(whole.x, shard);
          const Matrix dy = columns_of(whole.dy, r * share, (r + 1) * share);
          gradients[r] = zeros_like(shard);
          ch06::column_backward(gradients[r], dy, whole.x, shard, group.sum);
          dx[r] = ch06::column_backward(gradients[r], dy, whole.x, shard, group.sum);  // once more
        }))
      return;
    for (std::size_t r = 0; r < ranks; ++r) {
      const std::size_t begin = r * 6 / ranks, end = (r + 1) * 6 / ranks;
      expect_matrix(y[r], columns_of(whole.y, begin, end), "the rank's columns of the whole y");
      expect_matrix(dx[r], whole.dx, "dx is whole, on every rank");
      Matrix dw = rows_of(whole.dw, begin, end);
      dw.numbers = doubled(dw.numbers);
      expect_matrix(gradients[r].w, dw,
                    "gradients of weights add up from call to call, and are not summed over ranks");
      expect_close(gradients[r].b,
                   doubled({whole.db.begin() + static_cast<std::ptrdiff_t>(begin),
                            whole.db.begin() + static_cast<std::ptrdiff_t>(end)}),
                   "each rank has the bias of its outputs, and its gradient", {1e-4, 1e-4});
    }
  }
}

TEST(Exercise_6_3, TakesColumnsOfTheWeight) {
  const Matrix w = matrix(2, 4, {0, 1, 2, 3, 10, 11, 12, 13});
  const std::vector<float> b = {5, 6};
  const LinearShard shard = ch06::row_shard(w, b, 1, 2);
  expect_matrix(shard.w, matrix(2, 2, {2, 3, 12, 13}), "inputs 2 and 3 are columns 2 and 3 of w (O, I)");
  expect_close(shard.b, b, "every rank has the whole bias");
}

TEST(Exercise_6_3, SumsTheOutputsAndAddsTheBiasOnce) {
  // By hand: rank r has x = 1 and w = (r + 1), so y is 1 + 2 + 0.5 on both.
  std::vector<Matrix> y(2);
  if (!run_group(2, [&](GroupRank& group) {
        const auto r = static_cast<std::size_t>(group.rank);
        y[r] = ch06::row_forward(matrix(1, 1, {1}), {matrix(1, 1, {static_cast<float>(r + 1)}), {0.5F}},
                                 group.sum);
      }))
    return;
  for (const Matrix& m : y)
    expect_matrix(m, matrix(1, 1, {3.5F}), "the products are summed over the ranks, the bias is there once");
}

TEST(Exercise_6_3, RowsFollowTheWholeLayer) {
  for (const std::size_t ranks : {1, 2, 4}) {
    const WholeLayer whole(5, 8, 3);
    std::vector<Matrix> y(ranks), dx(ranks);
    std::vector<LinearShard> gradients(ranks);
    if (!run_group(static_cast<int>(ranks), [&](GroupRank& group) {
          const auto r = static_cast<std::size_t>(group.rank);
          const std::size_t begin = r * 8 / ranks, end = (r + 1) * 8 / ranks;
          const LinearShard shard{columns_of(whole.w, begin, end), whole.b};
          const Matrix x = columns_of(whole.x, begin, end);
          y[r] = ch06::row_forward(x, shard, group.sum);
          gradients[r] = zeros_like(shard);
          ch06::row_backward(gradients[r], whole.dy, x, shard);
          dx[r] = ch06::row_backward(gradients[r], whole.dy, x, shard);  // once more
        }))
      return;
    for (std::size_t r = 0; r < ranks; ++r) {
      const std::size_t begin = r * 8 / ranks, end = (r + 1) * 8 / ranks;
      expect_matrix(y[r], whole.y, "y is whole, on every rank");
      expect_matrix(dx[r], columns_of(whole.dx, begin, end), "the gradient of the rank's own inputs");
      Matrix dw = columns_of(whole.dw, begin, end);
      dw.numbers = doubled(dw.numbers);
      expect_matrix(gradients[r].w, dw, "gradients of weights add up from call to call");
      expect_close(gradients[r].b, doubled(whole.db),
                   "every rank has the whole dy, so every rank has the whole gradient of the bias",
                   {1e-4, 1e-4});
    }
  }
}

// ---- 6.4 ------------------------------------------------------------------------------------------

struct SharedLoss {
  std::vector<std::vector<float>> losses;
  std::vector<Matrix> gradients;
  std::size_t reduced = 0;
  bool ran = false;
};
/// The exercise with shares that end at `ends`.
SharedLoss shared_loss(const Matrix& logits, const std::vector<std::int32_t>& targets,
                       std::vector<std::size_t> ends, float scale) {
  const std::size_t ranks = ends.size();
  SharedLoss result{std::vector<std::vector<float>>(ranks), std::vector<Matrix>(ranks)};
  std::vector<std::size_t> reduced(ranks);
  result.ran = run_group(static_cast<int>(ranks), [&](GroupRank& group) {
    const auto r = static_cast<std::size_t>(group.rank);
    const std::size_t begin = r == 0 ? 0 : ends[r - 1];
    Matrix mine = columns_of(logits, begin, ends[r]);
    result.losses[r] = ch06::shard_cross_entropy(mine, targets, static_cast<std::int64_t>(begin), scale,
                                                 group.most, group.sum);
    result.gradients[r] = std::move(mine);
    reduced[r] = group.reduced;
  });
  result.reduced = reduced[0];
  return result;
}

TEST(Exercise_6_4, TwoLogitsOnTwoRanks) {
  // By hand: logits 0 and log 3 have the probabilities 1/4 and 3/4; the target is the second.
  const SharedLoss got = shared_loss(matrix(1, 2, {0, std::log(3.0F)}), {1}, {1, 2}, 1);
  if (!got.ran) return;
  for (const auto& losses : got.losses)
    expect_close(losses, std::vector<float>{std::log(4.0F / 3)},
                 "the maximum, the sum of exponentials and the target's logit are those of all ranks");
  expect_matrix(got.gradients[0], matrix(1, 1, {0.25F}), "softmax divides by the sum over all ranks");
  expect_matrix(got.gradients[1], matrix(1, 1, {-0.25F}),
                "1 is taken off where the target is, on one rank only");
}

TEST(Exercise_6_4, FollowsTheWholeVocabulary) {
  const std::size_t N = 6, V = 11;
  const Matrix logits = random_matrix(N, V, 5);
  const std::vector<std::int32_t> targets = {0, 3, 4, 10, 7, 4};
  const Tensor losses({static_cast<std::int64_t>(N)}), dlogits(shape_of(logits));
  const Tensor ids = Tensor::from(targets, {static_cast<std::int64_t>(N)});
  cross_entropy_forward(losses, tensor(logits), ids);
  cross_entropy_backward(dlogits, tensor(logits), ids, 0.25F);
  Matrix expected(N, V);
  expected.numbers.assign(dlogits.span().begin(), dlogits.span().end());
  for (const std::vector<std::size_t>& ends : {std::vector<std::size_t>{V}, {4, V}, {4, 5, V}}) {
    const SharedLoss got = shared_loss(logits, targets, ends, 0.25F);
    if (!got.ran) return;
    for (std::size_t r = 0; r < ends.size(); ++r) {
      expect_close(got.losses[r], losses.span(), "every rank has the loss of every row", {1e-4, 1e-5});
      expect_matrix(got.gradients[r], columns_of(expected, r == 0 ? 0 : ends[r - 1], ends[r]),
                    "the rank's columns of scale (softmax - one_hot)");
    }
  }
}

TEST(Exercise_6_4, SurvivesLargeLogits) {
  const SharedLoss got = shared_loss(matrix(2, 3, {1000, 0, 0, -5000, 0, -9000}), {0, 1}, {1, 3}, 1);
  if (!got.ran) return;
  for (const auto& losses : got.losses)
    expect_close(losses, std::vector<float>{0, 0}, "take the largest logit of all ranks off before exp");
  expect_matrix(got.gradients[0], matrix(2, 1, {0, 0}), "the largest logit of all ranks, not of this one");
}

TEST(Exercise_6_4, SendsThreeNumbersPerRow) {
  const SharedLoss got = shared_loss(random_matrix(4, 30, 6), {0, 9, 19, 29}, {10, 20, 30}, 1);
  if (!got.ran) return;
  expect_equal(got.reduced <= 3 * 4, true,
               "per row the largest logit, the sum and the target's logit are reduced",
               "at most 12 numbers reduced");
}

}  // namespace
}  // namespace llm::exercises
