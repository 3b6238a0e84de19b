// `ch06_multi_gpu train` as a person meets it: threads and processes, another layout on resuming, what does
// not go together.
#include <fstream>

#include "tests/ch06_train_helpers.h"

namespace llm {
namespace {

using Train = TrainProgram;

TEST_F(Train, ThreadsAndProcessesWriteTheSameModel) {
  const ShellOutcome threads = run_shell(program(root_ / "threads", "--steps 6 --ranks 4 --pp 2 --tp 2"));
  ASSERT_EQ(threads.exit_code, 0) << threads.output;
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  const ShellOutcome processes =
      run_shell(mpirun() + "-n 4 " + program(root_ / "processes", "--steps 6 --pp 2 --tp 2"));
  ASSERT_EQ(processes.exit_code, 0) << processes.output;
  EXPECT_EQ(weights(root_ / "threads"), weights(root_ / "processes"));
  const std::string where = "ch06_multi_gpu on ";
  ASSERT_NE(processes.output.find(where), std::string::npos) << processes.output;
  EXPECT_EQ(processes.output.find(where), processes.output.rfind(where)) << "said once\n" << processes.output;
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

/// On a machine without Slurm: an `srun` that knows of --options only that they are not the program.
TEST_F(Train, StartsUnderSlurm) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  const fs::path bin = fs::canonical(LLM_BIN_DIR), source = bin / "../../..", out = root_ / "slurm";
  fs::create_directories(root_ / "bin");
  std::ofstream(root_ / "bin" / "srun")
      << "#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\n" + mpirun() + "-n 2 \"$@\"\n";
  fs::permissions(root_ / "bin" / "srun", fs::perms::owner_all);
  const std::string options = program(out, "--steps 6 --tp 2");
  const ShellOutcome outcome = run_shell(
      "PATH=" + (root_ / "bin").string() + ":$PATH LLM_PRESET=" + bin.parent_path().filename().string() +
      " SLURM_CPUS_PER_TASK=1 SLURM_SUBMIT_DIR=" + source.string() + " bash " +
      (source / "ch06_multi_gpu" / "slurm.sh").string() + options.substr(options.find(" --data")));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_NE(outcome.output.find("Layout: 2 ranks = pp 1, dp 1, tp 2"), std::string::npos) << outcome.output;
  EXPECT_TRUE(fs::exists(out / "model.safetensors"));
}

TEST_F(Train, SaysWhatDoesNotGoTogether) {
  for (const char* options : {"--ranks 3 --pp 2", "--ranks 8", "--ranks 2 --pp 2 --zero 2",
                              "--ranks 5 --pp 5", "--ranks 2 --schedule fast", "--ranks 2 --chunks 2"}) {
    const ShellOutcome outcome = run_shell(program(root_ / "never", options));
    EXPECT_EQ(outcome.exit_code, 2) << options << "\n" << outcome.output;
  }
  EXPECT_FALSE(fs::exists(root_ / "never" / "model.safetensors"));
}

}  // namespace
}  // namespace llm
