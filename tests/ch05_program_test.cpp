// The program as a person meets it: a run that is killed and goes on, and input that is wrong.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/core/file.h"
#include "common/text/documents_folder.h"
#include "common/tokenizer/token_folder.h"

namespace llm {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  int exit_code = -1;  // -1: killed by a signal
  std::string output;  // stdout and stderr
};

class Program : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = fs::temp_directory_path() / ("llm_ch05_" + std::to_string(getpid()));
    fs::remove_all(root_);
    StoryCorpusOptions options;
    options.bytes = 300'000;
    options.labels = options.questions = options.preferences = 10;
    write_story_corpus(root_ / "documents", options);
    TrainTokenizerOptions tokenizer;
    tokenizer.vocab_size = 600;
    write_token_folder(root_ / "documents", *train_tokenizer({root_ / "documents"}, tokenizer),
                       root_ / "data");
  }
  static void TearDownTestSuite() { fs::remove_all(root_); }

  /// Starts the program with output into a file.
  static pid_t start(const std::vector<std::string>& arguments, const fs::path& output) {
    std::vector<std::string> words = {std::string(LLM_BIN_DIR) + "/ch05_pretraining"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const pid_t child = fork();
    if (child == 0) {
      const int file = open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
      dup2(file, STDOUT_FILENO);
      dup2(file, STDERR_FILENO);
      std::vector<char*> argv;
      for (std::string& word : words) argv.push_back(word.data());
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(127);
    }
    return child;
  }

  static Outcome finish(pid_t child, const fs::path& output) {
    int status = 0;
    waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(output)};
  }

  static Outcome run(const std::vector<std::string>& arguments) {
    const fs::path output = root_ / "output.txt";
    return finish(start(arguments, output), output);
  }

  static std::vector<std::string> tiny_run(const fs::path& out, int threads, int context = 160) {
    return {"train",
            "--data",
            (root_ / "data").string(),
            "--out",
            out.string(),
            "--layers",
            "1",
            "--heads",
            "2",
            "--channels",
            "16",
            "--context",
            std::to_string(context),
            "--batch",
            "4",
            "--steps",
            "120",
            "--dropout",
            "0.1",
            "--save-every",
            "5",
            "--eval-every",
            "60",
            "--eval-batches",
            "1",
            "--sample-every",
            "1000",
            "--threads",
            std::to_string(threads)};
  }

  static inline fs::path root_;
};

int steps_in(const fs::path& metrics) {
  int lines = 0;
  std::ifstream in(metrics);
  for (std::string line; std::getline(in, line);) lines += line.find("\"loss\"") != std::string::npos;
  return lines;
}

bool has_ended(pid_t child) {
  siginfo_t info{};
  waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT);
  return info.si_pid == child;
}

TEST_F(Program, KilledRunsGoOnToTheSameBits) {
  std::random_device device;
  std::mt19937 random(device());
  const auto below = [&](unsigned end) { return static_cast<int>(random() % end); };
  const Outcome straight = run(tiny_run(root_ / "straight", 2, 40));
  ASSERT_EQ(straight.exit_code, 0) << straight.output;
  const std::string expected = read_file(root_ / "straight" / "model.safetensors");
  for (const int threads : {1, 2}) {
    const fs::path out = root_ / ("killed" + std::to_string(threads));
    std::vector<std::string> arguments = tiny_run(out, threads, 40);
    arguments.push_back("--resume");
    int kills = 0;
    for (int attempt = 0; attempt < 6; ++attempt) {
      const pid_t child = start(arguments, root_ / "output.txt");
      // Each gets some steps further and is killed anywhere in a step, a save among it; the first at its
      // start.
      const int steps = attempt == 0 ? 0 : 18 * (attempt - 1) + 1 + below(18);
      while (steps_in(out / "metrics.jsonl") < steps && !has_ended(child))
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      std::this_thread::sleep_for(std::chrono::microseconds(below(20'000)));
      kill(child, SIGKILL);
      kills += finish(child, root_ / "output.txt").exit_code == -1;
    }
    EXPECT_GT(kills, 2) << "the run was over before the kills: make it longer";
    const Outcome last = run(arguments);
    ASSERT_EQ(last.exit_code, 0) << last.output;
    EXPECT_TRUE(read_file(out / "model.safetensors") == expected)
        << threads << " threads, " << kills << " kills";
    // The metrics of all attempts together are those of one run: every step once.
    EXPECT_EQ(steps_in(out / "metrics.jsonl"), 120);
  }
}

TEST_F(Program, AnInterruptSavesAndStops) {
  const fs::path out = root_ / "interrupted";
  std::vector<std::string> arguments = tiny_run(out, 2);
  arguments[16] = "100000";  // --steps: longer than anyone waits
  const pid_t child = start(arguments, root_ / "output.txt");
  while (!fs::exists(out / "checkpoint" / "training.ckpt"))
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  kill(child, SIGINT);
  const Outcome stopped = finish(child, root_ / "output.txt");
  EXPECT_EQ(stopped.exit_code, 1) << stopped.output;
  EXPECT_NE(stopped.output.find("go on with --resume"), std::string::npos) << stopped.output;
}

TEST_F(Program, WrongInputGetsASentence) {
  const std::string data = (root_ / "data").string(), out = (root_ / "refused").string();
  const auto copy_data = [&](const std::string& name) {
    const fs::path to = root_ / name;
    fs::remove_all(to);
    fs::copy(root_ / "data", to, fs::copy_options::recursive);
    return to;
  };
  const fs::path no_val = copy_data("no_val");
  fs::remove(no_val / "val.bin");
  const fs::path cut = copy_data("cut");
  fs::resize_file(cut / "train.bin", 5001);
  const fs::path foreign = copy_data("foreign");
  std::ofstream(foreign / "train.bin") << "this is no shard";
  const fs::path empty = copy_data("empty");
  std::ofstream(empty / "train.bin").flush();
  // Tokens of a larger vocabulary than the tokenizer's.
  const fs::path other = copy_data("other");
  TrainTokenizerOptions small;
  small.vocab_size = 300;
  train_tokenizer({root_ / "documents"}, small)->save(other);
  ASSERT_EQ(run({"train", "--data", data, "--out", (root_ / "model").string(), "--steps", "2", "--layers",
                 "1", "--heads", "1", "--channels", "8", "--batch", "2", "--context", "160"})
                .exit_code,
            0);
  const std::string model = (root_ / "model").string();
  const fs::path nan = root_ / "nan";
  fs::copy(model, nan, fs::copy_options::recursive);
  {
    std::string weights = read_file(nan / "model.safetensors");
    for (std::size_t i = 0; i < 4; ++i)
      weights[weights.size() - 40 + i] = '\xFF';  // a float of all ones is a NaN
    write_file(nan / "model.safetensors", weights);
  }
  const fs::path damaged = root_ / "damaged";
  fs::copy(model, damaged, fs::copy_options::recursive);
  fs::resize_file(damaged / "checkpoint" / "training.ckpt", 1000);

  struct Case {
    std::vector<std::string> arguments;
    int exit_code;
    std::string words;
  };
  const std::vector<Case> cases = {
      {{"train", "--out", out}, 2, "--data"},
      {{"train", "--data", data}, 2, "--out"},
      {{"train", "--data", "/does/not/exist", "--out", out}, 1, "no folder"},
      {{"train", "--data", no_val.string(), "--out", out}, 1, "val.bin"},
      {{"train", "--data", cut.string(), "--out", out}, 1, "train.bin"},
      {{"train", "--data", foreign.string(), "--out", out}, 1, "train.bin"},
      {{"train", "--data", empty.string(), "--out", out}, 1, "train.bin"},
      {{"train", "--data", other.string(), "--out", out}, 1, "vocabulary"},
      {{"train", "--data", data, "--out", out, "--context", "1000000"}, 1, "context"},
      {{"train", "--data", data, "--out", out, "--context", "0"}, 2, "--context"},
      {{"train", "--data", data, "--out", out, "--context", "20", "--samples", "documents"},
       1,
       "longer context"},
      {{"train", "--data", data, "--out", out, "--samples", "sentences"}, 2, "sentences"},
      {{"train", "--data", data, "--out", out, "--layers", "-1"}, 2, "--layers"},
      {{"train", "--data", data, "--out", out, "--layers", "many"}, 2, "--layers"},
      {{"train", "--data", data, "--out", out, "--heads", "3", "--channels", "128"}, 2, "heads"},
      {{"train", "--data", data, "--out", out, "--layers", "1000", "--channels", "65536", "--heads", "1"},
       1,
       ""},
      {{"train", "--data", data, "--out", out, "--lr", "nan"}, 2, "--lr"},
      {{"train", "--data", data, "--out", out, "--lr", "0.001", "--min-lr", "0.1"}, 2, "rate"},
      {{"train", "--data", data, "--out", out, "--steps", "0"}, 2, "--steps"},
      {{"train", "--data", data, "--out", out, "--model", "gpt5"}, 2, "gpt5"},
      {{"train", "--data", data, "--out", out, "--device", "tpu"}, 2, "tpu"},
      {{"train", "--data", data, "--out", out, "--dtype", "bf16"}, 2, "--device cuda"},
      {{"train", "--data", data, "--out", out, "--dtype", "f16"}, 2, "f16"},
      {{"train", "--data", data, "--out", out, "--frobnicate"}, 2, "frobnicate"},
      {{"train", "--data", data, "--out", out, "--init-from", "/does/not/exist"}, 1, "exist"},
      {{"train", "--data", data, "--out", damaged.string(), "--resume"}, 1, "cut off"},
      {{"train", "--data", data, "--out", model, "--resume", "--steps", "7"},
       1,
       "resume with the same settings"},
      {{"eval", "--model", model, "--data", "/does/not/exist"}, 1, "no folder"},
      {{"eval", "--model", "/does/not/exist", "--data", data}, 1, "exist"},
      {{"eval", "--model", nan.string(), "--data", data}, 1, ""},
      {{"eval", "--data", data}, 2, "--model"},
      {{"bench", "--model", "gpt2-124m", "--tokens", "2000"}, 2, "context"},
      {{"bench", "--batch", "0"}, 2, "--batch"},
      {{"unknown"}, 2, "unknown"},
  };
  for (const Case& c : cases) {
    const Outcome outcome = run(c.arguments);
    std::string line;
    for (const std::string& word : c.arguments) line += word + " ";
    EXPECT_EQ(outcome.exit_code, c.exit_code) << line << "\n" << outcome.output;
    EXPECT_NE(outcome.output.find(c.words), std::string::npos) << line << "\n" << outcome.output;
    EXPECT_FALSE(fs::exists(root_ / "refused" / "model.safetensors")) << line;
  }
}

TEST_F(Program, AFullDiskKeepsThePreviousCheckpoint) {
  const fs::path out = root_ / "full";
  std::vector<std::string> arguments = tiny_run(out, 2, 40);
  ASSERT_EQ(run(arguments).exit_code, 0);
  const std::string before = read_file(out / "checkpoint" / "training.ckpt");
  // A limit of 10 kB per file (ulimit counts blocks of 1024 bytes) fails like a full disk.
  std::string line = "ulimit -f 10; exec '" + std::string(LLM_BIN_DIR) + "/ch05_pretraining'";
  for (const std::string& word : arguments) line += " '" + word + "'";
  line += " > '" + (root_ / "output.txt").string() + "' 2>&1";
  const int status = std::system(("bash -c \"" + line + "\"").c_str());
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_NE(read_file(root_ / "output.txt").find("training.ckpt"), std::string::npos)
      << read_file(root_ / "output.txt");
  EXPECT_TRUE(read_file(out / "checkpoint" / "training.ckpt") == before);
  EXPECT_FALSE(fs::exists(out / "checkpoint" / "training.ckpt.partial"));
}

TEST_F(Program, HelpNamesTheCommands) {
  const Outcome help = run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* word : {"train", "eval", "bench", "--seed", "--threads", "--device", "--metrics"})
    EXPECT_NE(help.output.find(word), std::string::npos) << word;
  EXPECT_EQ(run({"train", "--help"}).exit_code, 0);
}

}  // namespace
}  // namespace llm
