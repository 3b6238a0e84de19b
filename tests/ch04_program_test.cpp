// The program of chapter 4 as a person runs it: what it writes, and how it refuses.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "common/core/file.h"
#include "common/model/huggingface.h"
#include "tests/ch04_model_helpers.h"

namespace llm {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  int code = -1;
  std::string errors;  // stderr
};

class Chapter4Program : public ::testing::Test {
 protected:
  void SetUp() override {
    folder = fs::temp_directory_path() / ("llm_ch04_program_" + std::to_string(::getpid()));
    fs::remove_all(folder);
    fs::create_directories(folder);
  }
  void TearDown() override { fs::remove_all(folder); }

  Outcome run(const std::string& arguments) const {
    const fs::path errors = folder / "errors";
    const std::string command = std::string(LLM_BIN_DIR "/ch04_gpt_model ") + arguments + " >" +
                                (folder / "output").string() + " 2>" + errors.string();
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(errors)};
  }
  void expect_refused(const std::string& arguments, int code, const std::string& part) const {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.code, code) << arguments << "\n" << outcome.errors;
    EXPECT_NE(outcome.errors.find(part), std::string::npos) << arguments << "\n" << outcome.errors;
  }

  fs::path folder;
  const std::string golden = LLM_GOLDEN_DIR "/model_tied";
};

TEST_F(Chapter4Program, WritesTheLogitsOfPyTorch) {
  const SafetensorsFile answers(golden + "/answers.safetensors");
  const Tensor tokens = testing::read_ids(answers, "tokens");
  const std::int64_t T = tokens.dim(1);
  std::string list;
  for (std::int64_t t = 0; t < T; ++t)
    list += (t > 0 ? "," : "") + std::to_string(tokens.data<std::int32_t>()[t]);
  const fs::path out = folder / "logits.safetensors";
  const Outcome outcome = run("logits --model " + golden + " --tokens " + list + " --out " + out.string());
  ASSERT_EQ(outcome.code, 0) << outcome.errors;
  const SafetensorsFile file(out);
  ASSERT_EQ(file.entries().size(), 1u);
  const Tensor logits = testing::read_tensor(file, "logits");
  EXPECT_EQ(logits.shape(), (Shape{T, 61}));
  EXPECT_LT(
      testing::relative_distance(logits.span(), testing::read_tensor(answers, "logits").slice(0, 1).span()),
      1e-5);
}

TEST_F(Chapter4Program, WritesTheSameLogitsOnTheDevice) {
  GptConfig config;
  config.vocab_size = 61;
  config.context = 8;
  config.channels = 64;
  config.layers = 2;
  config.heads = 2;
  GptStage model(config);
  testing::randomize(model, 3);
  save_huggingface(model, folder / "model");
  const fs::path here = folder / "cpu.safetensors", there = folder / "cuda.safetensors";
  const std::string command = "logits --model " + (folder / "model").string() + " --tokens 5,1,2,60,3 --out ";
  ASSERT_EQ(run(command + here.string()).code, 0);
  const Outcome outcome = run(command + there.string() + " --device cuda");
  ASSERT_EQ(outcome.code, 0) << outcome.errors;
  const SafetensorsFile a(here), b(there);
  EXPECT_LT(testing::relative_distance(testing::read_tensor(b, "logits").span(),
                                       testing::read_tensor(a, "logits").span()),
            1e-5);
}

TEST_F(Chapter4Program, RefusesWithOneSentence) {
  const std::string out = " --out " + (folder / "x.safetensors").string();
  expect_refused("logits --model /nowhere --tokens 1" + out, 1, "there is no model folder /nowhere");
  expect_refused("logits --model " + golden + " --tokens 1,61" + out, 1, "there is no token 61");
  expect_refused("logits --model " + golden + " --tokens -1" + out, 1, "there is no token -1");
  expect_refused("logits --model " + golden + " --tokens 1,x" + out, 2, "--tokens");
  expect_refused("logits --model " + golden +
                     " --tokens 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25" + out,
                 1, "do not fit into the model's context of 24");
  expect_refused("logits --model " + golden + " --tokens 1", 2, "--out");
  expect_refused("generate --model " + golden + " --prompt a", 1, "holds no tokenizer");
  expect_refused("generate --model " + golden + " --prompt a --temperature nan", 2, "--temperature");
  expect_refused("generate --model " + golden + " --prompt a --top-p 0", 2, "--top-p");
  expect_refused("generate --model " + golden, 2, "--prompt");
  EXPECT_FALSE(fs::exists(folder / "x.safetensors")) << "nothing is left behind";
}

}  // namespace
}  // namespace llm
