// The program as a person meets it: plans, schedules, and input that is wrong.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "common/core/file.h"

namespace llm {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  int exit_code = -1;  // -1: killed by a signal
  std::string output, errors;
};

class Ch06Program : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = fs::temp_directory_path() / ("llm_ch06_" + std::to_string(getpid()));
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  static void TearDownTestSuite() { fs::remove_all(root_); }

  static Outcome run(const std::vector<std::string>& arguments) {
    std::vector<std::string> words = {std::string(LLM_BIN_DIR) + "/ch06_multi_gpu"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const fs::path output = root_ / "output.txt", errors = root_ / "errors.txt";
    const pid_t child = fork();
    if (child == 0) {
      dup2(open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), STDOUT_FILENO);
      dup2(open(errors.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), STDERR_FILENO);
      std::vector<char*> argv;
      for (std::string& word : words) argv.push_back(word.data());
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(output), read_file(errors)};
  }

  static std::vector<nlohmann::json> records(const fs::path& path) {
    std::vector<nlohmann::json> result;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) result.push_back(nlohmann::json::parse(line));
    return result;
  }

  static inline fs::path root_;
};

TEST_F(Ch06Program, PlansALargeModel) {
  const fs::path metrics = root_ / "plan.jsonl", svg = root_ / "plan.svg";
  const Outcome plan = run({"plan", "--model", "70b", "--gpus", "1024", "--device", "h100-80g", "--metrics",
                            metrics.string(), "--svg", svg.string()});
  ASSERT_EQ(plan.exit_code, 0) << plan.errors;
  for (const char* words :
       {"70.6 G parameters", "MFU", "The best: pp", "What is not possible", "80 layers are too few"})
    EXPECT_NE(plan.output.find(words), std::string::npos) << words << "\n" << plan.output;
  int layouts = 0, refused = 0;
  double last = 0;
  for (const nlohmann::json& record : records(metrics)) {
    if (record["kind"] == "refused") {
      ++refused;
      EXPECT_FALSE(record["reason"].get<std::string>().empty());
      continue;
    }
    ++layouts;
    EXPECT_EQ(record["pp"].get<int>() * record["dp"].get<int>() * record["tp"].get<int>(), 1024);
    EXPECT_LE(record["bytes"].get<double>(), 80e9);
    EXPECT_GE(record["seconds"].get<double>(), last);
    last = record["seconds"];
    double parts = 0;
    for (const char* part :
         {"compute", "memory", "tensor", "overhead", "pipeline", "bubble", "data", "optimizer"})
      parts += record[part].get<double>();
    EXPECT_NEAR(parts, last, 1e-9 * last);
  }
  EXPECT_GT(layouts, 5);
  EXPECT_GT(refused, 5);
  const std::string picture = read_file(svg);
  EXPECT_NE(picture.find("<svg"), std::string::npos);
  EXPECT_NE(picture.find("forward of micro-batch 0"), std::string::npos);
}

TEST_F(Ch06Program, PlansAModelFromAFile) {
  const fs::path model = root_ / "tiny.json";
  std::ofstream(model)
      << R"({"n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 1000, "n_positions": 128})";
  const Outcome plan =
      run({"plan", "--model", model.string(), "--gpus", "4", "--batch", "8", "--device", "a100-40g"});
  EXPECT_EQ(plan.exit_code, 0) << plan.errors;
  EXPECT_NE(plan.output.find("tiny: 2 layers of 64 channels"), std::string::npos) << plan.output;
}

TEST_F(Ch06Program, SaysWhyNothingFits) {
  const Outcome plan = run({"plan", "--model", "405b", "--gpus", "8"});
  EXPECT_EQ(plan.exit_code, 1);
  EXPECT_NE(plan.output.find("of 80 GB: model states"), std::string::npos) << plan.output;
  EXPECT_NE(plan.errors.find("405b fits on 8 x h100-80g in no layout"), std::string::npos) << plan.errors;
}

TEST_F(Ch06Program, ShowsASchedule) {
  const Outcome outcome = run({"schedule", "--stages", "4", "--micro-batches", "8", "--kind", "1f1b"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  // Narayanan et al. 2021, figure 4 (top), the first device's line.
  EXPECT_NE(
      outcome.output.find("rank 0  F0 F1 F2 F3                   B0--- F4 B1--- F5 B2--- F6 B3--- F7 B4---"),
      std::string::npos)
      << outcome.output;
  EXPECT_NE(outcome.output.find("Bubble 0.3750; formula (p-1)/(v m) = 3/8 = 0.3750"), std::string::npos);
  EXPECT_NE(outcome.output.find("by rank: 4, 3, 2, 1"), std::string::npos);
}

TEST_F(Ch06Program, ShowsEveryKind) {
  for (const char* kind : {"gpipe", "1f1b", "interleaved"}) {
    const fs::path metrics = root_ / "schedule.jsonl", svg = root_ / "schedule.svg";
    const Outcome outcome =
        run({"schedule", "--kind", kind, "--stages", "8", "--micro-batches", "32", "--columns", "60",
             "--instructions", "--metrics", metrics.string(), "--svg", svg.string()});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
    EXPECT_NE(outcome.output.find("send the gradient of micro-batch 31"), std::string::npos);
    const std::vector<nlohmann::json> lines = records(metrics);
    ASSERT_EQ(lines.size(), 9U);
    EXPECT_NEAR(lines.back()["bubble"].get<double>(), lines.back()["formula"].get<double>(), 1e-12);
    EXPECT_NE(read_file(svg).find("</svg>"), std::string::npos);
    // The timelines fit.
    std::istringstream text(outcome.output.substr(0, outcome.output.find("rank 0:")));
    for (std::string line; std::getline(text, line);) EXPECT_LE(line.size(), 60U) << line;
  }
}

TEST_F(Ch06Program, FitsItsConstantsAgain) {
  const char* data = std::getenv("LLM_DATA");
  if (data == nullptr || !fs::exists(fs::path(data) / "published_tables"))
    GTEST_SKIP() << "LLM_DATA does not name a folder with published_tables";
  const Outcome outcome = run({"calibrate", "--tables", (fs::path(data) / "published_tables").string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  for (const char* words : {"megatron:", "nanotron:", "gemm_efficiency"})
    EXPECT_NE(outcome.output.find(words), std::string::npos) << outcome.output;
}

TEST_F(Ch06Program, WrongInputGetsASentence) {
  std::ofstream(root_ / "broken.json") << "{\"n_layer\": 12,";
  std::ofstream(root_ / "short.json") << "{\"n_layer\": 12}";
  std::ofstream(root_ / "odd.json")
      << R"({"n_layer": 2, "n_embd": 65, "n_head": 4, "vocab_size": 1000, "n_positions": 128})";
  struct Case {
    std::vector<std::string> arguments;
    int exit_code;
    std::string words;
  };
  const std::vector<Case> cases = {
      {{"plan", "--model", "71b"}, 2, "there is no model '71b'"},
      {{"plan", "--model", "/does/not/exist.json"}, 1, "exist.json"},
      {{"plan", "--model", (root_ / "broken.json").string()}, 1, "not a JSON object"},
      {{"plan", "--model", (root_ / "short.json").string()}, 1, "does not say"},
      {{"plan", "--model", (root_ / "odd.json").string()}, 2, "multiple of heads"},
      {{"plan", "--device", "h100"}, 2, "there is no device 'h100'"},
      {{"plan", "--calibration", "none"}, 2, "there is no calibration"},
      {{"plan", "--gpus", "0"}, 2, "--gpus"},
      {{"plan", "--gpus", "many"}, 2, "--gpus"},
      {{"plan", "--batch", "-1"}, 2, "--batch"},
      {{"plan", "--model", "8b", "--gpus", "1", "--svg", (root_ / "x.svg").string()}, 1, "in no layout"},
      {{"plan", "--model", "gpt2-124m", "--gpus", "1", "--svg", (root_ / "x.svg").string()},
       1,
       "no schedule to draw"},
      {{"schedule", "--kind", "zigzag"}, 2, "zigzag"},
      {{"schedule", "--kind", "interleaved", "--stages", "4", "--micro-batches", "6"},
       2,
       "multiple of its 4 ranks"},
      {{"schedule", "--kind", "1f1b", "--chunks", "2"}, 2, "need the interleaved schedule"},
      {{"schedule", "--stages", "0"}, 2, "--stages"},
      {{"schedule", "--svg", (root_ / "broken.json" / "x.svg").string()}, 1, "broken.json"},
      {{"calibrate"}, 2, "--tables"},
      {{"calibrate", "--tables", "/does/not/exist"}, 1, "exist"},
      {{"unknown"}, 2, "unknown"},
  };
  for (const Case& c : cases) {
    const Outcome outcome = run(c.arguments);
    std::string line;
    for (const std::string& word : c.arguments) line += word + " ";
    EXPECT_EQ(outcome.exit_code, c.exit_code) << line << "\n" << outcome.errors;
    EXPECT_NE(outcome.errors.find(c.words), std::string::npos) << line << "\n" << outcome.errors;
    EXPECT_FALSE(fs::exists(root_ / "x.svg")) << line;
  }
}

TEST_F(Ch06Program, HelpNamesTheCommands) {
  const Outcome help = run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* word : {"plan", "schedule", "calibrate", "--metrics"})
    EXPECT_NE(help.output.find(word), std::string::npos) << word;
  EXPECT_EQ(run({"plan", "--help"}).exit_code, 0);
}

}  // namespace
}  // namespace llm
