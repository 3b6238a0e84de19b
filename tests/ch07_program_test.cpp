// The program as a person meets it: a small model through every command, and input that is wrong.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/core/file.h"
#include "common/finetuning/lora.h"
#include "common/model/huggingface.h"
#include "common/text/documents_folder.h"
#include "common/tokenizer/token_folder.h"
#include "tests/mpirun.h"
#include "tests/run_shell.h"

namespace llm {
namespace {

namespace fs = std::filesystem;

class Finetuning : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = fs::temp_directory_path() / ("llm_ch07_" + std::to_string(getpid()));
    fs::remove_all(root_);
    StoryCorpusOptions options;
    options.bytes = 100'000;
    options.labels = options.questions = options.preferences = 10;
    write_story_corpus(root_ / "documents", options);
    TrainTokenizerOptions tokenizer;
    tokenizer.vocab_size = 400;
    train_tokenizer({root_ / "documents"}, tokenizer)->save(root_ / "base");
    GptConfig config;
    config.vocab_size = 400;
    config.context = 256;
    config.layers = 2;
    config.heads = 2;
    config.channels = 16;
    GptStage model(config);
    model.initialize(1);
    save_huggingface(model, root_ / "base");
  }
  static void TearDownTestSuite() { fs::remove_all(root_); }

  static ShellOutcome run(const std::string& arguments) {
    return run_shell(std::string(LLM_BIN_DIR) + "/ch07_finetuning " + arguments);
  }
  static std::string at(const std::string& name) { return (root_ / name).string(); }
  static std::string from_base(const std::string& out) {
    return "--model " + at("base") + " --out " + at(out) + " --steps 2 --batch 4 ";
  }
  /// The losses that a run wrote.
  static std::vector<double> losses(const std::string& out) {
    std::vector<double> all;
    std::ifstream file(root_ / out / "metrics.jsonl");
    for (std::string line; std::getline(file, line);)
      if (const auto record = nlohmann::json::parse(line); record.contains("loss"))
        all.push_back(record["loss"]);
    return all;
  }
  static inline fs::path root_;
};

TEST_F(Finetuning, ClassifiesAndSaysHow) {
  for (const std::string part : {"head", "lora"}) {
    const ShellOutcome o = run("classify " + from_base("classifier") + "--stories 60 --train " + part);
    ASSERT_EQ(o.exit_code, 0) << o.output;
    EXPECT_NE(o.output.find("precision"), std::string::npos) << o.output;
    for (const char* file : {"model.safetensors", "score.safetensors", "confusion.svg", "loss.svg"})
      EXPECT_TRUE(fs::exists(root_ / "classifier" / file)) << file;
  }
}

TEST_F(Finetuning, KeepsTheTestsTextsOutOfPretraining) {
  std::string lines;
  for (int i = 0; i < 40; ++i)
    lines += (i % 4 == 0 ? "spam\ttext " : "ham\ttext ") + std::to_string(i) + "\n";
  write_file(root_ / "lines.tsv", lines);
  const ShellOutcome o = run("texts --data " + at("lines.tsv") + " --out " + at("texts.jsonl"));
  ASSERT_EQ(o.exit_code, 0) << o.output;
  // 10 of each class are split 14 / 2 / 4.
  const std::string written = read_file(root_ / "texts.jsonl");
  EXPECT_EQ(std::count(written.begin(), written.end(), '\n'), 36) << written;
}

TEST_F(Finetuning, TeachesWithAdaptersAndMergesThem) {
  const ShellOutcome o =
      run("instruct " + from_base("instruct") + "--questions 20 --held-out 4 --lora 2 --pack");
  ASSERT_EQ(o.exit_code, 0) << o.output;
  const ShellOutcome m =
      run("merge --model " + at("base") + " --adapter " + at("instruct/adapter") + " --out " + at("merged"));
  ASSERT_EQ(m.exit_code, 0) << m.output;
  EXPECT_EQ(read_file(root_ / "merged" / "model.safetensors"),
            read_file(root_ / "instruct" / "model.safetensors"))
      << "the adapter merged now and the one merged after training give the same weights";
}

TEST_F(Finetuning, LearnsPreferencesAndRewards) {
  const ShellOutcome d = run("dpo " + from_base("dpo") + "--pairs 8 --held-out 4");
  ASSERT_EQ(d.exit_code, 0) << d.output;
  EXPECT_NE(d.output.find("loss 0.6931, margin 0.000"), std::string::npos)
      << "before the first step policy and reference are one\n"
      << d.output;
  const ShellOutcome g = run("grpo " + from_base("grpo") + "--group 2 --held-out 4");
  ASSERT_EQ(g.exit_code, 0) << g.output;
}

// Chapter 6's layouts; what they compute is tested in ch07_layouts_test.cpp.
TEST_F(Finetuning, TrainsOnSeveralRanks) {
  const std::string commands[] = {"instruct --questions 20 --held-out 2 --lora 2 ", "classify --stories 60 ",
                                  "dpo --pairs 8 --held-out 2 "};
  for (const std::string& command : commands) {
    std::vector<double> alone;
    for (const std::string layout : {"--accumulate 2", "--ranks 2", "--tp 2", "--pp 2"}) {
      const ShellOutcome o = run(command + from_base("layout") + layout);
      ASSERT_EQ(o.exit_code, 0) << o.output;
      const std::vector<double> now = losses("layout");
      ASSERT_EQ(now.size(), 2u) << o.output;
      if (alone.empty()) alone = now;
      if (layout == "--pp 2") {
        EXPECT_EQ(now, alone) << command;
      }
      for (std::size_t i = 0; i < 2; ++i)
        EXPECT_NEAR(now[i], alone[i], 1e-5 * alone[i]) << command << layout << ", step " << i + 1;
    }
  }
}

TEST_F(Finetuning, TrainsUnderMpirun) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  const std::string arguments = "instruct --questions 20 --held-out 2 --accumulate 2 ";
  ASSERT_EQ(run(arguments + from_base("threads") + "--ranks 2").exit_code, 0);
  const ShellOutcome o =
      run_shell(mpirun() + "-n 2 " LLM_BIN_DIR "/ch07_finetuning " + arguments + from_base("processes"));
  ASSERT_EQ(o.exit_code, 0) << o.output;
  EXPECT_EQ(losses("processes"), losses("threads"));
  EXPECT_EQ(read_file(root_ / "processes" / "model.safetensors"),
            read_file(root_ / "threads" / "model.safetensors"));
  for (const std::string line : {"ch07_finetuning on ", "After:"}) {
    ASSERT_NE(o.output.find(line), std::string::npos) << o.output;
    EXPECT_EQ(o.output.find(line), o.output.rfind(line)) << "said once\n" << o.output;
  }
}

TEST_F(Finetuning, Evaluates) {
  write_file(root_ / "choices.jsonl", "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 1}\n");
  write_file(root_ / "text.txt", "Some words.");
  const ShellOutcome o = run("evaluate --model " + at("base") + " --choices " + at("choices.jsonl") +
                             " --text " + at("text.txt") + " --questions 3");
  ASSERT_EQ(o.exit_code, 0) << o.output;
  for (const char* word : {"acc_norm", "bits per byte", "exact"})
    EXPECT_NE(o.output.find(word), std::string::npos) << o.output;
}

TEST_F(Finetuning, RefusesInOneSentence) {
  const auto fails = [&](int code, const std::string& arguments, const std::string& says) {
    const ShellOutcome o = run(arguments);
    EXPECT_EQ(o.exit_code, code) << arguments << "\n" << o.output;
    EXPECT_NE(o.output.find(says), std::string::npos) << arguments << "\n" << o.output;
  };
  fails(1, "--work " + at("nowhere"), "chapter 5 makes it");
  fails(1, "classify --model " + at("nowhere") + " --out " + at("x"), "has no model.safetensors");
  fails(2, "classify " + from_base("x") + "--train nothing", "there is no part named");
  fails(2, "classify " + from_base("x") + "--lora 4", "--train lora");
  fails(1, "classify " + from_base("x") + "--data " + at("base/vocab.json"), "expected a label");
  fails(2, "instruct " + from_base("x") + "--template jinja", "there is no template");
  fails(1, "instruct " + from_base("x") + "--data " + at("base/vocab.json"), "no JSON array");
  fails(2, "instruct " + from_base("x") + "--lora 4 --targets q_proj", "no linear layer's name");
  fails(2, "instruct " + from_base("x") + "--ranks 3", "3 micro-batches of one size");
  fails(2, "instruct " + from_base("x") + "--ranks 4 --accumulate 2", "4 data-parallel ranks");
  fails(2, "instruct " + from_base("x") + "--ranks 2 --pp 3", "cannot be shared out");
  fails(2, "classify " + from_base("x") + "--pp 4", "a model of 2 layers");
  fails(2, "instruct " + from_base("x") + "--tp 2 --lora 2 --lora-dropout 0.1", "tensor parallelism");
  fails(2, "dpo " + from_base("x") + "--pp 2 --zero 2", "ZeRO 2");
  fails(2, "grpo " + from_base("x") + "--ranks 2", "--ranks");
  fails(2, "dpo " + from_base("x") + "--beta 0", "--beta");
  fails(2, "grpo " + from_base("x") + "--group 1", "--group");
  fails(2, "evaluate --model " + at("base"), "nothing to evaluate on");
  fails(1, "merge --model " + at("base") + " --adapter " + at("base") + " --out " + at("x"),
        "adapter_config.json");
  EXPECT_FALSE(fs::exists(root_ / "x" / "model.safetensors"));
}

}  // namespace
}  // namespace llm
