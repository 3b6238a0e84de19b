// Options and exit codes that all programs share.
#include "common/cli/program.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <new>
#include <stdexcept>

#include "common/core/error.h"
#include "common/core/threads.h"

namespace llm {
namespace {

struct Outcome {
  int exit_code = 0;
  std::string errors;
  CommonOptions options;
  std::int64_t bytes = 10;
  double rate = 0.5;
  bool generated = false;
};

Outcome run(
    std::vector<std::string> words, const std::function<void()>& body = [] {}) {
  Outcome outcome;
  CLI::App app{"A program"};
  add_common_options(app, outcome.options);
  CLI::App* generate = app.add_subcommand("generate", "makes something");
  generate->add_option("--bytes", outcome.bytes, "how much")->check(between(1, 1000));
  generate->add_option("--rate", outcome.rate, "how fast")->check(above(0, 1));
  words.insert(words.begin(), "/some/where/program");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  testing::internal::CaptureStderr();
  outcome.exit_code = run_program(static_cast<int>(argv.size()), argv.data(), app, outcome.options, [&] {
    outcome.generated = generate->parsed();
    body();
  });
  outcome.errors = testing::internal::GetCapturedStderr();
  return outcome;
}

TEST(Program, CommonOptionsAlsoStandBehindASubcommand) {
  const Outcome outcome =
      run({"generate", "--bytes", "7", "--seed", "18446744073709551615", "--threads", "2", "--work", "w"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_TRUE(outcome.generated);
  EXPECT_EQ(outcome.bytes, 7);
  EXPECT_EQ(outcome.options.seed, 18446744073709551615U);
  EXPECT_EQ(thread_count(), 2);
  set_thread_count(0);
  EXPECT_EQ(outcome.options.work, "w");
  EXPECT_EQ(outcome.errors.rfind("program on cpu: ", 0), 0U) << outcome.errors;
}

TEST(Program, WrongUsageIsOneSentenceAndExitCode2) {
  const std::vector<std::vector<std::string>> wrong = {{"--seed", "-1"},
                                                       {"--seed", "x"},
                                                       {"--seed", "99999999999999999999"},
                                                       {"--threads", "-1"},
                                                       {"--threads", "5000"},
                                                       {"--device", "tpu"},
                                                       {"--no-such-option"},
                                                       {"no-such-command"},
                                                       {"generate", "--bytes", "0"},
                                                       {"generate", "--bytes"},
                                                       {"generate", "--bytes", "1e99"},
                                                       {"generate", "--bytes", "seven"},
                                                       {"generate", "--rate", "nan"},
                                                       {"generate", "--rate", "0"},
                                                       {"generate", "--rate", "1.5"}};
  for (const auto& words : wrong) {
    bool ran = false;
    const Outcome outcome = run(words, [&] { ran = true; });
    EXPECT_EQ(outcome.exit_code, 2) << words.back();
    EXPECT_FALSE(ran) << words.back();
    EXPECT_EQ(std::count(outcome.errors.begin(), outcome.errors.end(), '\n'), 1) << outcome.errors;
    EXPECT_EQ(outcome.errors.rfind("program: ", 0), 0U) << outcome.errors;
  }
}

TEST(Program, FailuresAreOneSentenceAndExitCode1) {
  const auto last_line = [](const Outcome& outcome) {
    return outcome.errors.substr(outcome.errors.find('\n') + 1);
  };
  Outcome outcome = run({}, [] { fail("cannot open x.txt: {}", "No such file or directory"); });
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_EQ(last_line(outcome), "program: cannot open x.txt: No such file or directory\n");
  outcome = run({}, [] { throw std::bad_alloc(); });
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.errors.find("not enough memory"), std::string::npos);
  outcome = run({}, [] { throw std::runtime_error("two\nlines"); });
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_EQ(last_line(outcome), "program: two lines\n");
  outcome = run({}, [] { fail_usage("context must divide {}", 12); });
  EXPECT_EQ(outcome.exit_code, 2);
}

}  // namespace
}  // namespace llm
