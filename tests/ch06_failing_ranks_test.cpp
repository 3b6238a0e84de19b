// `ch06_multi_gpu train` where a rank fails: killed, stopped, out of disk, started with other options. All
// ranks end, with one message that names a rank and an operation, and `--resume` goes on.
#include <signal.h>
#include <sys/resource.h>

#include <chrono>
#include <functional>
#include <future>
#include <regex>
#include <thread>
#include <vector>

#include "tests/ch06_train_helpers.h"

namespace llm {
namespace {

using FailingRanks = TrainProgram;

/// How many lines there are in which a rank speaks.
int messages(const std::string& output) {
  const std::regex line("(^|\n)rank [0-9]: ");
  return static_cast<int>(std::distance(std::sregex_iterator(output.begin(), output.end(), line), {}));
}

/// The ranks end with `code` and one message.
void expect_end(const ShellOutcome& outcome, int code, const std::string& sentence) {
  EXPECT_EQ(outcome.exit_code, code) << outcome.output;
  EXPECT_EQ(messages(outcome.output), 1) << outcome.output;
  EXPECT_TRUE(std::regex_search(outcome.output, std::regex(sentence))) << outcome.output;
}

/// The process that writes into `out`, and, under mpirun, is rank `rank`; 0 if there is none.
pid_t process_of(const fs::path& out, int rank = -1) {
  const std::string zero(1, '\0');
  const std::string wanted = zero + "OMPI_COMM_WORLD_RANK=" + std::to_string(rank) + zero;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    try {
      if (fs::read_symlink(entry.path() / "exe").filename() != "ch06_multi_gpu") continue;
      const std::string command = read_file(entry.path() / "cmdline", 1 << 20);
      const std::string environment = zero + read_file(entry.path() / "environ", 1 << 20);
      if (command.find(out.string() + zero) == std::string::npos) continue;
      if (rank < 0 || environment.find(wanted) != std::string::npos)
        return static_cast<pid_t>(std::stoi(name));
    } catch (const std::exception&) {  // it has ended meanwhile, or is somebody else's
    }
  }
  return 0;
}

std::string manifest(const fs::path& out) {
  const fs::path path = out / "checkpoint" / "manifest.json";
  return fs::exists(path) ? read_file(path) : std::string();
}

/// Starts `line`, and calls `strike` with the process of the rank once there is a new checkpoint in `out`.
ShellOutcome struck(const std::string& line, const fs::path& out, int rank,
                    const std::function<void(pid_t)>& strike) {
  const std::string before = manifest(out);
  auto outcome = std::async(std::launch::async, run_shell, line);
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  while (manifest(out) == before && std::chrono::steady_clock::now() < give_up)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const pid_t victim = process_of(out, rank);
  EXPECT_GT(victim, 0) << out;
  if (victim > 0) strike(victim);
  return outcome.get();
}

std::function<void(pid_t)> sends(int signal) {
  return [signal](pid_t process) { kill(process, signal); };
}

/// No file of the process may grow beyond 1000 bytes from now on.
void fill_disk(pid_t process) {
  const rlimit bytes = {.rlim_cur = 1000, .rlim_max = 1000};
  prlimit(process, RLIMIT_FSIZE, &bytes, nullptr);
}

// Rank 2 of a pipeline of two stages with two replicas each, one of which waits for rank 0.
TEST_F(FailingRanks, EndAllAndTheRestGoesOn) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  struct Case {
    const char* name;
    std::function<void(pid_t)> strike;
    int code;
    const char* sentence;
  };
  const char* waits = "rank [0-3]: (send|recv|exchange|all_reduce|all_gather|reduce_scatter|barrier)[^\n]* ";
  const std::string killed = std::string(waits) + "was waiting for [^\n]*when this process was told to end";
  const std::string stopped = std::string(waits) + "has waited 8 s for rank";
  const std::vector<Case> cases = {{"killed", sends(SIGKILL), 137, killed.c_str()},
                                   {"stopped", sends(SIGSTOP), 1, stopped.c_str()},
                                   {"full", fill_disk, 1, "rank 2: [^\n]*shard-[^\n]*: File too large"}};
  const std::string options = "--steps 100 --eval-every 1000 --pp 2 --zero 1 ";
  std::vector<std::future<ShellOutcome>> outcomes;
  for (const Case& c : cases)
    outcomes.push_back(std::async(std::launch::async, [&options, &c] {
      const fs::path out = root_ / c.name;
      return struck(mpirun(8) + "-n 4 " + program(out, options + "--save-every 1"), out, 2, c.strike);
    }));
  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(cases[i].name);
    expect_end(outcomes[i].get(), cases[i].code, cases[i].sentence);
  }
  // On as many ranks, to the same bits as without the failure; and on fewer.
  const ShellOutcome straight = run_shell(program(root_ / "straight", options + "--ranks 4"));
  ASSERT_EQ(straight.exit_code, 0) << straight.output;
  for (const Case& c : cases) {
    const fs::path out = root_ / c.name;
    const bool fewer = std::string(c.name) == "stopped";
    const ShellOutcome rest =
        run_shell(program(out, options + "--save-every 1000 --resume --ranks " + (fewer ? "2" : "4")));
    EXPECT_EQ(rest.exit_code, 0) << rest.output;
    EXPECT_NE(rest.output.find("Going on after step"), std::string::npos) << rest.output;
    if (!fewer) {
      EXPECT_EQ(weights(out), weights(root_ / "straight")) << c.name;
    }
  }
}

TEST_F(FailingRanks, ThreadsEndOnAFullDiskAndSaveWhenInterrupted) {
  const fs::path out = root_ / "threads";
  const std::string options = "--steps 100000 --eval-every 100000 --save-every 1 ";
  const ShellOutcome full = struck(program(out, options + "--ranks 4 --zero 1"), out, -1, fill_disk);
  EXPECT_EQ(full.exit_code, 1) << full.output;
  EXPECT_TRUE(std::regex_search(full.output, std::regex("rank [0-3]: [^\n]*: File too large")))
      << full.output;
  const ShellOutcome rest = struck(program(out, options + "--ranks 2 --resume"), out, -1, sends(SIGINT));
  EXPECT_EQ(rest.exit_code, 1) << rest.output;
  EXPECT_NE(rest.output.find("Going on after step"), std::string::npos) << rest.output;
  EXPECT_NE(rest.output.find("its checkpoint is saved, go on with --resume"), std::string::npos)
      << rest.output;
}

TEST_F(FailingRanks, SayWhichOneWasStartedOtherwise) {
  if (!has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  const auto started = [](const std::string& options, const std::string& of_rank_1) {
    const fs::path out = root_ / "otherwise";
    return run_shell(mpirun() + "-n 1 " + program(out, options) + " : -n 1 " + program(out, of_rank_1) +
                     " : -n 2 " + program(out, options));
  };
  expect_end(started("--zero 1", "--zero 2"), 2,
             "rank [0-3]: rank 1 was started with ZeRO stage = 2, but rank 0 with ZeRO stage = 1; start all "
             "ranks with the same options\n");
  expect_end(started("--tp 2", "--tp 1"), 2,
             "rank 1 was started with layout = pp 1, dp 4, tp 1, but rank 0 with layout = pp 1, dp 2, tp 2");
  expect_end(started("", "--resume"), 2, "rank 1 was started with --resume = yes, but rank 0 with");
  // Another collective: who writes a trace makes a communicator of its own first.
  expect_end(
      started("", "--trace " + (root_ / "trace.json").string()), 1,
      "the ranks of 'world' do not call the same operation: rank 1 calls split #1, but ranks 0, 2 and 3 "
      "call broadcast #1");
}

}  // namespace
}  // namespace llm
