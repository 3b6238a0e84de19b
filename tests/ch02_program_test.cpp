// The program ch02_tokenizer as a person meets it: exit codes, one sentence on stderr, whole files or none.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/text/token_shard.h"
#include "common/tokenizer/tokenizer.h"

namespace llm {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  int code = -1;
  std::string out;
  std::string error;  // without the first line, which says what the program runs on
};

class TokenizerProgram : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder = fs::temp_directory_path() / (std::string("llm_ch02_") + info->name() + std::to_string(getpid()));
    fs::remove_all(folder);
    fs::create_directories(folder);
    std::string text;
    for (int i = 0; i < 60; ++i) text += "the cat and the hat sat on the mat, said Zoë.\n";
    write_file(folder / "cat.txt", text);
    std::string lines;
    for (int i = 0; i < 40; ++i) lines += "{\"text\": \"the cat sat " + std::to_string(i) + "\"}\n";
    write_file(folder / "docs/train.jsonl", lines);
    write_file(folder / "docs/val.jsonl", "{\"text\": \"the hat\"}\n{\"text\": \"the mat\"}\n");
    write_file(folder / "docs/about.json", "{}\n");
  }
  void TearDown() override { fs::remove_all(folder); }

  /// Runs `ch02_tokenizer arguments...` in the folder; with `file_limit`, no file may grow beyond so many
  /// bytes.
  Outcome run(const std::vector<std::string>& arguments, rlim_t file_limit = 0) const {
    const std::string program = fs::absolute(fs::path(LLM_BIN_DIR) / "ch02_tokenizer").string();
    const fs::path out = folder / ".out", error = folder / ".error";
    const pid_t child = fork();
    if (child == 0) {
      if (chdir(folder.c_str()) != 0 || freopen(out.c_str(), "w", stdout) == nullptr ||
          freopen(error.c_str(), "w", stderr) == nullptr)
        _exit(99);
      if (file_limit > 0) {
        const rlimit limit{file_limit, file_limit};
        setrlimit(RLIMIT_FSIZE, &limit);
      }
      std::vector<char*> words = {const_cast<char*>(program.c_str())};
      for (const std::string& word : arguments) words.push_back(const_cast<char*>(word.c_str()));
      words.push_back(nullptr);
      execv(words[0], words.data());
      _exit(98);
    }
    int status = 0;
    waitpid(child, &status, 0);
    Outcome outcome{WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), read_file(out),
                    read_file(error)};
    if (outcome.error.starts_with("ch02_tokenizer on ")) outcome.error.erase(0, outcome.error.find('\n') + 1);
    fs::remove(out);
    fs::remove(error);
    return outcome;
  }

  Outcome run_ok(const std::vector<std::string>& arguments) const {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.error;
    return outcome;
  }

  std::set<std::string> listing() const {
    std::set<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) names.insert(entry.path().string());
    return names;
  }

  /// Expects this exit code, a last line on stderr with these words, nothing on stdout, and that nothing was
  /// left.
  void expect_refused(const std::vector<std::string>& arguments, int code, const std::string& words,
                      rlim_t file_limit = 0) const {
    const auto before = listing();
    const Outcome outcome = run(arguments, file_limit);
    SCOPED_TRACE(fmt::format("{}", fmt::join(arguments, " ")));
    EXPECT_EQ(outcome.code, code) << outcome.error;
    EXPECT_EQ(outcome.out, "");
    const std::size_t last = outcome.error.rfind('\n', outcome.error.size() - 2);
    const std::string line = outcome.error.substr(last == std::string::npos ? 0 : last + 1);
    EXPECT_TRUE(line.starts_with("ch02_tokenizer: ")) << outcome.error;
    EXPECT_NE(line.find(words), std::string::npos) << outcome.error;
    EXPECT_EQ(listing(), before);
  }

  fs::path folder;
};

TEST_F(TokenizerProgram, TrainsEncodesAndDecodes) {
  for (const std::string kind : {"bpe", "char", "byte"}) {
    run_ok({"train", "cat.txt", "--kind", kind, "--vocab-size", "280", "--out", kind});
    const Outcome encoded = run_ok({"encode", "cat.txt", "--tokenizer", kind, "--out", kind + ".bin"});
    const TokenShard shard(folder / (kind + ".bin"));
    EXPECT_TRUE(encoded.out.starts_with(std::to_string(shard.size()) + " tokens")) << encoded.out;
    const Outcome decoded = run_ok({"decode", kind + ".bin", "--tokenizer", kind});
    EXPECT_EQ(decoded.out, read_file(folder / "cat.txt")) << kind;
  }
  EXPECT_EQ(TokenShard(folder / "byte.bin").size(),
            static_cast<std::int64_t>(fs::file_size(folder / "cat.txt")));
  EXPECT_EQ(load_tokenizer(folder / "bpe")->vocab_size(), 280);
}

TEST_F(TokenizerProgram, ATextOfAnyBytesComesBack) {
  std::string bytes;
  for (int i = 0; i < 1000; ++i) bytes += static_cast<char>(i * i % 256);
  write_file(folder / "any.txt", bytes);
  run_ok({"train", "cat.txt", "--vocab-size", "280", "--out", "t"});
  run_ok({"encode", "any.txt", "--tokenizer", "t", "--out", "any.bin"});
  EXPECT_EQ(run_ok({"decode", "any.bin", "--tokenizer", "t"}).out, bytes);
  write_file(folder / "empty.txt", "");
  EXPECT_TRUE(
      run_ok({"encode", "empty.txt", "--tokenizer", "t", "--out", "e.bin"}).out.starts_with("0 tokens"));
  EXPECT_EQ(run_ok({"decode", "e.bin", "--tokenizer", "t"}).out, "");
}

TEST_F(TokenizerProgram, ADocumentsFolderBecomesATokenFolder) {
  run_ok({"train", "docs", "--vocab-size", "270", "--out", "t"});
  run_ok({"encode", "docs", "--tokenizer", "t", "--out", "t"});  // into the tokenizer's own folder
  const auto tokenizer = load_tokenizer(folder / "t");
  const std::int32_t end = tokenizer->end_of_text().value();
  const TokenShard train(folder / "t/train.bin"), val(folder / "t/val.bin");
  EXPECT_EQ(std::count(train.tokens().begin(), train.tokens().end(), end), 40);
  const std::vector<std::int32_t> ids(val.tokens().begin(), val.tokens().end());
  EXPECT_EQ(tokenizer->decode(ids), "the hat<|endoftext|>the mat<|endoftext|>");
  EXPECT_EQ(read_file(folder / "t/val.jsonl"), read_file(folder / "docs/val.jsonl"));
  EXPECT_TRUE(fs::exists(folder / "t/about.json"));
}

TEST_F(TokenizerProgram, WithoutEndOfTextDocumentsAreJoinedByLineBreaks) {
  run_ok({"train", "docs", "--kind", "char", "--out", "t"});
  run_ok({"encode", "docs", "--tokenizer", "t", "--out", "tokens"});
  EXPECT_EQ(run_ok({"decode", "tokens/val.bin", "--tokenizer", "tokens"}).out, "the hat\nthe mat");
}

TEST_F(TokenizerProgram, WritesMetrics) {
  run_ok({"train", "cat.txt", "--vocab-size", "280", "--out", "t", "--metrics", "m.jsonl"});
  const auto record = nlohmann::json::parse(read_file(folder / "m.jsonl"));
  EXPECT_EQ(record["vocab_size"], 280);
}

TEST_F(TokenizerProgram, RefusesWrongUsage) {
  expect_refused({"train", "cat.txt", "--out", "t", "--vocab-size", "256"}, 2, "--vocab-size");
  expect_refused({"train", "cat.txt", "--out", "t", "--vocab-size", "70000"}, 2, "--vocab-size");
  expect_refused({"train", "cat.txt", "--out", "t", "--kind", "wordpiece"}, 2, "--kind");
  expect_refused({"train", "cat.txt"}, 2, "--out");
  expect_refused({"encode", "cat.txt", "--out", "x.bin"}, 2, "--tokenizer");
  expect_refused({"nonsense"}, 2, "nonsense");
}

TEST_F(TokenizerProgram, RefusesBadInput) {
  expect_refused({"train", "nowhere.txt", "--out", "t"}, 1, "nowhere.txt");
  write_file(folder / "empty.txt", "");
  expect_refused({"train", "empty.txt", "--out", "t"}, 1, "empty.txt");
  write_file(folder / "binary.txt", std::string("ab\xff\x00", 4));
  expect_refused({"train", "binary.txt", "--out", "t"}, 1, "binary.txt");
  write_file(folder / "bad.jsonl", "{\"text\": \"a\"}\n{\"text\": \n");
  expect_refused({"train", "bad.jsonl", "--out", "t"}, 1, "bad.jsonl");
  expect_refused({"train", "cat.txt", "--out", "."}, 1, "would be lost");
  expect_refused({"train", "cat.txt", "--out", "docs"}, 1, "would be lost");
  expect_refused({"train", "cat.txt", "--out", "cat.txt"}, 1, "is a file");

  run_ok({"train", "cat.txt", "--kind", "char", "--out", "chars"});
  run_ok({"train", "cat.txt", "--vocab-size", "280", "--out", "t"});
  expect_refused({"encode", "nowhere", "--tokenizer", "t", "--out", "x.bin"}, 1, "nowhere");
  expect_refused({"encode", "cat.txt", "--tokenizer", "nowhere", "--out", "x.bin"}, 1, "nowhere");
  expect_refused({"encode", "cat.txt", "--tokenizer", "docs", "--out", "x.bin"}, 1, "holds no tokenizer");
  expect_refused({"encode", "cat.txt", "--tokenizer", "t", "--out", "docs"}, 2, "is a folder");
  expect_refused({"encode", "docs", "--tokenizer", "t", "--out", "docs"}, 1, "would be lost");
  expect_refused({"encode", "cat.txt", "--tokenizer", "chars", "--out", "x.bin", "--end-of-text"}, 1,
                 "<|endoftext|>");
  write_file(folder / "other.txt", "cat\xc3\xa9");
  expect_refused({"encode", "other.txt", "--tokenizer", "chars", "--out", "x.bin"}, 1, "U+00E9");

  expect_refused({"decode", "nowhere.bin", "--tokenizer", "t"}, 1, "nowhere.bin");
  expect_refused({"decode", "cat.txt", "--tokenizer", "t"}, 1, "not a token shard");
  run_ok({"encode", "cat.txt", "--tokenizer", "t", "--out", "cat.bin"});
  expect_refused({"decode", "cat.bin", "--tokenizer", "chars"}, 1, "another tokenizer");
  const std::string whole = read_file(folder / "cat.bin");
  write_file(folder / "short.bin", whole.substr(0, whole.size() - 7));
  expect_refused({"decode", "short.bin", "--tokenizer", "t"}, 1, "short.bin");
}

TEST_F(TokenizerProgram, RefusesAVocabularyThatDoesNotFitInAShard) {
  // All 256 bytes, then pairs and triples of letters until there are more than 65,536.
  run_ok({"train", "cat.txt", "--vocab-size", "257", "--out", "large"});
  auto vocab = nlohmann::json::parse(read_file(folder / "large/vocab.json"));
  for (int i = 0; vocab.size() < 65537; ++i) {
    std::string token;
    for (int k = 0, rest = i; k < 4; ++k, rest /= 20) token += static_cast<char>('a' + rest % 20);
    vocab[token] = vocab.size();
  }
  write_file(folder / "large/vocab.json", vocab.dump());
  expect_refused({"encode", "cat.txt", "--tokenizer", "large", "--out", "x.bin"}, 1, "16-bit");
  expect_refused({"encode", "docs", "--tokenizer", "large", "--out", "tokens"}, 1, "16-bit");
}

TEST_F(TokenizerProgram, AFullDiskLeavesNothing) {
  run_ok({"train", "cat.txt", "--vocab-size", "280", "--out", "t"});
  expect_refused({"encode", "cat.txt", "--tokenizer", "t", "--out", "x.bin"}, 1, "x.bin", 1500);
  expect_refused({"train", "cat.txt", "--vocab-size", "280", "--out", "new"}, 1, "vocab.json", 1500);
  expect_refused({"encode", "docs", "--tokenizer", "t", "--out", "new"}, 1, "cannot", 1100);
}

TEST_F(TokenizerProgram, EncodesAsPublishedForTinyShakespeareAndTheVerdict) {
  const char* data = std::getenv("LLM_DATA");
  if (!data) GTEST_SKIP() << "set LLM_DATA to a folder with gpt2/, tinyshakespeare.txt and the-verdict.txt";
  for (const auto& [name, tokens] :
       {std::pair("tinyshakespeare.txt", "338025 "), std::pair("the-verdict.txt", "5145 ")}) {
    const std::string text = (fs::path(data) / name).string(), gpt2 = (fs::path(data) / "gpt2").string();
    const Outcome encoded = run_ok({"encode", text, "--tokenizer", gpt2, "--out", "x.bin"});
    EXPECT_TRUE(encoded.out.starts_with(tokens)) << encoded.out;
    EXPECT_EQ(run_ok({"decode", "x.bin", "--tokenizer", gpt2}).out, read_file(text));
  }
}

TEST_F(TokenizerProgram, WalksFromDocumentsThatAreThere) {
  fs::create_directories(folder / "work");
  fs::rename(folder / "docs", folder / "work/ch01_data");
  const Outcome walk = run_ok({});
  EXPECT_NE(walk.out.find("Next: ch03_attention"), std::string::npos);
  EXPECT_EQ(walk.out.find('\x1b'), std::string::npos);  // no colours in a file
  EXPECT_TRUE(fs::exists(folder / "work/ch02_tokenizer/train.bin"));
  EXPECT_TRUE(fs::exists(folder / "work/ch02_tokenizer/val.jsonl"));
}

}  // namespace
}  // namespace llm
