// Ranks as processes: what mpirun's ranks say, and how they end when one fails.
#include <gtest/gtest.h>

#include <future>
#include <regex>
#include <string>
#include <vector>

#include "tests/mpirun.h"
#include "tests/run_shell.h"

namespace {

using llm::mpirun;
using llm::run_shell;
using Outcome = llm::ShellOutcome;

/// How many lines there are in which a rank speaks.
int messages(const std::string& output) {
  const std::regex line("(^|\n)rank [0-9]: ");
  return static_cast<int>(std::distance(std::sregex_iterator(output.begin(), output.end(), line), {}));
}

/// `deadline` is in seconds.
Outcome run_scene(const std::string& scene, const std::string& how = "", int ranks = 4, int deadline = 60) {
  return run_shell(mpirun(deadline) + "-n " + std::to_string(ranks) +
                   " " LLM_BIN_DIR "/../tests/mpi_ranks '" + scene + "' " + how);
}

class Mpi : public testing::Test {
 protected:
  void SetUp() override {
    if (!llm::has_mpirun()) GTEST_SKIP() << "this build has no MPI";
  }
};

/// The run ends with `code`, and one rank says something with `sentence` in it.
void expect_end(const Outcome& outcome, int code, const std::string& sentence) {
  EXPECT_EQ(outcome.exit_code, code) << outcome.output;
  EXPECT_EQ(messages(outcome.output), 1) << outcome.output;
  EXPECT_TRUE(std::regex_search(outcome.output, std::regex(sentence))) << outcome.output;
}

/// The ranks found nothing to complain about. (mpirun may say something too.)
void expect_success(const Outcome& outcome) {
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_NE(outcome.output.find("all as it should be\n"), std::string::npos) << outcome.output;
}

TEST_F(Mpi, Conforms) {
  expect_success(run_scene("conform"));
  expect_success(run_scene("conform", "unchecked", 3));
}

TEST_F(Mpi, TakesLargeTensors) {
  expect_success(run_scene("large", "", 2));
}

TEST_F(Mpi, TakesTensorsOnTheDevice) {
  expect_success(run_scene("device"));
}

// The whole of chapter 6 over MPI: every grid of 8 processes, with each ZeRO stage that goes with it.
TEST_F(Mpi, EveryLayoutOfEightProcessesComputesTheSame) {
  expect_success(run_scene("layouts", "", 8));
}

/// A scene, and how it ends.
struct Ending {
  const char* scene;
  const char* how;  // "unchecked": without the checking wrapper
  int code;
  std::string sentence;
  int deadline = 60;  // where only that ends the run it is short, elsewhere long enough for a busy machine
};

/// All at the same time: most of it is waiting.
void expect_endings(const std::vector<Ending>& endings) {
  std::vector<std::future<Outcome>> outcomes;
  for (const Ending& ending : endings)
    outcomes.push_back(
        std::async(std::launch::async, run_scene, ending.scene, ending.how, 4, ending.deadline));
  for (std::size_t i = 0; i < endings.size(); ++i) {
    SCOPED_TRACE(endings[i].scene);
    expect_end(outcomes[i].get(), endings[i].code, endings[i].sentence);
  }
}

TEST_F(Mpi, NamesTheRankThatCallsSomethingElse) {
  expect_endings({{"mismatch", "", 1,
                   "rank [0-3]: the ranks of 'world' do not call the same operation: rank 2 calls broadcast "
                   "#2 of 100000 f32 "
                   "from rank 1, but ranks 0, 1 and 3 call all_reduce #2 of 100000 f32\n"},
                  {"mismatch", "unchecked", 1, "rank [0-3]: (all_reduce|broadcast) #[23] ", 3},
                  {"returns", "", 1, "rank 2 calls barrier #2, but ranks 0, 1 and 3 call all_reduce #2"},
                  {"misfit", "", 1,
                   "rank 1: message #1 on 'world' differs: rank 0 calls send of 100000 f32 to rank 1, but "
                   "rank 1 calls recv of "
                   "5 f32 from rank 0"}});
}

TEST_F(Mpi, EndsTogetherWhenOneThrows) {
  expect_endings({{"throws", "", 1, "rank 2: the disk is full\n"},
                  {"usage", "", 2, "rank [0-3]: this makes no sense\n"}});
}

TEST_F(Mpi, EndsTogetherWhenOneIsKilledOrStopped) {
  expect_endings(
      {{"killed", "", 137,
        "rank [013]: all_reduce #2 of 100000 f32 on 'world' was waiting for rank 2 when this process was "
        "told to "
        "end\n"},
       {"stopped", "", 1, "rank [013]: all_reduce #2 of 100000 f32 on 'world' has waited 3 s for rank 2\n",
        3},
       {"stopped in a part", "", 1,
        "rank (0: all_reduce #1 of 100000 f32 on 'part' has waited 3 s for rank 1 \\(of the whole run: 2\\)"
        "|[13]: barrier #[0-9]+ on 'world' has waited 3 s for ranks 0 and 2)\n",
        3},
       {"deadlock", "", 1, "rank [0-3]: send #1 of 100000 f32 to rank [0-3] on 'world' has waited 3 s", 3}});
}

}  // namespace
