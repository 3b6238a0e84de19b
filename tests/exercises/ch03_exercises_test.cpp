// Checks the exercises of chapter 3: those on the CPU, then those on the GPU.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "ch03_attention/exercises.h"
#include "common/core/philox.h"
#include "common/ops/ops.h"
#include "tests/exercises/device_test.h"
#include "tests/exercises/exercise_test.h"

namespace llm::exercises {
namespace {

std::vector<float> random_numbers(std::size_t count, std::string_view name) {
  const Philox philox{7, stream_id(name)};
  std::vector<float> x(count);
  for (std::size_t i = 0; i < count; ++i) x[i] = philox.normal(i);
  return x;
}

TEST(Exercise_3_1, MatchesTheFormula) {
  std::vector<float> x = {1, 2, 3};
  ch03::softmax_row(x);
  expect_close(x, std::vector<float>{0.09003057F, 0.24472848F, 0.66524094F},
               "exp(x[i]) over the sum of all exp(x[j])");
  std::vector<float> one = {-4};
  ch03::softmax_row(one);
  expect_close(one, std::vector<float>{1}, "a single entry has all the weight");
}

TEST(Exercise_3_1, SurvivesLargeScores) {
  std::vector<float> x = {1000, 1000, 999};
  ch03::softmax_row(x);
  expect_close(x, std::vector<float>{0.4223188F, 0.4223188F, 0.15536241F},
               "exp(1000) is infinite in a float; what can be subtracted first?");
  std::vector<float> huge = {-1e30F, 1e30F};
  ch03::softmax_row(huge);
  expect_close(huge, std::vector<float>{0, 1}, "subtract the largest entry before exp");
}

TEST(Exercise_3_1, SurvivesVerySmallScores) {
  std::vector<float> x = {-1000, -1001};
  ch03::softmax_row(x);
  expect_close(x, std::vector<float>{0.7310586F, 0.26894143F},
               "all exp(x) are 0 here, unless the largest entry becomes 0 first");
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> masked = {-kInfinity, 0, -kInfinity, 0};
  ch03::softmax_row(masked);
  expect_close(masked, std::vector<float>{0, 0.5F, 0, 0.5F}, "exp(-infinity) is 0");
}

TEST(Exercise_3_2, TheFirstTokenSeesItselfOnly) {
  const std::vector<float> q = {1, 2}, k = {3, 4}, v = {5, 6};
  expect_close(ch03::causal_head(q, k, v, 2), v, "one key has the weight 1, so y = v");
}

TEST(Exercise_3_2, CanBeFollowedByHand) {
  // D = 4, so scores are halved. Token 1: q.k is 0 and 2, scores 0 and 1, weights 0.268941 and 0.731059.
  const std::vector<float> q = {0, 0, 0, 0, 1, 1, 0, 0};
  const std::vector<float> k = {0, 0, 1, 1, 1, 1, 0, 0};
  const std::vector<float> v = {1, 2, 3, 4, 5, 6, 7, 8};
  expect_close(ch03::causal_head(q, k, v, 4),
               std::vector<float>{1, 2, 3, 4, 3.9242343F, 4.9242343F, 5.9242343F, 6.9242343F}, Shape{2, 4},
               "token 1 weighs token 0 with exp(0) and itself with exp(2 / sqrt(4))");
}

TEST(Exercise_3_2, AgreesWithTheLibrary) {
  constexpr std::int64_t T = 9, D = 5;
  const std::vector<float> qkv = random_numbers(T * 3 * D, "exercise 3.2");
  std::vector<float> q, k, v;
  for (std::int64_t t = 0; t < T; ++t)
    for (std::int64_t d = 0; d < D; ++d) {
      q.push_back(qkv[static_cast<std::size_t>(t * 3 * D + d)]);
      k.push_back(qkv[static_cast<std::size_t>(t * 3 * D + D + d)]);
      v.push_back(qkv[static_cast<std::size_t>(t * 3 * D + 2 * D + d)]);
    }
  Tensor y({1, T, D}), weights({1, 1, T, T});
  attention_naive_forward(y, weights, Tensor::from(std::span<const float>(qkv), {1, T, 3 * D}), {.heads = 1});
  expect_close(ch03::causal_head(q, k, v, D), y.span(), Shape{T, D},
               "does token t look at tokens 0 to t, itself included, and at no others?");
}

TEST(Exercise_3_2, SurvivesLargeScores) {
  const std::vector<float> q = {100, 100}, k = {100, 90}, v = {1, 2};
  expect_close(ch03::causal_head(q, k, v, 1), std::vector<float>{1, 1}, Shape{2, 1},
               "the scores are 10000 and 9000: exercise 3.1");
}

TEST(Exercise_3_3, SplitsAsTheContractSays) {
  // One sequence of 2 tokens, 4 channels, 2 heads.
  const std::vector<float> x = {0, 1, 2, 3, 10, 11, 12, 13};
  expect_close(ch03::split_heads(x, 1, 2, 4, 2), std::vector<float>{0, 1, 10, 11, 2, 3, 12, 13},
               Shape{1, 2, 2, 2}, "head 0 gets channels 0 and 1 of all tokens, head 1 the others");
}

TEST(Exercise_3_3, SplitsAndMergesAnyShape) {
  for (const auto& [B, T, H, D] : {std::tuple{2, 3, 2, 5}, {1, 4, 3, 1}, {3, 1, 1, 4}, {2, 5, 4, 3}}) {
    const std::int64_t C = H * D;
    std::vector<float> x(static_cast<std::size_t>(B * T * C));
    std::iota(x.begin(), x.end(), 0.0F);
    std::vector<float> expected;
    for (std::int64_t b = 0; b < B; ++b)
      for (std::int64_t h = 0; h < H; ++h)
        for (std::int64_t t = 0; t < T; ++t)
          for (std::int64_t d = 0; d < D; ++d)
            expected.push_back(static_cast<float>((b * T + t) * C + h * D + d));
    expect_close(ch03::split_heads(x, B, T, C, H), expected, Shape{B, H, T, D}, "split_heads, of x[i] = i");
    expect_close(ch03::merge_heads(expected, B, T, C, H), x, Shape{B, T, C},
                 "merge_heads must undo split_heads");
  }
}

TEST(Exercise_3_4, CanBeFollowedByHand) {
  const std::vector<float> y = {0.25F, 0.75F}, dy = {1, 0};
  expect_close(ch03::softmax_backward_row(dy, y), std::vector<float>{0.1875F, -0.1875F},
               "sum y dy = 0.25, so dx[0] = 0.25 (1 - 0.25)");
}

TEST(Exercise_3_4, IsZeroWhereNothingCanChange) {
  expect_close(ch03::softmax_backward_row(std::vector<float>{3, 3, 3}, std::vector<float>{0.2F, 0.3F, 0.5F}),
               std::vector<float>{0, 0, 0},
               "the weights always sum to 1, so an equal push on all does nothing");
}

TEST(Exercise_3_4, AgreesWithFiniteDifferences) {
  constexpr std::size_t kSize = 7;
  const std::vector<float> x = random_numbers(kSize, "exercise 3.4 x"),
                           dy = random_numbers(kSize, "exercise 3.4 dy");
  const auto softmax = [&](std::size_t moved, double by) {
    std::vector<double> y(kSize);
    double sum = 0;
    for (std::size_t i = 0; i < kSize; ++i) sum += y[i] = std::exp(x[i] + (i == moved ? by : 0.0));
    for (double& entry : y) entry /= sum;
    return y;
  };
  const std::vector<double> exact = softmax(kSize, 0);
  const std::vector<float> y(exact.begin(), exact.end());
  std::vector<float> expected(kSize);
  for (std::size_t i = 0; i < kSize; ++i) {
    const std::vector<double> plus = softmax(i, 1e-5), minus = softmax(i, -1e-5);
    double slope = 0;
    for (std::size_t j = 0; j < kSize; ++j) slope += dy[j] * (plus[j] - minus[j]) / 2e-5;
    expected[i] = static_cast<float>(slope);
  }
  expect_close(ch03::softmax_backward_row(dy, y), expected, "compared with (loss(x + h) - loss(x - h)) / 2h",
               {.relative = 1e-4, .absolute = 1e-6});
}

TEST(Exercise_3_5, CanBeFollowedByHand) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> scores = {1, 2, 3, 4};
  ch03::causal_mask(scores, 2, 2);
  expect_close(scores, std::vector<float>{1, -kInfinity, 3, 4}, Shape{2, 2},
               "token 0 sees itself, token 1 both");
  std::vector<float> kept = {1, 2, 3, 4, 5, 6};
  ch03::causal_mask(kept, 2, 3);
  expect_close(kept, std::vector<float>{1, 2, -kInfinity, 4, 5, 6}, Shape{2, 3},
               "of three tokens the queries are the last two: query 0 is that of token 1");
}

TEST(Exercise_3_5, MasksEveryMatrix) {
  for (const auto& [N, Q, K] : {std::tuple{1, 5, 5}, {3, 4, 4}, {2, 1, 6}, {4, 3, 7}}) {
    std::vector<float> scores(static_cast<std::size_t>(N * Q * K));
    std::iota(scores.begin(), scores.end(), 1.0F);
    std::vector<float> expected = scores;
    for (int n = 0; n < N; ++n)
      for (int i = 0; i < Q; ++i)
        for (int j = K - Q + i + 1; j < K; ++j)
          expected[static_cast<std::size_t>((n * Q + i) * K + j)] = -std::numeric_limits<float>::infinity();
    ch03::causal_mask(scores, Q, K);
    expect_close(scores, expected, Shape{N, Q, K}, "query i is that of token keys - queries + i");
  }
}

TEST(Exercise_3_6, ASingleTokenHandsItsGradientToItsValue) {
  const std::vector<float> q = {1, 2}, k = {3, 4}, v = {5, 6}, dy = {7, 8};
  const ch03::HeadGradients g = ch03::causal_head_backward(dy, q, k, v, 2);
  expect_close(g.dv, dy, "dv: the weight is 1 whatever q and k are, so y = v");
  expect_close(g.dq, std::vector<float>{0, 0}, "dq: the weight is 1 whatever q is");
  expect_close(g.dk, std::vector<float>{0, 0}, "dk: the weight is 1 whatever k is");
}

TEST(Exercise_3_6, AgreesWithTheLibrary) {
  for (const auto& [T, D] : {std::pair<std::int64_t, std::int64_t>{2, 4}, {9, 5}}) {
    const auto size = static_cast<std::size_t>(T * D);
    const std::vector<float> q = random_numbers(size, "exercise 3.6 q"),
                             k = random_numbers(size, "exercise 3.6 k"),
                             v = random_numbers(size, "exercise 3.6 v"),
                             dy = random_numbers(size, "exercise 3.6 dy");
    Tensor qkv({1, T, 3 * D}), dqkv({1, T, 3 * D}), y({1, T, D}), weights({1, 1, T, T});
    const std::vector<float>* parts[] = {&q, &k, &v};
    for (std::int64_t t = 0; t < T; ++t)
      for (std::int64_t p = 0; p < 3; ++p)
        std::copy_n(parts[p]->data() + t * D, D, qkv.data() + (t * 3 + p) * D);
    attention_naive_forward(y, weights, qkv, {.heads = 1});
    attention_naive_backward(dqkv, Tensor::from(std::span<const float>(dy), {1, T, D}), weights, qkv,
                             {.heads = 1});
    std::vector<float> expected[3];
    for (std::int64_t t = 0; t < T; ++t)
      for (std::int64_t p = 0; p < 3; ++p)
        expected[p].insert(expected[p].end(), dqkv.data() + (t * 3 + p) * D,
                           dqkv.data() + (t * 3 + p + 1) * D);
    const ch03::HeadGradients g = ch03::causal_head_backward(dy, q, k, v, D);
    const Tolerance tolerance{.relative = 1e-4, .absolute = 1e-5};
    expect_close(g.dv, expected[2], Shape{T, D}, "dv[j] is the sum of w[t, j] dy[t] over the t that see j",
                 tolerance);
    expect_close(g.dq, expected[0], Shape{T, D}, "dq[t] is the sum of ds[t, j] k[j] / sqrt(D) over j <= t",
                 tolerance);
    expect_close(g.dk, expected[1], Shape{T, D}, "dk[j] is the sum of ds[t, j] q[t] / sqrt(D) over t >= j",
                 tolerance);
  }
}

// ---- On the GPU ----

std::vector<double> softmax_of(std::span<const float> row) {
  const double high = *std::max_element(row.begin(), row.end());
  double sum = 0;
  std::vector<double> y;
  for (const float x : row) sum += y.emplace_back(std::exp(x - high));
  for (double& entry : y) entry /= sum;
  return y;
}

TEST(Exercise_3_7, HasNoMoreElementsThanThreads) {
  const Tensor x = on_device(std::vector<float>{1, 2, 3}), y = on_device(std::vector<float>{10, 20, 30});
  if (!kernels_run([&] { ch03::scale_add(y.data(), x.data(), 0.5F, 3); })) return;
  expect_close(from_device(y), std::vector<float>{10.5F, 21, 31.5F}, "y[i] += a x[i]");
}

TEST(Exercise_3_7, TakesEveryElementOnce) {
  for (const int n : {1, 256, 257, 1000, 3001}) {
    const auto size = static_cast<std::size_t>(n);
    const std::vector<float> x = random_numbers(size, "exercise 3.7 x"),
                             y = random_numbers(size, "exercise 3.7 y");
    std::vector<float> expected(size);
    for (std::size_t i = 0; i < size; ++i) expected[i] = y[i] - 3 * x[i];
    const Tensor dx = on_device(x), dy = on_device(y);
    if (!kernels_run([&] { ch03::scale_add(dy.data(), dx.data(), -3, n); })) return;
    expect_close(from_device(dy), expected, "as many blocks as it takes, and the last may be a part of one");
  }
}

TEST(Exercise_3_7, NeighboursTakeNeighbours) {
  constexpr int kCount = 8192;
  const Tensor x = on_device(std::vector<float>(kCount, 1)), y = on_device(std::vector<float>(kCount, 1));
  Work work;
  if (!kernels_run([&] { ch03::scale_add(y.data(), x.data(), 1, kCount); }, &work)) return;
  if (!work.known) return;
  expect_at_most(
      work.loaded_sectors, 2 * kCount / 8, "sectors of 32 bytes read",
      "the 32 threads of a warp should read 32 numbers that stand side by side: 4 sectors, not 32");
}

void expect_row_sums(int rows, int columns, bool& go_on) {
  const std::vector<float> x = random_numbers(static_cast<std::size_t>(rows * columns), "exercise 3.8");
  std::vector<float> expected;
  for (int r = 0; r < rows; ++r)
    expected.push_back(
        static_cast<float>(std::accumulate(x.begin() + r * columns, x.begin() + (r + 1) * columns, 0.0)));
  const Tensor dx = on_device(x), dy = rubbish_on_device(expected.size());
  Work work;
  go_on = kernels_run([&] { ch03::row_sums(dy.data(), dx.data(), rows, columns); }, &work);
  if (!go_on) return;
  expect_close(
      from_device(dy), expected,
      fmt::format("the sums of {} rows of {} numbers; after exchanges with the lanes 16, 8, 4, 2 and 1 away "
                  "every lane has the sum",
                  rows, columns),
      {.relative = 1e-4, .absolute = 1e-4});
  if (!work.known) return;
  expect_at_most(work.shared, 0, "accesses to shared memory", "shuffles do without it");
  expect_at_most(work.atomics, 0, "atomic operations", "one lane of the warp writes the sum, nobody else");
  expect_at_most(work.loaded, std::int64_t{4} * rows * columns, "bytes read", "every number is needed once");
}

TEST(Exercise_3_8, SumsARowOfOneWarp) {
  const Tensor x = on_device(std::vector<float>(32, 1)), y = rubbish_on_device(1);
  if (!kernels_run([&] { ch03::row_sums(y.data(), x.data(), 1, 32); })) return;
  expect_close(from_device(y), std::vector<float>{32}, "32 ones");
}

TEST(Exercise_3_8, SumsRowsOfAnyLength) {
  bool go_on = true;
  for (const auto& [rows, columns] : {std::pair{1, 33}, {5, 1}, {3, 7}, {7, 64}, {9, 501}})
    if (go_on) expect_row_sums(rows, columns, go_on);
}

TEST(Exercise_3_8, NeighboursReadNeighbours) {
  const Tensor x = on_device(std::vector<float>(4 * 1024, 1)), y = rubbish_on_device(4);
  Work work;
  if (!kernels_run([&] { ch03::row_sums(y.data(), x.data(), 4, 1024); }, &work)) return;
  if (!work.known) return;
  expect_at_most(work.loaded_sectors, 4 * 1024 / 8, "sectors of 32 bytes read",
                 "the lanes of a warp should read numbers side by side: lane 0 the columns 0, 32, 64, ...");
}

/// One of the two softmaxes on rows of several lengths; false if the device reported something.
using SoftmaxKernel = void (*)(float* y, const float* x, int rows, int columns);

bool expect_softmax(SoftmaxKernel softmax, std::span<const float> x, int rows, std::string_view hint,
                    Work* work = nullptr) {
  const std::size_t columns = x.size() / static_cast<std::size_t>(rows);
  std::vector<float> expected;
  for (std::size_t at = 0; at < x.size(); at += columns)
    for (const double y : softmax_of(x.subspan(at, columns))) expected.push_back(static_cast<float>(y));
  const Tensor dx = on_device(x), dy = rubbish_on_device(x.size());
  if (!kernels_run([&] { softmax(dy.data(), dx.data(), rows, static_cast<int>(columns)); }, work))
    return false;
  expect_close(from_device(dy), expected, Shape{rows, static_cast<std::int64_t>(columns)}, hint,
               {.relative = 1e-4, .absolute = 1e-7});
  return true;
}

bool expect_softmax_of_random_rows(SoftmaxKernel softmax) {
  for (const auto& [rows, columns] : {std::pair{2, 1}, {3, 5}, {2, 33}, {3, 256}, {5, 1000}}) {
    const auto size = static_cast<std::size_t>(rows * columns);
    if (!expect_softmax(
            softmax, random_numbers(size, "exercise 3.9"), rows,
            fmt::format("{} rows of {}: exp(x[c] - the largest) over the sum of all of them", rows, columns)))
      return false;
  }
  return true;
}

TEST(Exercise_3_9, CanBeFollowedByHand) {
  expect_softmax(ch03::block_softmax, std::vector<float>{1, 2, 3, 3, 3, 3}, 2, "two rows of three");
}

TEST(Exercise_3_9, TakesRowsOfAnyLength) {
  expect_softmax_of_random_rows(ch03::block_softmax);
}

TEST(Exercise_3_9, SurvivesLargeScores) {
  std::vector<float> x(600, -1000);
  x[599] = 1e30F, x[17] = -1e30F;
  expect_softmax(ch03::block_softmax, x, 1, "subtract the largest entry of the whole row before exp");
  expect_softmax(ch03::block_softmax, std::vector<float>(300, -1000), 1, "all entries may be far below 0");
}

bool expect_product(int M, int N, int K, Work* work = nullptr) {
  const auto size = [](int rows, int columns) { return static_cast<std::size_t>(rows * columns); };
  const std::vector<float> a = random_numbers(size(M, K), "exercise 3.10 a"),
                           b = random_numbers(size(K, N), "exercise 3.10 b");
  std::vector<float> expected;
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) {
      double sum = 0;
      for (int k = 0; k < K; ++k)
        sum += double{a[size(i, K) + size(k, 1)]} * double{b[size(k, N) + size(j, 1)]};
      expected.push_back(static_cast<float>(sum));
    }
  const Tensor da = on_device(a), db = on_device(b), dc = rubbish_on_device(expected.size());
  if (!kernels_run([&] { ch03::tiled_product(dc.data(), da.data(), db.data(), M, N, K); }, work))
    return false;
  expect_close(
      from_device(dc), expected, Shape{M, N},
      fmt::format("({}, {}) = ({}, {}) times ({}, {}): c[i, j] = sum_k a[i, k] b[k, j]", M, N, M, K, K, N),
      {.relative = 1e-4, .absolute = 1e-4});
  return true;
}

TEST(Exercise_3_10, MultipliesOneTile) {
  expect_product(16, 16, 16);
}

TEST(Exercise_3_10, MultipliesAnySizes) {
  for (const auto& [M, N, K] : {std::tuple{16, 16, 48}, {32, 48, 16}, {1, 1, 1}, {5, 20, 3}, {33, 17, 40}})
    if (!expect_product(M, N, K)) return;
}

TEST(Exercise_3_10, ReadsEachElementOncePerTile) {
  Work work;
  if (!expect_product(64, 64, 32, &work) || !work.known) return;
  expect_at_most(work.loaded, 2 * 4 * 64 * 64 * 32 / 16, "bytes read from global memory",
                 "a tile of a and one of b are read into shared memory once, and used by all 256 threads");
}

TEST(Exercise_3_11, CanBeFollowedByHand) {
  expect_softmax(ch03::online_softmax, std::vector<float>{1, 2, 3, 3, 3, 3}, 2,
                 "two rows of three; lanes without an entry must not spoil the sum");
}

TEST(Exercise_3_11, TakesMaximaThatGrow) {
  std::vector<float> x(200);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 0.1F * static_cast<float>(i);
  expect_softmax(ch03::online_softmax, x, 1,
                 "when the maximum grows by g, what was summed up shrinks by exp(-g)");
  std::reverse(x.begin(), x.end());
  expect_softmax(ch03::online_softmax, x, 1,
                 "when two lanes join their sums, both refer to the larger maximum");
}

TEST(Exercise_3_11, TakesRowsOfAnyLength) {
  expect_softmax_of_random_rows(ch03::online_softmax);
}

TEST(Exercise_3_11, SurvivesLargeScores) {
  std::vector<float> x(100, -1000);
  x[99] = 1e30F, x[17] = -1e30F;
  expect_softmax(ch03::online_softmax, x, 1, "no exponent may be larger than 0");
  expect_softmax(ch03::online_softmax, std::vector<float>(50, -1000), 1, "all entries may be far below 0");
}

TEST(Exercise_3_11, ReadsTwice) {
  Work work;
  const std::vector<float> x = random_numbers(4 * 1024, "exercise 3.11");
  if (!expect_softmax(ch03::online_softmax, x, 4, "", &work) || !work.known) return;
  expect_at_most(work.loaded, 2 * 4 * 4 * 1024, "bytes read from global memory",
                 "maximum and sum come from the same reading; then a second one to write y");
}

bool expect_flash(int T, float size_of_scores, std::string_view hint, Work* work = nullptr) {
  constexpr int D = ch03::kHeadSize;
  const auto count = static_cast<std::size_t>(T * D);
  std::vector<float> q = random_numbers(count, "exercise 3.12 q");
  const std::vector<float> k = random_numbers(count, "exercise 3.12 k"),
                           v = random_numbers(count, "exercise 3.12 v");
  for (float& entry : q) entry *= size_of_scores;
  std::vector<float> y, lse;
  for (int t = 0; t < T; ++t) {
    std::vector<float> scores;
    for (int j = 0; j <= t; ++j) {
      double score = 0;
      for (int d = 0; d < D; ++d)
        score +=
            double{q[static_cast<std::size_t>(t * D + d)]} * double{k[static_cast<std::size_t>(j * D + d)]};
      scores.push_back(static_cast<float>(score / std::sqrt(double{D})));
    }
    const std::vector<double> weights = softmax_of(scores);
    for (int d = 0; d < D; ++d) {
      double sum = 0;
      for (int j = 0; j <= t; ++j)
        sum += weights[static_cast<std::size_t>(j)] * v[static_cast<std::size_t>(j * D + d)];
      y.push_back(static_cast<float>(sum));
    }
    lse.push_back(static_cast<float>(scores[0] - std::log(weights[0])));
  }
  const Tensor dq = on_device(q), dk = on_device(k), dv = on_device(v), dy = rubbish_on_device(y.size()),
               dlse = rubbish_on_device(lse.size());
  if (!kernels_run([&] { ch03::flash_head(dy.data(), dlse.data(), dq.data(), dk.data(), dv.data(), T); },
                   work))
    return false;
  const Tolerance tolerance{.relative = 1e-4, .absolute = 1e-4};
  expect_close(from_device(dy), y, Shape{T, D}, hint, tolerance);
  expect_close(from_device(dlse), lse,
               "lse[t] = the largest score of row t + log(the sum of exp(score - largest))", tolerance);
  return true;
}

TEST(Exercise_3_12, TheFirstTokenSeesItselfOnly) {
  expect_flash(1, 1, "one key has the weight 1, so y = v");
}

TEST(Exercise_3_12, AttendsWithinATile) {
  expect_flash(6, 1, "token t sees the tokens 0 to t; the scores are divided by sqrt(D)");
}

TEST(Exercise_3_12, AttendsOverManyTiles) {
  for (const int T : {64, 65, 150})
    if (!expect_flash(
            T, 3,
            fmt::format("{} tokens: when a tile brings a larger score, sum and result shrink alike", T)))
      return;
}

TEST(Exercise_3_12, KeepsTheScoresOnTheChip) {
  constexpr int T = 128, D = ch03::kHeadSize;
  Work work;
  if (!expect_flash(T, 1, "", &work) || !work.known) return;
  expect_at_most(work.stored, 4 * T * (D + 1), "bytes written to global memory",
                 "only y and lse are written");
  // With 16 queries per block, the keys and values of each tile of 16 are read by the blocks from there on.
  expect_at_most(
      work.loaded, 4 * T * D + 2 * 4 * D * 16 * (8 * 9 / 2), "bytes read from global memory",
      "a block of queries reads a tile of keys and values into shared memory once, for all its threads");
}

}  // namespace
}  // namespace llm::exercises
