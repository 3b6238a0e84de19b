// Tokenizers against tiktoken, Hugging Face's tokenizers and the regex module (tests/golden/tokenizer.py),
// and against damaged files.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/core/philox.h"
#include "common/core/threads.h"
#include "common/tokenizer/bpe_tokenizer.h"
#include "common/tokenizer/bpe_trainer.h"
#include "common/tokenizer/simple_tokenizers.h"
#include "common/tokenizer/split.h"

namespace llm {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int32_t>;

std::string golden(const std::string& name) {
  return read_file(fs::path(LLM_GOLDEN_DIR) / name);
}

// A folder that is empty at first and gone at the end.
struct TemporaryFolder {
  TemporaryFolder() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    path =
        fs::path(testing::TempDir()) / (std::string("ch02_") + test->test_suite_name() + "_" + test->name());
    fs::remove_all(path);
    fs::create_directories(path);
  }
  ~TemporaryFolder() { fs::remove_all(path); }
  fs::path path;
};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

BpeModel train_sample(std::int64_t vocab_size = 1000) {
  const std::string text = golden("tokenizer_sample.txt");
  const std::string_view view = text;
  BpeTrainerOptions options;
  options.vocab_size = vocab_size;
  return train_bpe(count_pieces({&view, 1}), options);
}

std::string fnv1a(const Ids& ids) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const std::int32_t id : ids) hash = (hash ^ static_cast<std::uint64_t>(id)) * 0x100000001b3u;
  return fmt::format("{:016x}", hash);
}

const char* data_folder() {
  return std::getenv("LLM_DATA");
}
#define SKIP_WITHOUT_DATA()                                                                          \
  if (!data_folder())                                                                                \
  GTEST_SKIP()                                                                                       \
      << "set LLM_DATA to a folder with gpt2/vocab.json and merges.txt (from huggingface.co/gpt2), " \
         "tinyshakespeare.txt and the-verdict.txt"

// The sentence of the error that `action` throws; a failure if it throws none or something else.
template <typename Action>
std::string sentence(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "expected an error";
  return {};
}
#define EXPECT_SENTENCE(action, part)                                             \
  do {                                                                            \
    const std::string what = sentence([&] { action; });                           \
    EXPECT_NE(what.find(part), std::string::npos) << "the sentence is: " << what; \
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;                        \
  } while (false)

// ---- Splitting ----

TEST(Split, ClassesAreUnicodes) {
  std::istringstream in(golden("tokenizer_classes.txt"));
  in >> std::hex;
  std::int32_t first = 0, last = 0;
  char expected = 0;
  int runs = 0;
  while (in >> first >> last >> expected) {
    ++runs;
    for (std::int32_t c = first; c <= last; ++c) {
      const char got = "OLNS"[static_cast<int>(character_class(c))];
      ASSERT_EQ(got, expected) << fmt::format("U+{:04X}", c);
    }
  }
  EXPECT_GT(runs, 600);
}

TEST(Split, PiecesAreTheRegularExpressions) {
  for (const auto& row : nlohmann::json::parse(golden("tokenizer_strings.json"))) {
    const auto text = row["text"].get<std::string>();
    std::vector<std::size_t> lengths;
    for (const std::string_view piece : split_pieces(text)) lengths.push_back(piece.size());
    EXPECT_EQ(lengths, row["pieces"].get<std::vector<std::size_t>>()) << row["text"];
  }
}

TEST(Split, InvalidBytesAreCharactersOfTheirOwn) {
  // A truncated character, an overlong slash, a surrogate, a byte that begins nothing.
  for (const std::string bytes : {"\xe2\x82", "\xc0\xaf", "\xed\xa0\x80", "\xff", "\xf4\x90\x80\x80"}) {
    const Character c = character_at(bytes, 0);
    EXPECT_EQ(c.code_point, -1);
    EXPECT_EQ(c.length, 1u);
    // Letters, then all bytes in one piece (they are neither letter, number nor white space), then letters.
    const std::string text = "ab" + bytes + "cd";
    EXPECT_EQ(split_pieces(text), (std::vector<std::string_view>{"ab", bytes, "cd"}));
  }
}

TEST(Split, PartsHaveThePiecesOfTheWhole) {
  const std::string text = golden("tokenizer_sample.txt");
  for (const std::size_t bytes : {1u, 2u, 7u, 100u, 5000u, 1000000u}) {
    std::vector<std::string_view> pieces;
    for (const std::string_view part : split_parts(text, bytes))
      for (const std::string_view piece : split_pieces(part)) pieces.push_back(piece);
    EXPECT_EQ(pieces, split_pieces(text)) << bytes;
  }
}

// ---- Training ----

TEST(Trainer, LearnsWhatHuggingFaceLearns) {
  const BpeModel model = train_sample();
  TemporaryFolder folder;
  write_bpe_files(model, folder.path);
  EXPECT_EQ(lines_of(read_file(folder.path / "merges.txt")), lines_of(golden("tokenizer_merges.txt")));
  EXPECT_EQ(model.tokens.size(),
            256 + model.merges.size() + 1);  // fewer than 1000: no more pairs occur twice
  EXPECT_EQ(model.tokens.back(), "<|endoftext|>");
}

TEST(Trainer, CountsNoMoreThanNeeded) {
  for (const std::int64_t size : {257, 258, 300, 511}) {
    const BpeModel model = train_sample(size);
    EXPECT_EQ(static_cast<std::int64_t>(model.tokens.size()), size);
    EXPECT_EQ(static_cast<std::int64_t>(model.merges.size()), size - 257);
  }
  EXPECT_THROW(train_sample(256), UsageError);
  EXPECT_THROW(train_sample(-1), UsageError);
  EXPECT_THROW(train_sample(std::int64_t{1} << 40), UsageError);
}

TEST(Trainer, DoesNotDependOnThreadsOrOrder) {
  const std::string text = golden("tokenizer_sample.txt");
  const auto lines = lines_of(text);
  std::vector<std::string_view> views(lines.rbegin(), lines.rend());
  BpeTrainerOptions options;
  options.vocab_size = 400;
  const int before = thread_count();
  std::vector<std::vector<std::string>> tokens;
  for (const int threads : {1, 2, 5}) {
    set_thread_count(threads);
    tokens.push_back(train_bpe(count_pieces(views), options).tokens);
    std::reverse(views.begin(), views.end());
  }
  set_thread_count(before);
  EXPECT_EQ(tokens[0], tokens[1]);
  EXPECT_EQ(tokens[0], tokens[2]);
}

// The definition, slowly: count all pairs of all words again before each merge.
std::vector<BpeMerge> train_naively(const PieceCounts& pieces, std::size_t merges) {
  std::array<std::int32_t, 256> byte_ids{};
  for (std::size_t i = 0; i < 256; ++i) byte_ids[byte_order()[i]] = static_cast<std::int32_t>(i);
  std::vector<std::pair<Ids, std::int64_t>> words;
  for (const auto& [piece, count] : pieces) {
    Ids ids;
    for (const char c : piece) ids.push_back(byte_ids[static_cast<unsigned char>(c)]);
    words.emplace_back(ids, count);
  }
  std::vector<BpeMerge> learned;
  while (learned.size() < merges) {
    std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> counts;
    for (const auto& [ids, count] : words)
      for (std::size_t i = 0; i + 1 < ids.size(); ++i) counts[{ids[i], ids[i + 1]}] += count;
    std::pair<std::int32_t, std::int32_t> best;
    std::int64_t most = 1;
    for (const auto& [pair, count] : counts)
      if (count > most) std::tie(best, most) = std::pair(pair, count);
    if (most < 2) break;
    const auto result = static_cast<std::int32_t>(256 + learned.size());
    learned.push_back({best.first, best.second, result});
    for (auto& [ids, count] : words) {
      Ids merged;
      for (std::size_t i = 0; i < ids.size(); ++i) {
        const bool both = i + 1 < ids.size() && ids[i] == best.first && ids[i + 1] == best.second;
        merged.push_back(both ? result : ids[i]);
        i += both;
      }
      ids = merged;
    }
  }
  return learned;
}

TEST(Trainer, AgreesWithTheDefinition) {
  // Few letters, so that there are many runs (aaaa) and many ties.
  PhiloxSequence random(5, stream_id("trainer test"));
  for (int round = 0; round < 20; ++round) {
    std::string text;
    for (int i = 0; i < 3000; ++i) text += "aab c"[random.below(5)];
    const std::string_view view = text;
    const PieceCounts pieces = count_pieces({&view, 1});
    BpeTrainerOptions options;
    options.vocab_size = 256 + 12;
    options.special_tokens = {};
    const BpeModel model = train_bpe(pieces, options);
    const std::vector<BpeMerge> expected = train_naively(pieces, 12);
    ASSERT_EQ(model.merges.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(model.merges[i].left, expected[i].left) << round << " " << i;
      EXPECT_EQ(model.merges[i].right, expected[i].right) << round << " " << i;
    }
  }
}

TEST(Trainer, TakesEmptyAndTinyTexts) {
  for (const std::string_view text : {"", "a", "ab", "\xff"}) {
    const BpeModel model = train_bpe(count_pieces({&text, 1}), {});
    EXPECT_EQ(model.tokens.size(), 257u);
    EXPECT_EQ(BpeTokenizer(model).decode(BpeTokenizer(model).encode(text)), text);
  }
}

// ---- Encoding ----

TEST(Bpe, EncodesAsTiktokenWithASmallVocabulary) {
  const BpeTokenizer tokenizer(train_sample());
  for (const auto& row : nlohmann::json::parse(golden("tokenizer_strings.json"))) {
    const auto text = row["text"].get<std::string>();
    const Ids ids = tokenizer.encode(text);
    EXPECT_EQ(ids, row["small"].get<Ids>()) << row["text"];
    EXPECT_EQ(tokenizer.decode(ids), text);
  }
}

TEST(Bpe, EncodesAsTiktokenWithGpt2sVocabulary) {
  SKIP_WITHOUT_DATA();
  const auto tokenizer = load_tokenizer(fs::path(data_folder()) / "gpt2");
  EXPECT_EQ(tokenizer->vocab_size(), 50257);
  EXPECT_EQ(tokenizer->end_of_text(), 50256);
  for (const auto& row : nlohmann::json::parse(golden("tokenizer_strings.json"))) {
    const auto text = row["text"].get<std::string>();
    EXPECT_EQ(tokenizer->encode(text), row["gpt2"].get<Ids>()) << row["text"];
  }
  EXPECT_EQ(tokenizer->encode_with_special("Hello<|endoftext|>"), (Ids{15496, 50256}));
}

TEST(Bpe, EncodesTinyShakespeareAndTheVerdict) {
  SKIP_WITHOUT_DATA();
  const auto tokenizer = load_tokenizer(fs::path(data_folder()) / "gpt2");
  const auto expected = nlohmann::json::parse(golden("tokenizer_gpt2.json"));
  for (const auto& [name, known] : expected.items()) {
    const std::string text = read_file(fs::path(data_folder()) / name);
    const Ids ids = tokenizer->encode(text);
    EXPECT_EQ(ids.size(), known["tokens"].get<std::size_t>()) << name;
    EXPECT_EQ(fnv1a(ids), known["fnv1a"].get<std::string>()) << name;
    EXPECT_EQ(tokenizer->decode(ids), text) << name;
  }
}

TEST(Bpe, AnyBytesComeBack) {
  const BpeTokenizer tokenizer(train_sample());
  PhiloxSequence random(7, stream_id("any bytes"));
  for (int round = 0; round < 300; ++round) {
    std::string bytes(random.below(200), '\0');
    for (char& b : bytes) b = static_cast<char>(random.below(256));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(bytes)), bytes);
  }
}

TEST(Bpe, ScanAndHeapAgree) {
  const BpeTokenizer tokenizer(train_sample());
  PhiloxSequence random(9, stream_id("scan and heap"));
  for (int round = 0; round < 200; ++round) {
    std::string piece(random.below(300), '\0');
    for (char& c : piece) c = " theandwilso"[random.below(12)];
    Ids scan, heap;
    tokenizer.encode_piece_scan(piece, scan);
    tokenizer.encode_piece_heap(piece, heap);
    EXPECT_EQ(scan, heap) << piece;
  }
}

TEST(Bpe, ThreadsChangeNothing) {
  const BpeTokenizer tokenizer(train_sample());
  std::string text;
  while (text.size() < (std::size_t{3} << 20)) text += golden("tokenizer_sample.txt");
  const int before = thread_count();
  set_thread_count(1);
  const Ids one = tokenizer.encode(text);
  set_thread_count(4);
  const Ids four = tokenizer.encode(text);
  std::vector<std::string_view> lines = split_parts(text, 100);
  const auto batch = tokenizer.encode_batch(lines);
  set_thread_count(before);
  EXPECT_EQ(one, four);
  Ids joined;
  for (const Ids& ids : batch) joined.insert(joined.end(), ids.begin(), ids.end());
  EXPECT_EQ(one, joined);
}

TEST(Bpe, AMegabyteWithoutSpacesIsNotQuadratic) {
  const BpeTokenizer tokenizer(train_sample());
  std::string letters(1 << 20, '\0');
  PhiloxSequence random(11, stream_id("letters"));
  for (char& c : letters) c = "thewingardomx"[random.below(13)];
  // Looking at a million neighbours half a million times would take hours.
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(letters)), letters);
  const std::string same(1 << 20, 'a');
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(same)), same);
}

TEST(Bpe, SpecialTokensAreRecognisedOnlyOnRequest) {
  BpeModel model = train_sample(400);
  model.special_tokens.push_back(400);
  model.tokens.emplace_back("<|endoftext|>more");
  const BpeTokenizer tokenizer(model);
  const std::string text = "a<|endoftext|> the<|endoftext|>more";
  const Ids plain = tokenizer.encode(text);
  for (const std::int32_t id : plain) EXPECT_LT(id, 399);
  EXPECT_EQ(tokenizer.decode(plain), text);
  Ids expected = tokenizer.encode("a");
  expected.push_back(399);
  for (const std::int32_t id : tokenizer.encode(" the")) expected.push_back(id);
  expected.push_back(400);  // the longer of the two that begin here
  EXPECT_EQ(tokenizer.encode_with_special(text), expected);
  EXPECT_EQ(tokenizer.decode(expected), text);
}

TEST(Bpe, RefusesIdsOutsideTheVocabulary) {
  const BpeTokenizer tokenizer(train_sample(300));
  EXPECT_SENTENCE(tokenizer.decode(Ids{1, 300}), "there is no token 300: the vocabulary has 300 tokens");
  EXPECT_SENTENCE(tokenizer.decode(Ids{-1}), "no token -1");
}

// ---- Files ----

TEST(Files, SpellingIsGpt2s) {
  EXPECT_EQ(spell_bytes("\n the\xc3\xa9\xad"), "ĊĠtheÃ©Ń");
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  EXPECT_EQ(unspell_bytes(spell_bytes(all)), all);
  EXPECT_SENTENCE(unspell_bytes("a b"), "stands for no byte");
  EXPECT_SENTENCE(unspell_bytes("日"), "stands for no byte");
}

TEST(Files, ATokenizerComesBackFromItsFolder) {
  TemporaryFolder folder;
  const std::string text = golden("tokenizer_sample.txt");
  const std::string_view view = text;
  std::vector<std::unique_ptr<Tokenizer>> tokenizers;
  tokenizers.push_back(std::make_unique<BpeTokenizer>(train_sample()));
  tokenizers.push_back(std::make_unique<CharTokenizer>(train_char_tokenizer({&view, 1})));
  tokenizers.push_back(std::make_unique<ByteTokenizer>());
  for (const auto& tokenizer : tokenizers) {
    const fs::path path = folder.path / std::string(tokenizer->kind());
    tokenizer->save(path);
    const auto loaded = load_tokenizer(path);
    EXPECT_EQ(loaded->kind(), tokenizer->kind());
    EXPECT_EQ(loaded->vocab_size(), tokenizer->vocab_size());
    EXPECT_EQ(loaded->end_of_text(), tokenizer->end_of_text());
    const Ids ids = loaded->encode(text);
    EXPECT_EQ(ids, tokenizer->encode(text));
    EXPECT_EQ(loaded->decode(ids), text);
  }
}

TEST(Files, Gpt2sOwnFilesAreWrittenAsTheyWere) {
  SKIP_WITHOUT_DATA();
  TemporaryFolder folder;
  const fs::path gpt2 = fs::path(data_folder()) / "gpt2";
  load_tokenizer(gpt2)->save(folder.path);
  EXPECT_EQ(lines_of(read_file(folder.path / "merges.txt")), lines_of(read_file(gpt2 / "merges.txt")));
  EXPECT_EQ(nlohmann::json::parse(read_file(folder.path / "vocab.json")),
            nlohmann::json::parse(read_file(gpt2 / "vocab.json")));
}

TEST(Files, RankFilesEncodeTheSame) {
  TemporaryFolder folder;
  const BpeModel model = train_sample();
  write_tiktoken_file(model, folder.path / "small.tiktoken");
  const BpeTokenizer from_ranks(read_tiktoken_file(folder.path / "small.tiktoken", {"<|endoftext|>"}));
  for (const auto& row : nlohmann::json::parse(golden("tokenizer_strings.json")))
    EXPECT_EQ(from_ranks.encode(row["text"].get<std::string>()), row["small"].get<Ids>()) << row["text"];
  EXPECT_EQ(from_ranks.end_of_text(), static_cast<std::int32_t>(model.tokens.size()) - 1);

  for (const char* bad :
       {"", "IQ== 1\n", "IQ==\n", "I!== 0\n", "IQ== 0x\n", "IQ== 0\nIg== 0\n", "IQ== 0\n"}) {
    write_file(folder.path / "bad.tiktoken", bad);
    EXPECT_SENTENCE(read_tiktoken_file(folder.path / "bad.tiktoken", {}), "bad.tiktoken");
  }
}

class DamagedFiles : public testing::Test {
 protected:
  void SetUp() override {
    BpeTokenizer(train_sample(300)).save(folder.path);
    vocab = nlohmann::json::parse(read_file(folder.path / "vocab.json"));
    merges = read_file(folder.path / "merges.txt");
  }
  std::string load_error() {
    return sentence([&] { load_tokenizer(folder.path); });
  }
  std::string error_with_vocab(const std::string& text) {
    write_file(folder.path / "vocab.json", text);
    return load_error();
  }
  std::string error_with_merges(const std::string& text) {
    write_file(folder.path / "merges.txt", text);
    return load_error();
  }
  TemporaryFolder folder;
  nlohmann::json vocab;
  std::string merges;
};

#define EXPECT_HAS(text, part) \
  EXPECT_NE((text).find(part), std::string::npos) << "the sentence is: " << (text)

TEST_F(DamagedFiles, Vocabulary) {
  EXPECT_HAS(error_with_vocab(""), "not valid JSON");
  EXPECT_HAS(error_with_vocab("{\"a\": 0"), "not valid JSON");
  EXPECT_HAS(error_with_vocab(std::string("\x00\xff\x12", 3)), "not valid JSON");
  EXPECT_HAS(error_with_vocab("[1]"), "an array");
  EXPECT_HAS(error_with_vocab("17"), "a number");
  EXPECT_HAS(error_with_vocab("{}"), "holds no tokens");
  EXPECT_HAS(error_with_vocab("{\"a\": \"b\"}"), "a string where its id should be");
  EXPECT_HAS(error_with_vocab("{\"a\": {\"b\": 1}}"), "an object where its id should be");
  EXPECT_HAS(error_with_vocab("{\"a\": -1}"), "id -1");
  EXPECT_HAS(error_with_vocab("{\"a\": 0.5}"), "0.5 where its id should be");
  EXPECT_HAS(error_with_vocab("{\"a\": 99999999999}"), "absurd id");
  EXPECT_HAS(error_with_vocab("{\"a\": 0, \"b\": 2}"), "ids end at 1");
  EXPECT_HAS(error_with_vocab("{\"a\": 0, \"b\": 0}"), "the same id 0");
  EXPECT_HAS(error_with_vocab("{\"a\": 0, \"a\": 1, \"<|endoftext|>\": 2}"), "\"a\" is there twice");
  EXPECT_HAS(error_with_vocab("{\"a\": 0, \"b\": 1}"), "no token \"<|endoftext|>\"");
  EXPECT_HAS(error_with_vocab("{\"a b\": 0, \"<|endoftext|>\": 1}"), "stands for no byte");
  EXPECT_HAS(error_with_vocab(std::string(100000, '[')), "an array");
  auto without_q = vocab;
  without_q["zz"] = without_q["q"];
  without_q.erase("q");
  EXPECT_HAS(error_with_vocab(without_q.dump()), "byte 113 has no token");
  fs::remove(folder.path / "vocab.json");
  EXPECT_HAS(load_error(), "vocab.json");
}

TEST_F(DamagedFiles, Merges) {
  EXPECT_HAS(error_with_merges(merges + "a\n"), "two tokens with a space between");
  EXPECT_HAS(error_with_merges(merges + "a b c\n"), "two tokens with a space between");
  EXPECT_HAS(error_with_merges(merges + " b\n"), "two tokens with a space between");
  EXPECT_HAS(error_with_merges(merges + "nowhere b\n"), "\"nowhere\" is not in vocab.json");
  EXPECT_HAS(error_with_merges(merges + "# @\n"), "\"#@\" is not in vocab.json");
  EXPECT_HAS(error_with_merges(merges + lines_of(merges)[1] + "\n"), "is there twice");
  EXPECT_HAS(error_with_merges(std::string("\x00\xff\x12\x20\x01", 5)), "line 1");
  fs::remove(folder.path / "merges.txt");
  EXPECT_HAS(load_error(), "merges.txt");
}

TEST_F(DamagedFiles, Configuration) {
  const auto with_config = [&](const std::string& text) {
    write_file(folder.path / "tokenizer_config.json", text);
    return load_error();
  };
  EXPECT_HAS(with_config("{"), "not valid JSON");
  EXPECT_HAS(with_config("[]"), "not a JSON object");
  EXPECT_HAS(with_config("{\"kind\": 3}"), "not a string");
  EXPECT_HAS(with_config("{\"kind\": \"wordpiece\"}"), "\"wordpiece\"");
  EXPECT_HAS(with_config("{\"kind\": \"bpe\", \"special_tokens\": [3]}"), "not a name");
  EXPECT_HAS(with_config("{\"kind\": \"char\"}"), "is not one character");
  EXPECT_HAS(sentence([&] { load_tokenizer(folder.path / "nowhere"); }), "there is no folder");
  EXPECT_HAS(sentence([&] { load_tokenizer(folder.path / "vocab.json"); }), "is not a folder");
  fs::create_directory(folder.path / "empty");
  EXPECT_HAS(sentence([&] { load_tokenizer(folder.path / "empty"); }), "holds no tokenizer");
}

TEST_F(DamagedFiles, AHuggingFaceConfigurationIsNoHindrance) {
  write_file(folder.path / "tokenizer_config.json", "{\"model_max_length\": 1024}");
  const auto tokenizer = load_tokenizer(folder.path);
  EXPECT_EQ(tokenizer->kind(), "bpe");
  EXPECT_EQ(tokenizer->end_of_text(), 299);
}

// ---- Characters and bytes ----

TEST(Char, TakesTheCharactersOfTheText) {
  const std::string_view text = "baz\nça";
  const CharTokenizer tokenizer = train_char_tokenizer({&text, 1});
  EXPECT_EQ(tokenizer.vocab_size(), 5);
  EXPECT_EQ(tokenizer.encode("çab\n"), (Ids{4, 1, 2, 0}));
  EXPECT_EQ(tokenizer.decode(Ids{4, 1, 2, 0}), "çab\n");
  EXPECT_EQ(tokenizer.end_of_text(), std::nullopt);
  EXPECT_SENTENCE(tokenizer.encode("ab!"), "'!' U+0021 at byte 2");
  EXPECT_SENTENCE(tokenizer.encode("aé"), "'é' U+00E9 at byte 1");
  EXPECT_SENTENCE(tokenizer.encode("a\t"), "the character U+0009 at byte 1");
  EXPECT_SENTENCE(tokenizer.encode("a\xff"), "0xff) is not valid UTF-8");
  EXPECT_SENTENCE(tokenizer.token_bytes(5), "no token 5");
  const std::string_view invalid = "ab\x80";
  EXPECT_SENTENCE(train_char_tokenizer({&invalid, 1}), "byte 2 of text 1");
  EXPECT_SENTENCE(train_char_tokenizer({}), "no text");
  Ids ids{3};
  EXPECT_ANY_THROW(tokenizer.encode_append("ab!", ids));
  EXPECT_EQ(ids, Ids{3});  // nothing appended
}

TEST(Char, TinyShakespeareHas65) {
  SKIP_WITHOUT_DATA();
  const std::string text = read_file(fs::path(data_folder()) / "tinyshakespeare.txt");
  const std::string_view view = text;
  const CharTokenizer tokenizer = train_char_tokenizer({&view, 1});
  EXPECT_EQ(tokenizer.vocab_size(), 65);  // nanoGPT's data/shakespeare_char prints it
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(Byte, IsTheBytes) {
  const ByteTokenizer tokenizer;
  EXPECT_EQ(tokenizer.encode("a\xff"), (Ids{97, 255}));
  EXPECT_EQ(tokenizer.decode(Ids{97, 255}), "a\xff");
  EXPECT_EQ(tokenizer.encode_with_special("a<|endoftext|>"), (Ids{97, 256}));
  EXPECT_EQ(tokenizer.end_of_text(), 256);
  EXPECT_SENTENCE(tokenizer.decode(Ids{257}), "no token 257");
}

}  // namespace
}  // namespace llm
