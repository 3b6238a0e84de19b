// Continuous batching: whoever runs beside whom, everyone gets what they would get alone, to the bit.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

#include "common/core/error.h"
#include "common/generation/batch_engine.h"
#include "common/ops/ops.h"
#include "common/ops/ops_decode.h"
#include "tests/ch04_model_helpers.h"

namespace llm {
namespace {

constexpr std::int64_t kVocabulary = 61;

GptStage small_model(Device device = Device::cpu) {
  GptConfig config;
  config.vocab_size = kVocabulary;
  config.context = 24;
  config.channels = 32;
  config.heads = 2;
  config.layers = 2;
  GptStage model(config);
  testing::randomize(model, 5);
  return model.placed({device, DType::f32});
}

/// A sequence that somebody asks for.
struct Wish {
  std::vector<std::int32_t> prompt;
  GenerateOptions options;
  std::uint64_t number = 0;
};

Wish wish(std::int64_t prompt_tokens, std::int64_t new_tokens, float temperature, std::uint64_t seed) {
  PhiloxSequence random(seed, stream_id("wish"));
  Wish w;
  for (std::int64_t i = 0; i < prompt_tokens; ++i)
    w.prompt.push_back(static_cast<std::int32_t>(random.below(kVocabulary)));
  w.options.sampling = {.temperature = temperature, .top_k = 20, .top_p = 0.95F, .seed = seed};
  w.options.max_new_tokens = new_tokens;
  return w;
}

Tensor tensor_of(std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  Tensor t = Tensor::uninitialized({rows, columns});
  const Philox random{seed, stream_id("batching test")};
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data()[i] = random.normal(static_cast<std::uint64_t>(i));
  return t;
}

/// Runs all wishes to their end; wish i joins at step joins[i], if there is room, or as soon as there is.
/// Returns each one's tokens, stop tokens included.
std::vector<std::vector<std::int32_t>> run(BatchEngine& engine, const std::vector<Wish>& wishes,
                                           const std::vector<std::int64_t>& joins) {
  std::vector<std::vector<std::int32_t>> texts(wishes.size());
  std::map<std::int64_t, std::size_t> who;
  std::vector<std::size_t> waiting;
  for (std::size_t i = 0; i < wishes.size(); ++i) waiting.push_back(i);
  for (std::int64_t step = 0; !waiting.empty() || engine.running() > 0; ++step) {
    EXPECT_LT(step, 10'000);
    for (std::size_t i = 0; i < waiting.size() && engine.running() < engine.rows();) {
      const Wish& w = wishes[waiting[i]];
      if (joins[waiting[i]] > step) {
        ++i;
        continue;
      }
      who[engine.join(w.prompt, w.options, w.number)] = waiting[i];
      waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(i));
    }
    for (const auto& drawn : engine.step()) texts[who.at(drawn.id)].push_back(drawn.token);
  }
  return texts;
}

std::vector<std::int32_t> alone(const GptStage& model, const Wish& w) {
  BatchEngine engine(model, 1);
  return run(engine, {w}, {0})[0];
}

TEST(LinearDecode, IsALinearLayerAndNoRowDependsOnTheOthers) {
  for (const auto& [in, out] : {std::pair<int, int>{1, 1}, {7, 5}, {16, 33}, {40, 17}, {130, 70}}) {
    const std::int64_t rows = 19;
    const Tensor x = tensor_of(rows, in, 1), w = tensor_of(out, in, 2), b = tensor_of(1, out, 3).view({out});
    Tensor all({rows, out});
    linear_decode(all, x, w, b);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t o = 0; o < out; ++o) {
        double expected = b.data()[o], size = std::abs(expected);
        for (std::int64_t i = 0; i < in; ++i) {
          const double product = static_cast<double>(x.data()[r * in + i]) * w.data()[o * in + i];
          expected += product;
          size += std::abs(product);
        }
        ASSERT_NEAR(all.data()[r * out + o], expected, 1e-6 * size) << in << " x " << out;
      }
    for (std::int64_t count = 1; count <= rows; ++count) {
      Tensor some({count, out});
      const std::int64_t first = rows - count;
      linear_decode(some, x.slice(first, rows), w, b);
      for (std::int64_t i = 0; i < some.numel(); ++i)
        ASSERT_EQ(some.data()[i], all.data()[first * out + i]) << count << " rows, " << in << " x " << out;
    }
    Tensor plain({rows, out}), zero({out});
    linear_decode(plain, x, w, {});
    linear_decode(all, x, w, zero);
    EXPECT_TRUE(std::equal(plain.span().begin(), plain.span().end(), all.span().begin()));
  }
  EXPECT_THROW(linear_decode(Tensor({1, 3}), Tensor({1, 4}), Tensor({3, 5}), {}), Error);
}

TEST(AttentionDecode, SequencesOfDifferentLengthsGetWhatTheyGetAlone) {
  for (const Device device : {Device::cpu, Device::cuda}) {
    const std::int64_t B = 4, H = 2, S = 9, D = 8, C = H * D;
    const auto on = [&](const Tensor& t) { return t.to(device).clone(); };
    const Tensor keys = tensor_of(B * H * S, D, 1).view({B, H, S, D});
    const Tensor values = tensor_of(B * H * S, D, 2).view({B, H, S, D});
    const std::vector<CachePlace> places = {{2, 5}, {0, 0}, {3, 8}};
    const Tensor qkv = tensor_of(3, 3 * C, 3).view({3, 1, 3 * C});
    const Tensor k = on(keys), v = on(values), y = Tensor({3, 1, C}, DType::f32, device);
    attention_decode(y, k, v, on(qkv), places, H);
    for (std::int64_t i = 0; i < 3; ++i) {
      const auto [row, length] = places[static_cast<std::size_t>(i)];
      const Tensor own_k = on(keys.slice(row, row + 1)), own_v = on(values.slice(row, row + 1));
      const Tensor own_y = Tensor({1, 1, C}, DType::f32, device);
      attention_decode(own_y, own_k, own_v, on(qkv.slice(i, i + 1)), length, H);
      const auto same = [](const Tensor& a, const Tensor& b) {
        const Tensor x = a.to(Device::cpu), z = b.to(Device::cpu);
        return std::equal(x.span().begin(), x.span().end(), z.span().begin(), z.span().end());
      };
      EXPECT_TRUE(same(own_y, y.slice(i, i + 1)));
      EXPECT_TRUE(same(own_k, k.slice(row, row + 1)));  // the new position was written, and nothing else
      EXPECT_TRUE(same(own_v, v.slice(row, row + 1)));
    }
    const Tensor one = on(qkv.slice(0, 1)), y1 = Tensor({1, 1, C}, DType::f32, device);
    for (const CachePlace wrong : {CachePlace{4, 0}, CachePlace{-1, 0}, CachePlace{0, 9}, CachePlace{0, -1}})
      EXPECT_THROW(attention_decode(y1, k, v, one, std::vector{wrong}, H), Error);
    EXPECT_THROW(attention_decode(Tensor({2, 1, C}, DType::f32, device), k, v, on(qkv.slice(0, 2)),
                                  std::vector<CachePlace>{{1, 0}, {1, 1}}, H),
                 Error);
  }
}

TEST(BatchEngine, EightGreedyTogetherAreEightAlone) {
  const GptStage model = small_model();
  std::vector<Wish> wishes;
  for (std::uint64_t i = 0; i < 8; ++i)  // some outgrow the context of 24, some have prompts that do
    wishes.push_back(wish(static_cast<std::int64_t>(1 + 4 * i), 40, 0, i));
  BatchEngine engine(model, 8);
  const auto together = run(engine, wishes, std::vector<std::int64_t>(8, 0));
  for (std::size_t i = 0; i < wishes.size(); ++i) {
    EXPECT_EQ(together[i], alone(model, wishes[i])) << "sequence " << i;
    EXPECT_EQ(together[i], generate(model, wishes[i].prompt, wishes[i].options).tokens) << "sequence " << i;
  }
}

TEST(BatchEngine, WhoeverJoinsAndLeavesAndWhenDrawsAreTheSame) {
  const GptStage model = small_model();
  std::vector<Wish> wishes;
  for (std::uint64_t i = 0; i < 20; ++i)
    wishes.push_back(wish(static_cast<std::int64_t>(1 + i % 7), static_cast<std::int64_t>(1 + 5 * i % 33),
                          i % 3 == 0 ? 0.0F : 1.0F, i));
  std::vector<std::vector<std::int32_t>> expected;
  for (const Wish& w : wishes) {
    expected.push_back(generate(model, w.prompt, w.options).tokens);
    ASSERT_EQ(static_cast<std::int64_t>(expected.back().size()), w.options.max_new_tokens);
  }
  for (std::uint64_t order = 0; order < 5; ++order) {
    PhiloxSequence random(order, stream_id("joins"));
    std::vector<std::int64_t> joins;
    for (std::size_t i = 0; i < wishes.size(); ++i)
      joins.push_back(static_cast<std::int64_t>(random.below(60)));
    BatchEngine engine(model, static_cast<std::int64_t>(1 + random.below(9)));
    EXPECT_EQ(run(engine, wishes, joins), expected) << "order " << order << ", " << engine.rows() << " rows";
    EXPECT_EQ(engine.running(), 0);
  }
}

TEST(BatchEngine, TheNumberChoosesTheDraws) {
  const GptStage model = small_model();
  const Wish w = wish(3, 12, 1, 7);
  const std::vector<Generated> many = generate_many(model, w.prompt, 4, w.options);
  BatchEngine engine(model, 4);
  std::vector<Wish> wishes(4, w);
  for (std::uint64_t i = 0; i < 4; ++i) wishes[i].number = i;
  const auto texts = run(engine, wishes, {0, 3, 1, 2});
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(texts[i], many[i].tokens);
  EXPECT_NE(texts[0], texts[1]);
}

TEST(BatchEngine, AStopTokenEndsItsSequenceAndNoOther) {
  const GptStage model = small_model();
  const Wish plain = wish(4, 20, 1, 3);
  const std::vector<std::int32_t> text = generate(model, plain.prompt, plain.options).tokens;
  Wish stopped = plain;
  stopped.options.stop_token = text[9];
  const auto first = std::find(text.begin(), text.end(), text[9]);

  BatchEngine engine(model, 2);
  const std::int64_t a = engine.join(stopped.prompt, stopped.options);
  const std::int64_t b = engine.join(plain.prompt, plain.options);
  std::map<std::int64_t, std::vector<std::int32_t>> texts;
  std::map<std::int64_t, Finish> ends;
  while (engine.running() > 0)
    for (const auto& drawn : engine.step()) {
      texts[drawn.id].push_back(drawn.token);
      ends[drawn.id] = drawn.finish;
    }
  EXPECT_EQ(texts[a], std::vector<std::int32_t>(text.begin(), first + 1));  // the stop token comes last
  EXPECT_EQ(ends[a], Finish::stop);
  EXPECT_EQ(texts[b], text);
  EXPECT_EQ(ends[b], Finish::length);
}

TEST(BatchEngine, WhoLeavesMakesRoom) {
  const GptStage model = small_model();
  BatchEngine engine(model, 2);
  EXPECT_GT(engine.cache_bytes(), 0);
  const Wish w = wish(5, 30, 1, 1), other = wish(9, 30, 1, 2), late = wish(2, 30, 1, 3);
  const std::int64_t a = engine.join(w.prompt, w.options);
  const std::int64_t b = engine.join(other.prompt, other.options);
  EXPECT_THROW(engine.join(late.prompt, late.options), Error);  // full
  std::map<std::int64_t, std::vector<std::int32_t>> texts;
  const auto steps = [&](int count) {
    for (int i = 0; i < count; ++i)
      for (const auto& drawn : engine.step()) texts[drawn.id].push_back(drawn.token);
  };
  steps(7);
  engine.leave(a);
  engine.leave(a);  // gone already
  engine.leave(99);
  EXPECT_EQ(engine.running(), 1);
  const std::int64_t c = engine.join(late.prompt, late.options);
  steps(100);
  EXPECT_EQ(engine.running(), 0);
  EXPECT_EQ(texts[a].size(), 7U);
  EXPECT_EQ(texts[b], generate(model, other.prompt, other.options).tokens);
  EXPECT_EQ(texts[c], generate(model, late.prompt, late.options).tokens);
  EXPECT_TRUE(engine.step().empty());
}

TEST(BatchEngine, NewcomersTakeTurns) {
  const GptStage model = small_model();
  BatchEngine engine(model, 4);
  const Wish w = wish(6, 10, 1, 1), single = wish(1, 10, 1, 2);
  const std::int64_t a = engine.join(w.prompt, w.options), b = engine.join(w.prompt, w.options);
  const std::int64_t c = engine.join(single.prompt, single.options);
  const auto ids = [&] {
    std::vector<std::int64_t> seen;
    for (const auto& drawn : engine.step()) seen.push_back(drawn.id);
    return seen;
  };
  EXPECT_EQ(ids(), (std::vector{a, c}));  // one prompt is read; a prompt of one token is like any token
  EXPECT_EQ(ids(), (std::vector{a, b, c}));
}

TEST(BatchEngine, OnTheDeviceNoResultDependsOnTheBatchEither) {
  const GptStage model = small_model(Device::cuda);
  std::vector<Wish> wishes;
  for (std::uint64_t i = 0; i < 3; ++i) wishes.push_back(wish(static_cast<std::int64_t>(2 + i), 5, 1, i));
  BatchEngine engine(model, 3);
  const auto together = run(engine, wishes, {0, 1, 3});
  for (std::size_t i = 0; i < wishes.size(); ++i) EXPECT_EQ(run(engine, {wishes[i]}, {0})[0], together[i]);
}

TEST(BatchEngine, BadWishesAreErrorsAndTakeNoRow) {
  const GptStage model = small_model();
  BatchEngine engine(model, 1);
  Wish w = wish(3, 3, 1, 1);
  EXPECT_THROW(engine.join({}, w.options), UsageError);
  EXPECT_THROW(engine.join(std::vector<std::int32_t>{61}, w.options), Error);
  w.options.max_new_tokens = 0;
  EXPECT_THROW(engine.join(w.prompt, w.options), UsageError);
  w.options.max_new_tokens = 1;
  w.options.sampling.temperature = -1;
  EXPECT_THROW(engine.join(w.prompt, w.options), UsageError);
  EXPECT_EQ(engine.running(), 0);
  EXPECT_THROW(BatchEngine(model, 0), UsageError);
}

}  // namespace
}  // namespace llm
