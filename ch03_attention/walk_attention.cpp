// The walk through chapter 3, first half: from a dot product to multi-head causal attention, naive and flash.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>

#include "ch03_attention/walk.h"
#include "ch03_attention/walk_pictures.h"
#include "common/cli/format.h"
#include "common/cli/table.h"
#include "common/core/error.h"
#include "common/core/philox.h"
#include "common/ops/ops.h"
#include "common/text/documents.h"
#include "common/text/token_shard.h"
#include "common/tokenizer/story_tokens.h"
#include "common/tokenizer/tokenizer.h"

namespace llm::ch03 {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int32_t>;

constexpr std::int64_t kChannels = 64;  // C

void headline(std::string_view text) {
  fmt::print("\n{}\n{}\n\n", text, std::string(text.size(), '-'));
}

Tensor normal(Shape shape, std::uint64_t seed, std::string_view stream, double std) {
  Tensor t = Tensor::uninitialized(std::move(shape));
  const Philox random{seed, stream_id(stream)};
  for (std::int64_t i = 0; i < t.numel(); ++i)
    t.data()[i] = static_cast<float>(std) * random.normal(static_cast<std::uint64_t>(i));
  return t;
}

/// Vectors for tokens without any training: what stands next to a token says what it is ("You shall know a
/// word by the company it keeps", Firth 1957). Counts of the two neighbours on either side, as positive
/// pointwise mutual information (Bullinaria and Levy 2007), multiplied with a random matrix to C channels,
/// which keeps dot products (Johnson and Lindenstrauss 1984). Rows have length sqrt(C).
Tensor vectors_by_counting(std::span<const std::uint16_t> tokens, std::int64_t V, std::uint64_t seed) {
  tokens = tokens.first(std::min<std::size_t>(tokens.size(), 2'000'000));
  const std::int64_t N = 4 * V;  // a column per neighbour and place
  Tensor counts({V, N});
  float* n = counts.data();
  const std::int64_t places[] = {-2, -1, 1, 2};
  for (std::int64_t i = 2; i + 2 < static_cast<std::int64_t>(tokens.size()); ++i)
    for (std::int64_t p = 0; p < 4; ++p)
      n[tokens[static_cast<std::size_t>(i)] * N + p * V + tokens[static_cast<std::size_t>(i + places[p])]] +=
          1;
  std::vector<double> row_sum(static_cast<std::size_t>(V)), column_sum(static_cast<std::size_t>(N));
  double total = 0;
  for (std::int64_t v = 0; v < V; ++v)
    for (std::int64_t j = 0; j < N; ++j) {
      row_sum[static_cast<std::size_t>(v)] += n[v * N + j];
      column_sum[static_cast<std::size_t>(j)] += n[v * N + j];
      total += n[v * N + j];
    }
  for (std::int64_t v = 0; v < V; ++v)
    for (std::int64_t j = 0; j < N; ++j) {
      const double expected = row_sum[static_cast<std::size_t>(v)] * column_sum[static_cast<std::size_t>(j)] /
                              std::max(total, 1.0);
      float& x = n[v * N + j];
      x = x > 0 ? std::max(0.0F, static_cast<float>(std::log(x / expected))) : 0.0F;
    }
  Tensor vectors({V, kChannels});
  linear_forward(vectors, counts, normal({kChannels, N}, seed, "projection", 1), {});  // (V, N) -> (V, C)
  for (std::int64_t v = 0; v < V; ++v) {
    const Tensor row = vectors.slice(v, v + 1);
    const double length = std::sqrt(squared_norm(row));
    for (float& x : row.span())
      x = length > 0 ? x * static_cast<float>(std::sqrt(static_cast<double>(kChannels)) / length) : 0.0F;
  }
  return vectors;
}

float dot(const float* a, const float* b) {
  return std::inner_product(a, a + kChannels, b, 0.0F);
}

/// Of the sentences of the first stories, with 8 to 15 tokens, all different, the one with the most tokens
/// that are alike (two names, two things): there attention has something to show.
Ids telling_sentence(const Tokenizer& tokenizer, const std::vector<Document>& stories,
                     const Tensor& vectors) {
  Ids best;
  float most = -1;
  for (std::size_t i = 0; i < std::min<std::size_t>(stories.size(), 100); ++i) {
    const std::string& text = stories[i].text;
    for (std::size_t begin = 0, end = 0; (end = text.find('.', begin)) != std::string::npos;
         begin = end + 2) {
      const Ids ids = tokenizer.encode(" " + text.substr(begin, end + 1 - begin));
      if (ids.size() < 8 || ids.size() > 15 || std::set(ids.begin(), ids.end()).size() < ids.size()) continue;
      const auto unknown = [&](std::int32_t id) { return squared_norm(vectors.slice(id, id + 1)) == 0; };
      if (std::any_of(ids.begin(), ids.end(), unknown)) continue;
      float alike = 0;
      for (std::size_t t = 0; t < ids.size(); ++t)
        for (std::size_t j = 0; j < t; ++j) {
          const float similarity =
              dot(vectors.data() + ids[t] * kChannels, vectors.data() + ids[j] * kChannels) / kChannels;
          alike += std::max(0.0F, similarity - 0.5F);
        }
      if (alike > most) most = alike, best = ids;
    }
  }
  check(!best.empty(), "the stories have no sentence of 8 to 15 different tokens to look at");
  return best;
}

void show_similarity(const Tokenizer& tokenizer, const Tensor& vectors) {
  headline("1. Similarity is a dot product");
  fmt::print(
      "Every token is a vector of {} numbers, here made by counting its neighbours in the stories. The dot\n"
      "product of two vectors (divided by C = {}, so that a vector with itself gives 1) says how alike they "
      "are:\n\n",
      kChannels, kChannels);
  Table table({"token", "the nearest others", "far away"});
  for (const std::string_view word : {" kite", " Tom", " said", " river", "."}) {
    const Ids ids = tokenizer.encode(word);
    if (ids.size() != 1) continue;  // not a token of this vocabulary
    std::vector<std::pair<float, std::int32_t>> scores;
    for (std::int32_t v = 0; v < vectors.dim(0); ++v)
      if (v != ids[0] && squared_norm(vectors.slice(v, v + 1)) > 0)
        scores.emplace_back(
            dot(vectors.data() + ids[0] * kChannels, vectors.data() + v * kChannels) / kChannels, v);
    std::sort(scores.rbegin(), scores.rend());
    std::string nearest;
    for (std::size_t i = 0; i < std::min<std::size_t>(4, scores.size()); ++i)
      nearest += fmt::format("{}{} {:.2f}", i > 0 ? ", " : "", readable_token(tokenizer, scores[i].second),
                             scores[i].first);
    table.add(
        {readable_token(tokenizer, ids[0]), nearest,
         fmt::format("{} {:.2f}", readable_token(tokenizer, scores.back().second), scores.back().first)});
  }
  table.print();
}

/// A row of weights as words: "kite 0.31, the 0.12".
std::string largest(const Tokenizer& tokenizer, const Ids& ids, const float* weights, std::size_t count) {
  std::vector<std::size_t> order(ids.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return weights[a] > weights[b]; });
  std::string text;
  for (std::size_t i = 0; i < std::min(count, order.size()); ++i)
    text += fmt::format("{}{} {:.2f}", i > 0 ? ", " : "", readable_token(tokenizer, ids[order[i]]),
                        weights[order[i]]);
  return text;
}

/// Attention at its barest: scores x x^T, softmax, weighted mean.
void show_bare_attention(const Tokenizer& tokenizer, const Ids& ids, const Tensor& x, const fs::path& out) {
  headline("2. Scores become weights, weights make a mean");
  const auto T = static_cast<std::int64_t>(ids.size());
  Tensor scores({T, T});
  gemm(false, true, T, T, kChannels, 4.0F / kChannels, x.data(), kChannels, x.data(), kChannels, 0.0F,
       scores.data(), T);
  Tensor weights({T, T});
  softmax_forward(weights, scores);
  fmt::print("The sentence: {}\n\n", show_tokens(tokenizer, ids));
  // The token that looks most at another one.
  std::int64_t query = 0;
  float most = 0;
  for (std::int64_t t = 0; t < T; ++t)
    for (std::int64_t k = 0; k < T; ++k)
      if (t != k && weights.data()[t * T + k] > most) most = weights.data()[t * T + k], query = t;
  fmt::print(
      "Token {} ({}) scores every token (four times the similarity); softmax makes of the scores weights "
      "that\nsum to 1:\n\n  {}\n\n",
      query, readable_token(tokenizer, ids[static_cast<std::size_t>(query)]),
      largest(tokenizer, ids, weights.data() + query * T, 5));
  Tensor mean({T, kChannels});
  gemm(false, false, T, kChannels, T, 1.0F, weights.data(), T, x.data(), kChannels, 0.0F, mean.data(),
       kChannels);
  fmt::print(
      "Its new vector is the mean of all vectors with these weights: (T, T) x (T, C) -> (T, C) = {}.\n\n",
      to_string(mean.shape()));
  show_heat_map(tokenizer, ids, weights.data(), false, "each row: what a token looks at",
                out / "similarity.svg");
}

double entropy(const float* weights, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i)
    if (weights[i] > 0) sum -= weights[i] * std::log(static_cast<double>(weights[i]));
  return sum;
}

void show_scale(std::uint64_t seed) {
  headline("3. Why the scores are divided by sqrt(D)");
  fmt::print(
      "Dot products of D normal numbers have a standard deviation of sqrt(D). Softmax of such scores ends\n"
      "up looking at one key alone, and its gradient vanishes. Entropy of the weights on 64 keys (all "
      "equal:\n"
      "ln 64 = {:.2f}), mean of 200 queries:\n\n",
      std::log(64.0));
  Table table({"D", "not scaled", "largest weight", "divided by sqrt(D)", "largest weight"});
  for (const std::int64_t D : {4, 16, 64, 256}) {
    constexpr std::int64_t kQueries = 200, kKeys = 64;
    const Tensor q = normal({kQueries, D}, seed, "queries", 1), k = normal({kKeys, D}, seed, "keys", 1);
    std::vector<std::string> row = {std::to_string(D)};
    for (const double scale : {1.0, 1 / std::sqrt(static_cast<double>(D))}) {
      Tensor scores({kQueries, kKeys}), weights({kQueries, kKeys});
      gemm(false, true, kQueries, kKeys, D, static_cast<float>(scale), q.data(), D, k.data(), D, 0.0F,
           scores.data(), kKeys);
      softmax_forward(weights, scores);
      double mean = 0, high = 0;
      for (std::int64_t i = 0; i < kQueries; ++i) {
        const float* w = weights.data() + i * kKeys;
        mean += entropy(w, kKeys) / kQueries;
        high += *std::max_element(w, w + kKeys) / static_cast<double>(kQueries);
      }
      row.push_back(fmt::format("{:.2f}", mean));
      row.push_back(fmt::format("{:.2f}", high));
    }
    table.add(row);
  }
  table.print();
}

/// q, k, v of all heads, as a trained-to-nothing layer would give them: (1, T, C) -> (1, T, 3C).
Tensor project(const Tensor& x, std::uint64_t seed) {
  const std::int64_t C = kChannels;
  const Tensor w = normal({3 * C, C}, seed, "qkv", 1 / std::sqrt(static_cast<double>(C)));
  Tensor qkv({1, x.dim(0), 3 * C});
  linear_forward(qkv, x.view({1, x.dim(0), C}), w, {});
  return qkv;
}

void show_causal_heads(const Tokenizer& tokenizer, const Ids& ids, const Tensor& x, std::uint64_t seed,
                       const fs::path& out) {
  headline("4. Queries, keys and values; a mask; several heads");
  constexpr std::int64_t H = 4;
  const auto T = static_cast<std::int64_t>(ids.size());
  const Tensor qkv = project(x, seed);
  Tensor y({1, T, kChannels}), weights({1, H, T, T});
  attention_naive_forward(y, weights, qkv, {.heads = H});
  Table table({"tensor", "shape", "what it is"});
  table.add({"x", to_string(Shape{1, T, kChannels}), "(B, T, C) the tokens' vectors"});
  table.add({"qkv", to_string(qkv.shape()), "(B, T, 3C) three projections of each, side by side"});
  table.add({"weights", to_string(weights.shape()),
             fmt::format("(B, H, T, T) a matrix per head, D = C / H = {}", kChannels / H)});
  table.add({"y", to_string(y.shape()), "(B, T, C) the heads' results, side by side"});
  table.print();
  fmt::print(
      "\nThe three matrices are random yet: every head looks elsewhere, at nothing in particular. No token\n"
      "looks to the right of itself, for that is what the model must predict. Head 0:\n\n");
  show_heat_map(tokenizer, ids, weights.data(), true, "attention, head 0", out / "causal.svg");
}

double median_ms(const std::function<void()>& body) {
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    times.push_back(1e3 * std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  return times[2];
}

void show_flash(std::uint64_t seed, MetricsWriter& metrics) {
  headline("5. The same without ever storing the weights");
  constexpr std::int64_t H = 12, C = 768;
  fmt::print(
      "attention_naive stores a (T, T) matrix per head; attention_flash takes the keys block by block, with "
      "a\n"
      "running maximum and sum, and keeps one number per row. GPT-2's {} heads of {}, one sequence, one "
      "layer:\n\n",
      H, C / H);
  Table table({"T", "naive ms", "flash ms", "naive keeps", "flash keeps", "largest difference"});
  for (const std::int64_t T : {64, 256, 1024}) {
    const Tensor qkv = normal({1, T, 3 * C}, seed, "flash", 1);
    Tensor y1({1, T, C}), y2({1, T, C}), weights({1, H, T, T}), lse({1, H, T});
    const double naive = median_ms([&] { attention_naive_forward(y1, weights, qkv, {.heads = H}); });
    const double flash = median_ms([&] { attention_flash_forward(y2, lse, qkv, {.heads = H}); });
    float difference = 0;
    for (std::int64_t i = 0; i < y1.numel(); ++i)
      difference = std::max(difference, std::abs(y1.data()[i] - y2.data()[i]));
    check(difference < 1e-5F, "naive and flash attention differ by {}", difference);
    table.add({std::to_string(T), fmt::format("{:.2f}", naive), fmt::format("{:.2f}", flash),
               byte_text(static_cast<double>(weights.bytes())), byte_text(static_cast<double>(lse.bytes())),
               fmt::format("{:.1e}", difference)});
    metrics.write({{"what", "attention"},
                   {"tokens", T},
                   {"naive_ms", naive},
                   {"flash_ms", flash},
                   {"naive_bytes", static_cast<std::int64_t>(weights.bytes())},
                   {"flash_bytes", static_cast<std::int64_t>(lse.bytes())},
                   {"difference", difference}});
  }
  table.print();
  fmt::print("\nA GPT-2 of 12 layers would keep 12 times as much for its backward, per sequence.\n");
}

}  // namespace

void walk(const fs::path& work, std::uint64_t seed, MetricsWriter& metrics) {
  const fs::path folder =
      story_token_folder(work, seed, [](std::string_view line) { fmt::print("{}\n", line); });
  const auto tokenizer = load_tokenizer(folder);
  const TokenShard shard(folder / "train.bin");
  shard.check_vocabulary(tokenizer->vocab_size());
  const std::vector<Document> stories = read_documents({folder / "val.jsonl"});
  check(!stories.empty(), "{} holds no story", (folder / "val.jsonl").string());
  const fs::path out = work / "ch03_attention";

  const Tensor vectors = vectors_by_counting(shard.tokens(), tokenizer->vocab_size(), seed);
  show_similarity(*tokenizer, vectors);
  const Ids ids = telling_sentence(*tokenizer, stories, vectors);
  Tensor x({static_cast<std::int64_t>(ids.size()), kChannels});
  for (std::size_t t = 0; t < ids.size(); ++t)
    std::copy_n(vectors.data() + ids[t] * kChannels, kChannels,
                x.data() + static_cast<std::int64_t>(t) * kChannels);

  show_bare_attention(*tokenizer, ids, x, out);
  show_scale(seed);
  show_causal_heads(*tokenizer, ids, x, seed, out);
  show_flash(seed, metrics);
  walk_on_the_device(seed, metrics);

  headline("9. Next");
  fmt::print(
      "ch04_gpt_model puts this into a model, ch05_pretraining trains it. Then come back and see what the\n"
      "heads have learned to look at:\n\n  ch03_attention look --model {}\n",
      (work / "ch05_pretraining").string());
}

}  // namespace llm::ch03
