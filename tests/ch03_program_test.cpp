// The program of chapter 3 as a person runs it.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "common/core/file.h"
#include "common/model/huggingface.h"
#include "common/text/documents_folder.h"
#include "common/tokenizer/token_folder.h"

namespace llm {
namespace {

namespace fs = std::filesystem;

class Chapter3Program : public ::testing::Test {
 protected:
  void SetUp() override {
    folder = fs::temp_directory_path() / ("llm_ch03_program_" + std::to_string(::getpid()));
    fs::remove_all(folder);
    fs::create_directories(folder);
  }
  void TearDown() override { fs::remove_all(folder); }

  /// The exit code; what was printed is in output and errors.
  int run(const std::string& arguments) const {
    const std::string command = std::string(LLM_BIN_DIR "/ch03_attention ") + arguments + " >" +
                                (folder / "output").string() + " 2>" + (folder / "errors").string();
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  bool printed(const std::string& file, const std::string& part) const {
    return read_file(folder / file).find(part) != std::string::npos;
  }

  fs::path folder;
};

TEST_F(Chapter3Program, WalksAndLooksAtAModel) {
  const fs::path work = folder / "work", documents = work / "ch01_data", tokens = work / "ch02_tokenizer";
  StoryCorpusOptions options;
  options.bytes = 300'000;
  options.labels = options.questions = options.preferences = 10;
  write_story_corpus(documents, options);
  const auto tokenizer = train_tokenizer({documents}, {});
  write_token_folder(documents, *tokenizer, tokens);

  EXPECT_EQ(run("--work " + work.string()), 0) << read_file(folder / "errors");
  EXPECT_TRUE(printed("output", "attention, head 0"));
  EXPECT_TRUE(printed("output", "flash_mma (bf16)"));
  const bool watched =
      printed("output", "A prediction, not a measurement");  // this build sees what kernels do
  EXPECT_EQ(printed("output", "race in kernel 'transpose_tile"), watched);
  EXPECT_TRUE(fs::exists(work / "ch03_attention" / "similarity.svg"));
  EXPECT_TRUE(fs::exists(work / "ch03_attention" / "causal.svg"));

  GptConfig config;
  config.vocab_size = tokenizer->vocab_size();
  config.context = 16;
  config.channels = 8;
  config.layers = config.heads = 2;
  GptStage model(config);
  model.initialize(1);
  save_huggingface(model, folder / "model");
  tokenizer->save(folder / "model");
  const std::string look = "look --work " + work.string() + " --model " + (folder / "model").string();
  EXPECT_EQ(run(look + " --layer 1 --text 'Tom ran.'"), 0) << read_file(folder / "errors");
  EXPECT_TRUE(fs::exists(work / "ch03_attention" / "layer_1_head_1.svg"));
  EXPECT_EQ(run(look + " --layer 2"), 1);
  EXPECT_TRUE(printed("errors", "there is no layer 2: the model has layers 0 to 1"));
  EXPECT_EQ(run(look + " --text '" + std::string(200, 'x') + "'"), 1);
  EXPECT_TRUE(printed("errors", "the model takes 1 to 16"));
  EXPECT_EQ(run("look"), 2);
  EXPECT_EQ(run("look --model /nowhere"), 1);
}

}  // namespace
}  // namespace llm
