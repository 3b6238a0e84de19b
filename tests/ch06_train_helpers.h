// A small run of `ch06_multi_gpu train`, for tests that start the program: as threads, and under mpirun.
#pragma once

#include <gtest/gtest.h>

#include <unistd.h>
#include <filesystem>
#include <string>

#include "common/core/file.h"
#include "common/text/documents_folder.h"
#include "common/tokenizer/token_folder.h"
#include "tests/mpirun.h"
#include "tests/run_shell.h"

namespace llm {

namespace fs = std::filesystem;

class TrainProgram : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = fs::temp_directory_path() / ("llm_ch06_train_" + std::to_string(getpid()));
    fs::remove_all(root_);
    StoryCorpusOptions stories;
    stories.bytes = 60'000;
    stories.labels = stories.questions = stories.preferences = 10;
    write_story_corpus(root_ / "documents", stories);
    TrainTokenizerOptions characters;
    characters.kind = "char";
    write_token_folder(root_ / "documents", *train_tokenizer({root_ / "documents"}, characters),
                       root_ / "data");
  }
  static void TearDownTestSuite() { fs::remove_all(root_); }

  static std::string program(const fs::path& out, const std::string& options) {
    return std::string(LLM_BIN_DIR) + "/ch06_multi_gpu train --data " + (root_ / "data").string() +
           " --out " + out.string() +
           " --layers 4 --heads 2 --channels 16 --context 16 --samples windows --batch 2 --accumulate 4"
           " --eval-batches 2 " +
           options;
  }
  static std::string weights(const fs::path& out) { return read_file(out / "model.safetensors"); }

  static inline fs::path root_;
};

}  // namespace llm
