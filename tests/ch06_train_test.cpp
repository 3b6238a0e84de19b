// `ch06_multi_gpu train` as a person meets it: threads and processes, another layout on resuming, a rank that
// dies, a full disk.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include "common/core/file.h"
#include "common/text/documents_folder.h"
#include "common/tokenizer/token_folder.h"
#include "tests/run_shell.h"

namespace llm {
namespace {

namespace fs = std::filesystem;

class Train : public testing::Test {
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
  static bool has_mpi() { return fs::exists(LLM_BIN_DIR "/../tests/mpi_ranks"); }
  static std::string mpirun(int ranks) {
    return "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 "
           "OMPI_MCA_btl_vader_eager_limit=64 OMPI_MCA_btl=self,vader "
           "OMPI_MCA_btl_vader_single_copy_mechanism=none ASAN_OPTIONS=detect_leaks=0 LLM_DEADLINE=20 "
           "timeout -k 5 200 mpirun -n " +
           std::to_string(ranks) + " --map-by :OVERSUBSCRIBE --bind-to none ";
  }
  static std::string weights(const fs::path& out) { return read_file(out / "model.safetensors"); }

  static inline fs::path root_;
};

TEST_F(Train, ThreadsAndProcessesWriteTheSameModel) {
  const ShellOutcome threads = run_shell(program(root_ / "threads", "--steps 6 --ranks 4 --pp 2 --tp 2"));
  ASSERT_EQ(threads.exit_code, 0) << threads.output;
  if (!has_mpi()) GTEST_SKIP() << "this build has no MPI";
  const ShellOutcome processes =
      run_shell(mpirun(4) + program(root_ / "processes", "--steps 6 --pp 2 --tp 2"));
  ASSERT_EQ(processes.exit_code, 0) << processes.output;
  EXPECT_EQ(weights(root_ / "threads"), weights(root_ / "processes"));
}

TEST_F(Train, GoesOnUnderAnotherLayout) {
  ASSERT_EQ(run_shell(program(root_ / "straight", "--steps 6 --ranks 1")).exit_code, 0);
  const fs::path out = root_ / "layouts";
  ASSERT_EQ(run_shell(program(out, "--steps 6 --save-every 3 --ranks 2 --pp 2")).exit_code, 0);
  const ShellOutcome again = run_shell(program(out, "--steps 6 --ranks 4 --tp 2 --zero 3 --resume"));
  EXPECT_EQ(again.exit_code, 0) << again.output;
  EXPECT_NE(again.output.find("Going on after step 6"), std::string::npos) << again.output;
  EXPECT_EQ(weights(root_ / "straight"), weights(out));  // a pipeline changes no bit, nor does resuming
  const ShellOutcome other = run_shell(program(out, "--steps 6 --ranks 2 --lr 0.5 --resume"));
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_NE(other.output.find("resume with the same settings"), std::string::npos) << other.output;
}

TEST_F(Train, SaysWhatDoesNotGoTogether) {
  for (const char* options : {"--ranks 3 --pp 2", "--ranks 8", "--ranks 2 --pp 2 --zero 2",
                              "--ranks 5 --pp 5", "--ranks 2 --schedule fast", "--ranks 2 --chunks 2"}) {
    const ShellOutcome outcome = run_shell(program(root_ / "never", options));
    EXPECT_EQ(outcome.exit_code, 2) << options << "\n" << outcome.output;
  }
  EXPECT_FALSE(fs::exists(root_ / "never" / "model.safetensors"));
}

TEST_F(Train, AFullDiskEndsAllRanksWithOneSentence) {
  // 8 blocks of 1024 bytes are fewer than a shard takes.
  const ShellOutcome outcome =
      run_shell("bash -c 'ulimit -f 8; exec " +
                program(root_ / "full", "--steps 4 --save-every 1 --ranks 4 --zero 1'"));
  EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
  EXPECT_NE(outcome.output.find("rank "), std::string::npos) << outcome.output;
  EXPECT_FALSE(fs::exists(root_ / "full" / "checkpoint" / "manifest.json"));
}

/// The process of rank `rank` of the run that writes into `out`; 0 if there is none.
pid_t process_of(const fs::path& out, int rank) {
  const std::string wanted = "OMPI_COMM_WORLD_RANK=" + std::to_string(rank);
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string command, environment;
    try {
      command = read_file(entry.path() / "cmdline", 1 << 20);
      environment = read_file(entry.path() / "environ", 1 << 20);
    } catch (const std::exception&) {
      continue;
    }
    const std::string zero(1, '\0');
    if (command.find(out.string()) != std::string::npos &&
        (environment + zero).find(wanted + zero) != std::string::npos)
      return static_cast<pid_t>(std::stoi(name));
  }
  return 0;
}

TEST_F(Train, AKilledRankEndsAllAndFewerRanksGoOn) {
  if (!has_mpi()) GTEST_SKIP() << "this build has no MPI";
  const fs::path out = root_ / "killed";
  ShellOutcome outcome;
  std::thread run([&] {
    outcome = run_shell(mpirun(4) +
                        program(out, "--steps 100000 --save-every 2 --eval-every 100000 --pp 2 --zero 1"));
  });
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  while (!fs::exists(out / "checkpoint" / "manifest.json") && std::chrono::steady_clock::now() < give_up)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const pid_t victim = process_of(out, 2);
  EXPECT_GT(victim, 0);
  if (victim > 0) kill(victim, SIGKILL);
  run.join();
  EXPECT_NE(outcome.exit_code, 0) << outcome.output;
  const ShellOutcome rest =
      run_shell("timeout -s INT 6 " +
                program(out, "--steps 100000 --save-every 100000 --eval-every 100000 --ranks 2 --resume"));
  EXPECT_NE(rest.output.find("Going on after step"), std::string::npos) << rest.output;
  EXPECT_NE(rest.output.find("its checkpoint is saved, go on with --resume"), std::string::npos)
      << rest.output;
}

}  // namespace
}  // namespace llm
