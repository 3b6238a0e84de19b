// Checks of the exercises of chapter 6. Expected numbers: by hand, from the papers where said so.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "ch06_multi_gpu/exercises.h"
#include "common/core/error.h"
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

// ---- 6.5 and 6.6 ----------------------------------------------------------------------------------

/// "F0 F1 B0 B1".
std::string text(const std::vector<ch06::Pass>& passes) {
  std::string result;
  for (const ch06::Pass& pass : passes) {
    if (!result.empty()) result += ' ';
    result += pass.kind + std::to_string(pass.micro_batch);
  }
  return result;
}

// ---- 6.5 ------------------------------------------------------------------------------------------

TEST(Exercise_6_5, AllForwardThenAllBackward) {
  expect_equal(text(ch06::gpipe(0, 2, 3)), "F0 F1 F2 B0 B1 B2",
               "all forward passes first, both in ascending order");
}

TEST(Exercise_6_5, IsTheSameOnEveryRank) {
  for (int rank = 0; rank < 4; ++rank)
    expect_equal(text(ch06::gpipe(rank, 4, 5)), "F0 F1 F2 F3 F4 B0 B1 B2 B3 B4");
  expect_equal(text(ch06::gpipe(0, 1, 1)), "F0 B0");
}

// ---- 6.6 ------------------------------------------------------------------------------------------

TEST(Exercise_6_6, TheLastRankAlternates) {
  expect_equal(text(ch06::one_f_one_b(1, 2, 3)), "F0 B0 F1 B1 F2 B2",
               "the last rank has nobody behind it: no warm-up");
}

TEST(Exercise_6_6, TheFirstRankWarmsUp) {
  expect_equal(text(ch06::one_f_one_b(0, 2, 3)), "F0 F1 B0 F2 B1 B2",
               "one rank is behind it: one forward pass, then forward and backward in turn");
  // Narayanan et al. 2021, figure 4 (top), counted from 0.
  expect_equal(text(ch06::one_f_one_b(0, 4, 8)), "F0 F1 F2 F3 B0 F4 B1 F5 B2 F6 B3 F7 B4 B5 B6 B7");
  expect_equal(text(ch06::one_f_one_b(2, 4, 8)), "F0 F1 B0 F2 B1 F3 B2 F4 B3 F5 B4 F6 B5 F7 B6 B7");
}

TEST(Exercise_6_6, ManagesWithFewMicroBatches) {
  expect_equal(text(ch06::one_f_one_b(0, 8, 2)), "F0 F1 B0 B1",
               "there may be fewer micro-batches than ranks behind");
  expect_equal(text(ch06::one_f_one_b(6, 8, 2)), "F0 F1 B0 B1");
  expect_equal(text(ch06::one_f_one_b(0, 1, 2)), "F0 B0 F1 B1");
}

TEST(Exercise_6_6, HoldsNoMoreThanItMust) {
  for (int ranks = 1; ranks <= 8; ++ranks)
    for (int rank = 0; rank < ranks; ++rank) {
      int alive = 0, most = 0;
      const std::vector<ch06::Pass> passes = ch06::one_f_one_b(rank, ranks, 16);
      ASSERT_EQ(passes.size(), 32U);
      for (const ch06::Pass& pass : passes) most = std::max(most, alive += pass.kind == 'F' ? 1 : -1);
      expect_equal(most, ranks - rank, "", "micro-batches in flight");
    }
}

// ---- 6.7 ------------------------------------------------------------------------------------------

std::string text(const ch06::Range& range) {
  return fmt::format("[{}, {})", range.begin, range.end);
}

TEST(Exercise_6_7, CutsEvenly) {
  expect_equal(text(ch06::zero1_part(12, 0, 3, 1)), "[0, 4)");
  expect_equal(text(ch06::zero1_part(12, 2, 3, 1)), "[8, 12)");
}

TEST(Exercise_6_7, RoundsUp) {
  expect_equal(text(ch06::zero1_part(10, 0, 3, 1)), "[0, 4)",
               "10 / 3, rounded up, is 4: nothing may be left over");
  expect_equal(text(ch06::zero1_part(10, 2, 3, 1)), "[8, 10)", "the last part ends where the buffer ends");
}

TEST(Exercise_6_7, KeepsTheAlignment) {
  // 10 over 3 is 4, and the next multiple of 8 is 8.
  expect_equal(text(ch06::zero1_part(10, 0, 3, 8)), "[0, 8)",
               "the size of a part is a multiple of the alignment");
  expect_equal(text(ch06::zero1_part(10, 1, 3, 8)), "[8, 10)");
  expect_equal(text(ch06::zero1_part(10, 2, 3, 8)), "[10, 10)",
               "an empty part begins and ends at the end of the buffer");
}

TEST(Exercise_6_7, CoversEverythingOnce) {
  for (const std::int64_t elements : {0, 1, 7, 64, 1000, 944896})
    for (const int ranks : {1, 2, 3, 8})
      for (const std::int64_t alignment : {1, 4, 16}) {
        std::int64_t next = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const ch06::Range part = ch06::zero1_part(elements, rank, ranks, alignment);
          expect_equal(part.begin, next, "parts follow each other without a gap", "the begin");
          next = part.end;
        }
        expect_equal(next, elements, "together the parts are the whole buffer", "the last end");
      }
}

// ---- 6.9 ------------------------------------------------------------------------------------------

/// parameters, gradients, optimizer, activations
std::vector<double> list(const ch06::Memory& m) {
  return {m.parameters, m.gradients, m.optimizer, m.activations};
}

TEST(Exercise_6_9, OneDevice) {
  // By hand: 2 layers of 12 x 100 parameters; activations 34 x 7 x 3 x 10 bytes for each layer.
  expect_close(list(ch06::rank_memory(2, 10, 7, 3, 1, 1, 1, 0, 4, 0)),
               std::vector<double>{4800, 4800, 28800, 14280},
               "2, 2 and 12 bytes for each of 2 x 12 x 10^2 parameters; 34 s b h bytes per layer");
}

TEST(Exercise_6_9, ZeroStages) {
  // Rajbhandari et al. 2020, figure 1, with the 24 million parameters of 2 layers of h = 1000 and d = 4.
  const double P = 24e6;
  const std::vector<std::vector<double>> expected = {{2 * P, 2 * P, 12 * P, 0},
                                                     {2 * P, 2 * P, 3 * P, 0},
                                                     {2 * P, P / 2, 3 * P, 0},
                                                     {P / 2, P / 2, 3 * P, 0}};
  for (int zero = 0; zero <= 3; ++zero) {
    std::vector<double> got = list(ch06::rank_memory(2, 1000, 7, 1, 1, 1, 4, zero, 2, 0));
    got[3] = 0;
    expect_close(got, expected[static_cast<std::size_t>(zero)],
                 "ZeRO-1 divides the optimizer by d, ZeRO-2 the gradients too, ZeRO-3 also the parameters");
  }
}

TEST(Exercise_6_9, DataParallelismLeavesActivationsAlone) {
  const ch06::Memory one = ch06::rank_memory(2, 10, 7, 3, 1, 1, 1, 3, 4, 0);
  const ch06::Memory many = ch06::rank_memory(2, 10, 7, 3, 1, 1, 8, 3, 4, 0);
  expect_close(many.activations, one.activations, "every replica has a micro-batch of its own");
}

TEST(Exercise_6_9, PipelineAndTensor) {
  // 8 layers over 4 stages and 2 tensor-parallel ranks: each rank has half of 2 layers.
  const double layer = 34.0 * 7 * 3 * 10 / 2;
  for (int stage = 0; stage < 4; ++stage)
    expect_close(list(ch06::rank_memory(8, 10, 7, 3, 4, 2, 1, 0, 16, stage)),
                 std::vector<double>{2400, 2400, 14400, (4 - stage) * 2 * layer},
                 "stage i of p holds p - i micro-batches of L / p layers");
  expect_close(ch06::rank_memory(8, 10, 7, 3, 4, 2, 1, 0, 2, 0).activations, 2 * 2 * layer,
               "with two micro-batches no stage holds more than two");
}

TEST(Exercise_6_9, Gpt175B) {
  // 96 layers of 12,288 over 8 stages and 8 ranks: 2.717 billion parameters each (more than 32 bits count),
  // 16 bytes each.
  const ch06::Memory m = ch06::rank_memory(96, 12288, 2048, 1, 8, 8, 1, 0, 64, 0);
  expect_close(m.parameters + m.gradients + m.optimizer, 16 * 2717908992.0);
  expect_close(m.activations, 96 * 34.0 * 2048 * 12288 / 8,
               "the first stage holds L layers' worth, as if there were no pipeline");
}

constexpr auto kPatience = std::chrono::milliseconds(1500);

/// Runs body(rank) on a thread per rank. The first exception is thrown again.
void on_ranks(int ranks, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      try {
        body(rank);
      } catch (...) {
        errors[static_cast<std::size_t>(rank)] = std::current_exception();
      }
    });
  for (auto& thread : threads) thread.join();
  for (const auto& error : errors)
    if (error) std::rethrow_exception(error);
}

// ---- 6.1 ------------------------------------------------------------------------------------------

/// What is on its way between neighbours.
struct Wires {
  explicit Wires(int ranks) : full(static_cast<std::size_t>(ranks)), value(full.size()), sent(full.size()) {}
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<bool> full;
  std::vector<std::vector<float>> value;  // from rank i to its right neighbour
  std::vector<std::size_t> sent;
};

struct TestRing : ch06::Ring {
  TestRing(Wires& w, int r, int n)
      : wires(w), rank(static_cast<std::size_t>(r)), ranks(static_cast<std::size_t>(n)) {}
  void pass(std::span<const float> out, std::span<float> in) override {
    std::unique_lock lock(wires.mutex);
    const std::size_t left = (rank + ranks - 1) % ranks;
    wait(lock, [&] { return !wires.full[rank]; });
    wires.value[rank].assign(out.begin(), out.end());
    wires.full[rank] = true;
    wires.sent[rank] += out.size();
    wires.changed.notify_all();
    wait(lock, [&] { return wires.full[left]; });
    check(wires.value[left].size() == in.size(), "rank {} sent {} numbers, but rank {} expected {}", left,
          wires.value[left].size(), rank, in.size());
    std::copy(wires.value[left].begin(), wires.value[left].end(), in.begin());
    wires.full[left] = false;
    wires.changed.notify_all();
  }
  void wait(std::unique_lock<std::mutex>& lock, const std::function<bool()>& ready) {
    check(wires.changed.wait_for(lock, kPatience, ready),
          "rank {} waits for a neighbour that does not come: all ranks must make as many passes", rank);
  }
  Wires& wires;
  std::size_t rank, ranks;
};

/// Element i of rank r is 10^r (i + 1): the sum shows who is in it.
void check_ring(int ranks, std::size_t piece) {
  Wires wires(ranks);
  const std::size_t size = piece * static_cast<std::size_t>(ranks);
  std::vector<std::vector<float>> x(static_cast<std::size_t>(ranks));
  std::vector<float> expected(size);
  for (std::size_t r = 0; r < x.size(); ++r)
    for (std::size_t i = 0; i < size; ++i) {
      x[r].push_back(static_cast<float>(std::pow(10, r)) * static_cast<float>(i + 1));
      expected[i] += x[r].back();
    }
  on_ranks(ranks, [&](int rank) {
    TestRing ring(wires, rank, ranks);
    ch06::ring_all_reduce(x[static_cast<std::size_t>(rank)], rank, ranks, ring);
  });
  for (std::size_t r = 0; r < x.size(); ++r)
    expect_close(x[r], expected, "digit d of an element counts how often rank d was added");
  for (const std::size_t sent : wires.sent)
    expect_equal(static_cast<std::int64_t>(sent), static_cast<std::int64_t>(2 * (size - piece)),
                 "each rank sends 2 (ranks - 1) pieces");
}

TEST(Exercise_6_1, TwoRanks) {
  check_ring(2, 1);
}
TEST(Exercise_6_1, MoreRanksAndLongerPieces) {
  check_ring(3, 2);
  check_ring(5, 7);
}
TEST(Exercise_6_1, OneRankHasNothingToDo) {
  check_ring(1, 4);
}

// ---- 6.2 ------------------------------------------------------------------------------------------

TEST(Exercise_6_2, FillsBucketsFromTheLastGradient) {
  std::vector<float> a = {1, 2}, b = {3}, c = {4, 5, 6}, d = {7, 8};
  std::vector<std::vector<float>> buckets;
  const auto sum_of_two = [&](std::span<float> bucket) {
    buckets.emplace_back(bucket.begin(), bucket.end());
    for (float& g : bucket) g += 100;  // what the other rank has
  };
  ch06::average_in_buckets({a, b, c, d}, 5, 2, sum_of_two);
  ASSERT_EQ(buckets.size(), 2u) << "d and c fill a bucket of 5; b and a make another";
  expect_close(buckets[0], std::vector<float>{7, 8, 4, 5, 6}, "the last gradient comes first");
  expect_close(buckets[1], std::vector<float>{3, 1, 2}, "the last gradient comes first");
  expect_close(a, std::vector<float>{50.5F, 51}, "the average is the sum divided by the ranks");
  expect_close(b, std::vector<float>{51.5F});
  expect_close(c, std::vector<float>{52, 52.5F, 53});
  expect_close(d, std::vector<float>{53.5F, 54});
}

TEST(Exercise_6_2, ALargeGradientIsABucketOfItsOwn) {
  std::vector<float> a = {1}, b(10, 2), c = {3};
  std::vector<std::int64_t> sizes;
  ch06::average_in_buckets({a, b, c}, 4, 1, [&](std::span<float> bucket) {
    sizes.push_back(static_cast<std::int64_t>(bucket.size()));
  });
  expect_equal(sizes, std::vector<std::int64_t>{1, 10, 1}, "a gradient that is larger alone goes alone");
}

TEST(Exercise_6_2, ABucketMayBeExactlyFull) {
  std::vector<float> a(2), b(2), c(2);
  std::vector<std::int64_t> sizes;
  ch06::average_in_buckets({a, b, c}, 4, 1, [&](std::span<float> bucket) {
    sizes.push_back(static_cast<std::int64_t>(bucket.size()));
  });
  expect_equal(sizes, std::vector<std::int64_t>{4, 2}, "at most bucket_size elements: so as many are fine");
  ch06::average_in_buckets({}, 4, 1, [&](std::span<float>) { FAIL() << "there is nothing to reduce"; });
}

// ---- 6.8 ------------------------------------------------------------------------------------------

struct RecordedLayers : ch06::ShardedLayers {
  explicit RecordedLayers(int n) : state(static_cast<std::size_t>(n)) {}
  enum State { away, coming, here };
  std::vector<State> state;
  std::vector<std::string> log;
  std::string wrong;
  int gradients = 0, forwards = 0, overlapped = 0;

  State& of(int layer) { return state.at(static_cast<std::size_t>(layer)); }
  void note(const std::string& what, int layer) { log.push_back(fmt::format("{} {}", what, layer)); }
  void expect(bool condition, const std::string& sentence) {
    if (!condition && wrong.empty()) wrong = sentence;
  }
  void start_gather(int layer) override {
    note("start", layer);
    expect(of(layer) == away, fmt::format("layer {} is gathered though it is here or under way", layer));
    of(layer) = coming;
    expect(std::ranges::count(state, away) >= static_cast<std::ptrdiff_t>(state.size()) - 2,
           "there is room for the values of two layers only");
  }
  void finish_gather(int layer) override {
    note("finish", layer);
    expect(of(layer) == coming, fmt::format("the gather of layer {} was not started", layer));
    of(layer) = here;
  }
  void compute(const char* what, int layer) {
    note(what, layer);
    expect(of(layer) == here, fmt::format("the {} of layer {} needs values that are not here", what, layer));
    overlapped += static_cast<int>(std::ranges::count(state, coming));
  }
  void forward(int layer) override {
    compute("forward", layer);
    expect(forwards++ == layer, "forward goes from layer 0 on");
  }
  void backward(int layer) override {
    compute("backward", layer);
    expect(gradients++ == 0, "gradients of two layers are there: reduce each layer's at once");
  }
  void reduce_gradients(int layer) override {
    note("reduce", layer);
    expect(gradients-- == 1, fmt::format("layer {} has no gradients to reduce", layer));
  }
  void release(int layer) override {
    note("release", layer);
    expect(of(layer) == here, fmt::format("layer {} is released, but is not here", layer));
    of(layer) = away;
  }
};

void check_zero3(int layers) {
  RecordedLayers model(layers);
  ch06::zero3_step(layers, model);
  EXPECT_EQ(model.wrong, "") << "in this order: " << fmt::format("{}", fmt::join(model.log, ", "));
  std::vector<std::string> passes, expected;
  for (const std::string& entry : model.log)
    if (entry.starts_with("forward") || entry.starts_with("backward")) passes.push_back(entry);
  for (int i = 0; i < layers; ++i) expected.push_back(fmt::format("forward {}", i));
  for (int i = layers; i-- > 0;) expected.push_back(fmt::format("backward {}", i));
  expect_equal(passes, expected, "forward from the first layer to the last, then backward");
  EXPECT_EQ(std::ranges::count(model.state, RecordedLayers::away), layers) << "values are left at the end";
  EXPECT_EQ(model.gradients, 0) << "gradients are left at the end";
  EXPECT_EQ(model.overlapped, 2 * (layers - 1))
      << "every gather but the first of each direction should be under "
         "way while the layer before is computed";
}

TEST(Exercise_6_8, ThreeLayers) {
  check_zero3(3);
}
TEST(Exercise_6_8, OneLayerAndMany) {
  check_zero3(1);
  check_zero3(17);
}

// ---- 6.10 -----------------------------------------------------------------------------------------

/// Rendezvous messages, with a clock per rank that counts rounds: a message ends one round after both were
/// ready.
struct Meeting {
  std::mutex mutex;
  std::condition_variable changed;
  struct Offer {
    float value = 0;
    int ready = 0, done = -1;
  };
  std::map<std::pair<int, int>, Offer> offers;  // (from, to): a send that waits
};

struct TestLine : ch06::BlockingLine {
  TestLine(Meeting& m, int r) : meeting(m), rank(r) {}
  void send(int to, float value) override {
    std::unique_lock lock(meeting.mutex);
    auto& offer = meeting.offers[{rank, to}] = {value, clock, -1};
    meeting.changed.notify_all();
    wait(lock, to, [&] { return offer.done >= 0; });
    clock = offer.done;
    meeting.offers.erase({rank, to});
  }
  float receive(int from) override {
    std::unique_lock lock(meeting.mutex);
    const std::pair key(from, rank);
    wait(lock, from, [&] {
      const auto found = meeting.offers.find(key);
      return found != meeting.offers.end() && found->second.done < 0;
    });
    auto& offer = meeting.offers[key];
    clock = offer.done = std::max(offer.ready, clock) + 1;
    meeting.changed.notify_all();
    return offer.value;
  }
  void wait(std::unique_lock<std::mutex>& lock, int other, const std::function<bool()>& ready) {
    check(meeting.changed.wait_for(lock, kPatience, ready), "a deadlock: rank {} waits for rank {}", rank,
          other);
  }
  Meeting& meeting;
  int rank, clock = 0;
};

void check_line(int ranks) {
  Meeting meeting;
  std::vector<float> left(static_cast<std::size_t>(ranks)), right = left, expected_left = left,
                                                            expected_right = left;
  std::vector<int> rounds(left.size());
  on_ranks(ranks, [&](int rank) {
    TestLine line(meeting, rank);
    const auto got = ch06::exchange_with_neighbours(static_cast<float>(rank + 1), rank, ranks, line);
    const auto i = static_cast<std::size_t>(rank);
    left[i] = got.left;
    right[i] = got.right;
    rounds[i] = line.clock;
  });
  for (int rank = 0; rank < ranks; ++rank) {
    if (rank > 0) expected_left[static_cast<std::size_t>(rank)] = static_cast<float>(rank);
    if (rank + 1 < ranks) expected_right[static_cast<std::size_t>(rank)] = static_cast<float>(rank + 2);
  }
  expect_close(left, expected_left, "the value of rank - 1, and 0 on the first rank");
  expect_close(right, expected_right, "the value of rank + 1, and 0 on the last rank");
  EXPECT_LE(*std::ranges::max_element(rounds), 4)
      << "pairs should talk at the same time, not one after the other";
}

TEST(Exercise_6_10, TwoRanks) {
  check_line(2);
}
TEST(Exercise_6_10, FiveRanks) {
  check_line(5);
}
TEST(Exercise_6_10, ManyRanksTakeNoLonger) {
  check_line(1);
  check_line(16);
}

}  // namespace
}  // namespace llm::exercises
