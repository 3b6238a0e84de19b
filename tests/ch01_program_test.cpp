// The program ch01_data as a person meets it: exit codes, one sentence on stderr, whole files or none.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/text/documents.h"
#include "common/text/documents_folder.h"
#include "common/text/story.h"

namespace llm {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  int code = -1;
  std::string out;
  std::string error;  ///< stderr without its first line, which says what the program runs on
};

class DataProgram : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(program)) GTEST_SKIP() << "build " << program << " first";
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder = fs::temp_directory_path() / (std::string("llm_") + info->name() + std::to_string(getpid()));
    fs::remove_all(folder);
    fs::create_directories(folder);
  }
  void TearDown() override {
    if (!folder.empty()) fs::remove_all(folder);
  }

  /// Runs `ch01_data arguments...` in the folder; with `file_limit`, no file may grow beyond so many bytes.
  Outcome run(const std::vector<std::string>& arguments, rlim_t file_limit = 0) const {
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
    if (outcome.error.starts_with("ch01_data on "))
      outcome.error.erase(0, std::min(outcome.error.find('\n'), outcome.error.size() - 1) + 1);
    fs::remove(out);
    fs::remove(error);
    return outcome;
  }

  /// Expects this exit code, exactly one line on stderr, with these words in it, and that nothing was left.
  void expect_refused(const std::vector<std::string>& arguments, int code, const std::string& words,
                      rlim_t file_limit = 0) const {
    const auto before = listing();
    const Outcome outcome = run(arguments, file_limit);
    EXPECT_EQ(outcome.code, code) << outcome.error;
    EXPECT_EQ(std::count(outcome.error.begin(), outcome.error.end(), '\n'), 1) << outcome.error;
    EXPECT_NE(outcome.error.find(words), std::string::npos) << outcome.error;
    EXPECT_EQ(listing(), before) << "something was left behind";
  }

  std::vector<std::string> listing() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) names.push_back(entry.path().string());
    std::sort(names.begin(), names.end());
    return names;
  }
  void put(const std::string& name, const std::string& content) const {
    fs::create_directories((folder / name).parent_path());
    std::ofstream(folder / name, std::ios::binary) << content;
  }

  const std::string program = fs::absolute(std::string(LLM_BIN_DIR) + "/ch01_data").string();
  fs::path folder;
};

TEST_F(DataProgram, GeneratesTheSameFolderForAnyNumberOfThreads) {
  ASSERT_EQ(run({"generate", "--bytes", "2000000", "--seed", "7", "--out", "a", "--threads", "1"}).code, 0);
  ASSERT_EQ(run({"generate", "--bytes", "2000000", "--seed", "7", "--out", "b", "--threads", "3"}).code, 0);
  for (const char* name :
       {"train.jsonl", "val.jsonl", "labels.jsonl", "questions.jsonl", "preferences.jsonl", "about.json"})
    EXPECT_EQ(read_file(folder / "a" / name), read_file(folder / "b" / name)) << name;

  const DocumentsAbout about = read_documents_about(folder / "a");
  EXPECT_EQ(about.source, "story world");
  EXPECT_EQ(about.seed, 7U);
  EXPECT_EQ(about.copies, 0);
  const auto val = read_documents({folder / "a" / "val.jsonl"});
  EXPECT_EQ(about.val_documents, static_cast<std::int64_t>(val.size()));
  EXPECT_GE(about.train_bytes + about.val_bytes, 2000000);
  EXPECT_LT(about.train_bytes + about.val_bytes, 2001000);

  // The floor is the mean of what the judge, which reads the text alone, finds.
  double nats = 0, bytes = 0;
  for (const Document& document : val) {
    const Verdict verdict = judge_story(document.text);
    ASSERT_TRUE(verdict.valid) << document.text;
    nats -= verdict.log_probability;
    bytes += static_cast<double>(document.text.size());
  }
  ASSERT_TRUE(about.floor.has_value());
  EXPECT_NEAR(about.floor->nats_per_story, nats / static_cast<double>(val.size()), 1e-9 * nats);
  EXPECT_NEAR(about.floor->nats_per_byte, nats / bytes, 1e-9);
}

TEST_F(DataProgram, ReplacesADocumentsFolderButNoOther) {
  ASSERT_EQ(run({"generate", "--bytes", "100000", "--out", "d"}).code, 0);
  ASSERT_EQ(run({"generate", "--bytes", "100000", "--seed", "8", "--out", "d"}).code, 0);
  EXPECT_EQ(read_documents_about(folder / "d").seed, 8U);
  put("d/notes.txt", "mine");
  expect_refused({"generate", "--bytes", "100000", "--out", "d"}, 1, "holds notes.txt");
}

TEST_F(DataProgram, PreparesAnyText) {
  put("in/a.txt", "\xEF\xBB\xBFOne\r\nline \r\n");
  put("in/b.jsonl",
      "{\"text\": \"two\"}\n{\"text\": \"three\"}\n{\"text\": \"two\"}\n{\"text\": \" \\n\"}\n");
  put("in/c.csv", "1,2\n");
  const Outcome outcome =
      run({"prepare", "in", "--out", "d", "--val-fraction", "0.4", "--metrics", "m.jsonl"});
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  std::vector<std::string> texts;
  for (const char* name : {"train.jsonl", "val.jsonl"})
    for (const Document& document : read_documents({folder / "d" / name})) texts.push_back(document.text);
  std::sort(texts.begin(), texts.end());
  EXPECT_EQ(texts, (std::vector<std::string>{"One\nline\n", "three", "two"}));
  const DocumentsAbout about = read_documents_about(folder / "d");
  EXPECT_EQ(about.source, "in");
  EXPECT_EQ(about.copies, 1);
  EXPECT_FALSE(about.floor.has_value());
  const auto metrics = nlohmann::json::parse(read_file(folder / "m.jsonl"));
  EXPECT_EQ(metrics.at("train_documents").get<int>() + metrics.at("val_documents").get<int>(), 3);

  put("one.txt", "0123456789abcdefghij");
  ASSERT_EQ(run({"prepare", "one.txt", "--out", "e", "--no-cleaning"}).code, 0);
  EXPECT_EQ(read_documents({folder / "e" / "train.jsonl"})[0].text, "0123456789abcdefgh");
  EXPECT_EQ(read_documents({folder / "e" / "val.jsonl"})[0].text, "ij");
}

TEST_F(DataProgram, RefusesBadInputWithOneSentence) {
  put("empty.txt", "");
  put("white.txt", " \n\t\n");
  put("short.txt", "x");
  put("latin1.txt", "caf\xE9");
  put("binary.txt", std::string("\x7F"
                                "ELF\x02\0\0\xD0",
                                8));
  put("bad.jsonl", "{\"text\": \"ok\"}\n{\"text\": \"cut");
  put("cut.txt.gz", "\x1F\x8B\x08");
  put("folder/picture.png", "x");
  expect_refused({"prepare", "none.txt", "--out", "d"}, 1, "there is no file or folder none.txt");
  expect_refused({"prepare", "empty.txt", "--out", "d"}, 1, "empty.txt holds no text");
  expect_refused({"prepare", "white.txt", "--out", "d"}, 1, "nothing but white space");
  expect_refused({"prepare", "short.txt", "--out", "d"}, 1, "too short");
  expect_refused({"prepare", "latin1.txt", "--out", "d"}, 1,
                 "latin1.txt: byte 0xE9 at offset 3 is not UTF-8");
  expect_refused({"prepare", "binary.txt", "--out", "d"}, 1, "binary file");
  expect_refused({"prepare", "bad.jsonl", "--out", "d"}, 1, "bad.jsonl, line 2");
  expect_refused({"prepare", "cut.txt.gz", "--out", "d"}, 1, "cut short");
  expect_refused({"prepare", "folder", "--out", "d"}, 1, "no .txt, .jsonl or .ndjson file");
  expect_refused({"prepare", "latin1.txt", "--out", "empty.txt", "--invalid", "replace"}, 1,
                 "a file is in the way");
  expect_refused({"judge", "none.txt"}, 1, "none.txt");
  expect_refused({"judge", "empty.txt"}, 1, "holds no text");
}

TEST_F(DataProgram, RefusesWrongUsageWithCodeTwo) {
  put("a.txt", "some text that is long enough");
  expect_refused({"generate", "--bytes", "-5"}, 2, "--bytes");
  expect_refused({"generate", "--bytes", "1e99"}, 2, "--bytes");
  expect_refused({"generate", "--val-fraction", "nan"}, 2, "--val-fraction");
  expect_refused({"generate", "--labels", "-1"}, 2, "--labels");
  expect_refused({"prepare"}, 2, "inputs");
  expect_refused({"prepare", "a.txt", "--copies", "all"}, 2, "--copies");
  expect_refused({"prepare", "a.txt", "--val-fraction", "1"}, 2, "--val-fraction");
  expect_refused({"prepare", "a.txt", "--device", "tpu"}, 2, "tpu");
  expect_refused({"prepare", "a.txt", "--device", "cuda"}, 2, "nothing for a GPU");
  expect_refused({"judge"}, 2, "file");
  expect_refused({"frobnicate"}, 2, "frobnicate");
  put("d/a.txt", "x");
  expect_refused({"prepare", "d", "--out", "d"}, 2, "both input and output");
}

TEST_F(DataProgram, LeavesNothingOnAFullDisk) {
  // A limit on file sizes fails a write as a full disk does.
  expect_refused({"generate", "--bytes", "1000000", "--out", "d"}, 1, "File too large", 100'000);
  ASSERT_EQ(run({"generate", "--bytes", "100000", "--seed", "3", "--out", "d"}).code, 0);
  const std::string before = read_file(folder / "d" / "train.jsonl");
  expect_refused({"generate", "--bytes", "1000000", "--out", "d"}, 1, "File too large", 100'000);
  EXPECT_EQ(read_file(folder / "d" / "train.jsonl"), before);
}

TEST_F(DataProgram, JudgesStories) {
  const std::string good = generate_story(1, 1).text, other = generate_story(1, 2).text;
  std::string wrapped = other;  // as an editor would break it
  for (std::size_t at = 60; at < wrapped.size(); at += 60)
    if ((at = wrapped.find(' ', at)) == std::string::npos) {
      break;
    } else {
      wrapped[at] = '\n';
    }
  put("s.txt", good + "\r\n\r\n\n" + wrapped + "\n\nOnce upon a time.\n");
  const Outcome outcome = run({"judge", "s.txt", "--metrics", "m.jsonl"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.out.find("2 of 3 stories are valid (66.7%)"), std::string::npos) << outcome.out;
  std::ifstream lines(folder / "m.jsonl");
  std::string line;
  std::vector<nlohmann::json> records;
  while (std::getline(lines, line)) records.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(records.size(), 4U);
  EXPECT_TRUE(records[0].at("valid"));
  EXPECT_NEAR(records[0].at("log_probability").get<double>(), generate_story(1, 1).log_probability, 1e-9);
  EXPECT_TRUE(records[1].at("valid"));
  EXPECT_FALSE(records[2].at("valid"));
  EXPECT_NEAR(records[3].at("valid_share").get<double>(), 2.0 / 3, 1e-12);
}

TEST_F(DataProgram, WalksWithoutArguments) {
  const Outcome outcome = run({});
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  for (const char* words :
       {"The judge: valid", "How well can the next byte be told?", "Next: ch02_tokenizer"})
    EXPECT_NE(outcome.out.find(words), std::string::npos) << words;
  EXPECT_TRUE(fs::exists(folder / "work/ch01_data/about.json"));
  EXPECT_TRUE(fs::exists(folder / "work/ch01_data/lengths.svg"));

  // Documents that a person prepared are not overwritten.
  put("a.txt", "a text of my own, which stays");
  ASSERT_EQ(run({"prepare", "a.txt"}).code, 0);
  const Outcome again = run({});
  EXPECT_EQ(again.code, 0);
  EXPECT_NE(again.out.find("holds documents made of a.txt; they stay"), std::string::npos) << again.out;
  EXPECT_EQ(read_documents_about(folder / "work/ch01_data").source, "a.txt");
}

TEST_F(DataProgram, SaysWhatIsWrongWithADamagedAboutFile) {
  for (const char* content : {"", "{", "[]", "{\"source\": 7}", "\xFF"}) {
    put("work/ch01_data/about.json", content);
    EXPECT_THROW((void)read_documents_about(folder / "work/ch01_data"), Error) << content;
  }
  EXPECT_THROW((void)read_documents_about(folder / "nowhere"), Error);
}

}  // namespace
}  // namespace llm
