// Evaluation: choices, answers, texts and classes, against values by hand and against another way to them.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "common/core/file.h"
#include "common/finetuning/evaluation.h"
#include "common/finetuning/policy.h"
#include "common/generation/generate.h"
#include "common/tokenizer/bpe_tokenizer.h"
#include "tests/ch04_model_helpers.h"

namespace llm {
namespace {

using namespace testing;

std::unique_ptr<BpeTokenizer> byte_tokenizer() {
  BpeModel model;
  for (int b = 0; b < 256; ++b) model.tokens.push_back(std::string(1, static_cast<char>(b)));
  model.tokens.emplace_back(kEndOfText);
  model.special_tokens = {256};
  return std::make_unique<BpeTokenizer>(std::move(model));
}

GptStage byte_model() {
  GptConfig config = small_config();
  config.vocab_size = 257;
  config.context = 16;
  GptStage model(config);
  randomize(model, 3);
  return model;
}

TEST(MultipleChoice, ScoresByTheSumAndPerCharacter) {
  // By hand: the longest choice has the lowest sum, and the best score per character.
  const std::vector<double> scores = {-4, -9, -5};
  const std::vector<std::string> choices = {"no", "certainly", "no!"};
  EXPECT_EQ(best_choice(scores), 0u);
  EXPECT_EQ(best_choice(scores_per_character(scores, choices)), 1u);
  const std::vector<double> equal = {-1, -1};
  EXPECT_EQ(best_choice(equal), 0u) << "of equal scores the first counts";
  const std::vector<double> two = {-4, -4};
  const std::vector<std::string> umlauts = {"\xc3\xa4\xc3\xb6", "abc"};  // two characters in four bytes
  EXPECT_EQ(scores_per_character(two, umlauts)[0], -2) << "characters, not bytes";
}

TEST(MultipleChoice, IsTheLogProbabilityOfTheChoice) {
  const auto tokenizer = byte_tokenizer();
  GptStage model = byte_model();
  // Whatever the model likes best is made the gold choice; then all items are right, and none with another.
  std::vector<MultipleChoice> items = {
      {"ab", {"x", "y", "zz"}, 0}, {"", {"q", "r"}, 0}, {"a long context, cut", {"u", "v"}, 0}};
  for (MultipleChoice& item : items) {
    PassBuffers buffers;
    std::vector<double> sums;
    for (const std::string& choice : item.choices) {
      std::vector<std::int32_t> ids =
          tokenizer->encode(item.context + (item.context.empty() ? "" : " ") + choice);
      ids.insert(ids.begin(), 256);
      Example e{ids, static_cast<std::int64_t>(item.context.size()) + 1};
      if (ids.size() > 17) {
        const auto over = static_cast<std::ptrdiff_t>(ids.size()) - 17;
        e.tokens.erase(e.tokens.begin(), e.tokens.begin() + over);
        e.answer -= over;
      }
      sums.push_back(answer_log_probabilities(model, buffers, collate(std::span(&e, 1), 0)).front());
    }
    item.gold = best_choice(sums);
  }
  EXPECT_EQ(evaluate_multiple_choice(model, *tokenizer, items).acc, 1);
  for (MultipleChoice& item : items) item.gold = (item.gold + 1) % item.choices.size();
  EXPECT_EQ(evaluate_multiple_choice(model, *tokenizer, items, 2).acc, 0);
}

TEST(MultipleChoice, ReadsJsonLines) {
  const auto path = std::filesystem::temp_directory_path() / ("llm_ch07_mc_" + std::to_string(getpid()));
  write_file(path, "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 1}\n\n");
  const auto items = read_multiple_choice(path);
  ASSERT_EQ(items.size(), 1u);
  EXPECT_EQ(items[0].gold, 1u);
  for (const char* bad :
       {"", "[]", "{\"context\": \"a\"}", "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 2}",
        "{\"context\": \"a\", \"choices\": [\"b\", \"\"], \"gold\": 0}",
        "{\"context\": \"a\", \"choices\": [\"b\", 3], \"gold\": 0}",
        "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": -1}", "{\"context\""}) {
    write_file(path, bad);
    EXPECT_THROW(read_multiple_choice(path), Error) << bad;
  }
  std::filesystem::remove(path);
}

TEST(Texts, EveryTokenOnceFromAsMuchAsFits) {
  const auto tokenizer = byte_tokenizer();
  GptStage model = byte_model();  // a context of 16
  const std::string text = "twenty-one characters";
  ASSERT_EQ(text.size(), 21u);
  const TextLoss loss = evaluate_texts(model, *tokenizer, std::vector<std::string>{text});
  // By hand: 16 tokens from the end-of-text on; the last 5 in a window of the last 16 positions.
  std::vector<std::int32_t> ids = tokenizer->encode(text);
  ids.insert(ids.begin(), 256);
  PassBuffers buffers;
  const Example first{{ids.begin(), ids.begin() + 17}, 1}, second{{ids.begin() + 5, ids.end()}, 12};
  double expected = 0;
  for (const Example& e : {first, second})
    expected -= answer_log_probabilities(model, buffers, collate(std::span(&e, 1), 0)).front();
  EXPECT_NEAR(loss.nats, expected, 1e-4);
  EXPECT_EQ(loss.tokens, 21);
  EXPECT_EQ(loss.bytes, 21);
  EXPECT_NEAR(loss.bits_per_byte(), expected / 21 / std::log(2.0), 1e-6);
  EXPECT_NEAR(loss.perplexity(), std::exp(expected / 21), 1e-3);
  EXPECT_THROW(evaluate_texts(model, *tokenizer, std::vector<std::string>{}), Error);
}

TEST(Answers, AreThoseOfOneAtATime) {
  const GptStage model = byte_model();
  const std::vector<std::vector<std::int32_t>> prompts = {{1, 2, 3}, {4}, {5, 6, 7}, {8, 9}, {1, 2, 3}};
  const AnswerOptions options{.max_new_tokens = 8, .batch = 2};
  const auto answers = generate_answers(model, prompts, 256, options);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    GenerateOptions one;
    one.sampling.temperature = 0;
    one.max_new_tokens = 8;
    one.stop_token = 256;
    EXPECT_EQ(answers[i].tokens, generate(model, prompts[i], one).tokens) << "prompt " << i;
  }
  EXPECT_THROW(generate_answers(model, std::vector<std::vector<std::int32_t>>{{}}, 256, options), Error);
  EXPECT_THROW(
      generate_answers(model, std::vector<std::vector<std::int32_t>>{std::vector<std::int32_t>(17, 1)}, 256,
                       options),
      Error);
  // As long as the context: one token more can be said.
  EXPECT_EQ(generate_answers(model, std::vector<std::vector<std::int32_t>>{std::vector<std::int32_t>(16, 1)},
                             256, options)[0]
                .tokens.size(),
            1u);
}

TEST(Answers, AreTrimmed) {
  EXPECT_EQ(trimmed("  a b\n"), "a b");
  EXPECT_EQ(trimmed(" \n"), "");
}

TEST(Confusion, CountsByHand) {
  // 3 of 4 happy ones called happy, 1 of 6 sad ones called happy.
  ConfusionMatrix m(2);
  m.counts = {{3, 1}, {1, 5}};
  EXPECT_EQ(m.total(), 10);
  EXPECT_DOUBLE_EQ(m.accuracy(), 0.8);
  EXPECT_DOUBLE_EQ(m.precision(0), 0.75);
  EXPECT_DOUBLE_EQ(m.recall(1), 5.0 / 6);
  EXPECT_DOUBLE_EQ(m.f1(0), 0.75);
  m.add(0, 1);
  EXPECT_DOUBLE_EQ(m.recall(0), 0.6);
  EXPECT_TRUE(std::isnan(ConfusionMatrix(2).precision(0)));
}

}  // namespace
}  // namespace llm
