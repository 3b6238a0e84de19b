// Templates, masks, padding, packing, splits, and the files that examples come from.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>

#include "common/core/file.h"
#include "common/finetuning/datasets.h"
#include "common/finetuning/examples.h"
#include "common/tokenizer/bpe_tokenizer.h"

namespace llm {
namespace {

/// A token per byte, and <|endoftext|> as number 256.
const Tokenizer& bytes() {
  static const auto tokenizer = [] {
    BpeModel model;
    for (int b = 0; b < 256; ++b) model.tokens.push_back(std::string(1, static_cast<char>(b)));
    model.tokens.emplace_back(kEndOfText);
    model.special_tokens = {256};
    return std::make_unique<BpeTokenizer>(std::move(model));
  }();
  return *tokenizer;
}

std::vector<std::int32_t> row(const Tensor& t, std::int64_t r) {
  const auto all = t.span<std::int32_t>();
  const auto n = static_cast<std::size_t>(t.dim(1));
  return {all.begin() + static_cast<std::ptrdiff_t>(r) * static_cast<std::ptrdiff_t>(n),
          all.begin() + static_cast<std::ptrdiff_t>(r + 1) * static_cast<std::ptrdiff_t>(n)};
}

Example example(std::vector<std::int32_t> tokens, std::int64_t answer) {
  return {std::move(tokens), answer};
}

TEST(Templates, AlpacaHasItsSections) {
  const std::string with = alpaca_prompt("Add.", "1 and 2"), without = alpaca_prompt("Add.", "");
  EXPECT_TRUE(with.ends_with("### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n"));
  EXPECT_TRUE(without.ends_with("### Instruction:\nAdd.\n\n### Response:\n"));
  EXPECT_EQ(without.find("### Input"), std::string::npos);
}

TEST(Templates, ChatEndsWhereTheAnswerBegins) {
  const std::vector<Turn> turns = {
      {"system", "Be kind."}, {"user", "Hi"}, {"assistant", "Hello"}, {"user", "Bye"}};
  EXPECT_EQ(chat_prompt(turns), "Be kind.\nUser: Hi\nAssistant: Hello\nUser: Bye\nAssistant:");
  EXPECT_EQ(chat_prompt("Hi"), "User: Hi\nAssistant:");
  EXPECT_THROW(chat_prompt(std::vector<Turn>{{"root", "x"}}), Error);
}

TEST(Examples, KnowWhereTheAnswerBegins) {
  const Example e = make_example(bytes(), "ab", "c", 100);
  EXPECT_EQ(e.tokens, (std::vector<std::int32_t>{256, 'a', 'b', ' ', 'c', 256}));
  EXPECT_EQ(e.answer, 3);
  EXPECT_EQ(make_example(bytes(), "ab\n", "c", 100).tokens,
            (std::vector<std::int32_t>{256, 'a', 'b', '\n', 'c', 256}));
  EXPECT_EQ(make_prompt(bytes(), "ab", 100), (std::vector<std::int32_t>{256, 'a', 'b'}));
}

TEST(Examples, CannotSmuggleInSpecialTokens) {
  const Example e = make_example(bytes(), "<|endoftext|>", "x", 100);
  EXPECT_EQ(std::count(e.tokens.begin(), e.tokens.end(), 256), 2) << "only those at the ends";
}

TEST(Examples, TooLongPromptsLoseTheirBeginning) {
  const Example e = make_example(bytes(), "abcdef", "x", 7);
  EXPECT_EQ(e.tokens, (std::vector<std::int32_t>{256, 'd', 'e', 'f', ' ', 'x', 256}));
  EXPECT_EQ(e.answer, 4);
  EXPECT_THROW(make_example(bytes(), "ab", "a long answer", 8), Error);
  EXPECT_EQ(make_prompt(bytes(), "abcdef", 3), (std::vector<std::int32_t>{256, 'e', 'f'}));
}

TEST(Collate, MasksPromptsAndPadding) {
  const std::vector<Example> examples = {example({9, 1, 2, 3, 9}, 3), example({9, 4, 9}, 1)};
  const Batch masked = collate(examples, 9), whole = collate(examples, 9, {.prompt = false});
  EXPECT_EQ(row(masked.inputs, 0), (std::vector<std::int32_t>{9, 1, 2, 3}));
  EXPECT_EQ(row(masked.inputs, 1), (std::vector<std::int32_t>{9, 4, 9, 9}));
  EXPECT_EQ(row(masked.targets, 0), (std::vector<std::int32_t>{-1, -1, 3, 9}));
  EXPECT_EQ(row(masked.targets, 1), (std::vector<std::int32_t>{4, 9, -1, -1}));
  EXPECT_EQ(row(whole.targets, 0), (std::vector<std::int32_t>{1, 2, 3, 9}));
  EXPECT_EQ(target_count(masked), 4);
  EXPECT_THROW(collate(std::vector<Example>{}, 9), Error);
}

TEST(Pack, FillsRowsWithWholeExamples) {
  const std::vector<Example> examples = {example({9, 1, 9}, 1), example({9, 2, 3, 9}, 2),
                                         example({9, 4, 9}, 1), example({9, 5, 9}, 1)};
  std::size_t first = 0;
  const PackedBatch packed = pack(examples, first, 2, 6, 0);
  EXPECT_EQ(row(packed.batch.inputs, 0), (std::vector<std::int32_t>{9, 1, 9, 2, 3, 0}));
  EXPECT_EQ(row(packed.batch.targets, 0), (std::vector<std::int32_t>{1, 9, -1, 3, 9, -1}));
  EXPECT_EQ(row(packed.batch.inputs, 1), (std::vector<std::int32_t>{9, 4, 9, 5, 0, 0}));
  EXPECT_EQ(packed.documents, (std::vector<std::int64_t>{0, 2, 5, 6, 8, 10})) << "padding is a document, too";
  EXPECT_EQ(first, 4u);
}

TEST(Pack, GoesOnWhereItStopped) {
  const std::vector<Example> examples = {example({9, 1, 2, 9}, 1), example({9, 3, 9}, 1),
                                         example({9, 4, 5, 9}, 1)};
  std::size_t first = 0;
  EXPECT_EQ(pack(examples, first, 1, 4, 0).batch.inputs.dim(0), 1);
  EXPECT_EQ(first, 1u);
  EXPECT_EQ(pack(examples, first, 5, 4, 0).batch.inputs.dim(0), 2) << "no empty rows";
  EXPECT_EQ(first, 3u);
  EXPECT_THROW(pack(examples, first, 1, 4, 0), Error);
  first = 0;
  EXPECT_THROW(pack(examples, first, 1, 2, 0), Error) << "longer than a row";
}

TEST(BalancedSplit, TakesAsManyOfEachClass) {
  std::vector<LabelledText> texts;
  for (int i = 0; i < 50; ++i) texts.push_back({"text " + std::to_string(i), i % 5 == 0});
  const LabelledSplit split = balanced_split(texts, 2, 0.7, 0.1, 3);
  EXPECT_EQ(split.train.size(), 14u);
  EXPECT_EQ(split.validation.size(), 2u);
  EXPECT_EQ(split.test.size(), 4u);
  std::map<std::int64_t, int> classes;
  std::map<std::string, int> seen;
  for (const auto* part : {&split.train, &split.validation, &split.test})
    for (const LabelledText& t : *part) {
      ++classes[t.label];
      EXPECT_EQ(++seen[t.text], 1) << "a text is in two parts";
    }
  EXPECT_EQ(classes[0], 10);
  EXPECT_EQ(classes[1], 10);
  EXPECT_THROW(balanced_split({{"x", 0}}, 2, 0.7, 0.1, 3), Error);
  EXPECT_THROW(balanced_split({{"x", 2}}, 2, 0.7, 0.1, 3), Error);
}

TEST(TextBatches, PadBehindTheEndAndCutWhatIsTooLong) {
  const std::vector<std::vector<std::int32_t>> tokens = {{1, 2}, {3, 4, 5, 6, 7}};
  const std::vector<std::int64_t> labels = {1, 0};
  const TextBatch batch = collate_texts(tokens, labels, 4, 9);
  EXPECT_EQ(row(batch.inputs, 0), (std::vector<std::int32_t>{1, 2, 9, 9}));
  EXPECT_EQ(row(batch.inputs, 1), (std::vector<std::int32_t>{3, 4, 5, 6}));
  EXPECT_EQ(batch.lengths, (std::vector<std::int64_t>{2, 4}));
}

class Files : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& text) {
    write_file(path_, text);
    return path_;
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::filesystem::path path_ =
      std::filesystem::temp_directory_path() / ("llm_ch07_data_" + std::to_string(getpid()));
};

TEST_F(Files, LabelledLines) {
  const auto texts = read_labelled_lines(write("ham\tHi there\r\n\nspam\tWIN\tnow\n"), {"ham", "spam"});
  ASSERT_EQ(texts.size(), 2u);
  EXPECT_EQ(texts[0].text, "Hi there");
  EXPECT_EQ(texts[1].text, "WIN\tnow");
  EXPECT_EQ(texts[1].label, 1);
  for (const char* bad : {"", "ham\tx\neggs\ty\n", "ham and eggs\n", "ham\t\n"})
    EXPECT_THROW(read_labelled_lines(write(bad), {"ham", "spam"}), Error) << bad;
}

TEST_F(Files, Instructions) {
  const auto all = read_instructions(write(R"([{"instruction": "a", "input": "", "output": "b"},
                {"instruction": "c", "output": "d", "chosen": "e", "rejected": "f"}])"));
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].rejected, "f");
  for (const char* bad :
       {"", "{}", "[]", "[1]", R"([{"instruction": "a"}])", R"([{"instruction": 1, "output": "b"}])",
        R"([{"instruction": "a", "output": ""}])"})
    EXPECT_THROW(read_instructions(write(bad)), Error) << bad;
}

}  // namespace
}  // namespace llm
