// Runs the exercises of one chapter and says of each: done, wrong or not started.
//
//   ch03_exercises --hints ch03_attention/hints.md --file ch03_attention/exercises.cpp [--only 3.2] [--brief
//   | --report]
//
// Every exercise runs in a child process with a time limit, so that a crash or an endless loop in one is a
// result like any other. --report prints a line per exercise for other programs: number, state, message,
// separated by tabs. The exit code is 0 if all (asked for) are done, 1 if not, 2 if it was called wrongly.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/core/error.h"
#include "tests/exercises/report.h"

namespace llm::exercises {
namespace {

bool met_a_stub = false;  // by the running test

struct Options {
  std::string hints_file, learner_file, only;  // --hints, --file, --only
  bool brief = false, report = false;
  double seconds = 10;
};

enum class State { done, wrong, not_started };

struct Exercise {
  std::string number;  // "3.2"
  std::string suite;   // "Exercise_3_2"
  std::string title;
};

struct Result {
  State state = State::done;
  std::string test;     // the first that failed
  std::string message;  // what differed
  std::string hint;
  int passed = 0, failed = 0;
};

std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\t' || c == '\r') c = ' ';
  return text;
}

// ---- In the child: tests write "event<TAB>test<TAB>text" lines to a pipe. ----

class PipeListener : public testing::EmptyTestEventListener {
 public:
  explicit PipeListener(int pipe) : pipe_(pipe) {}

 private:
  void send(const std::string& event, const std::string& test, const std::string& text) {
    const std::string line = event + "\t" + test + "\t" + one_line(text) + "\n";
    for (std::size_t at = 0; at < line.size();) {
      const ssize_t n = write(pipe_, line.data() + at, line.size() - at);
      if (n <= 0) return;
      at += static_cast<std::size_t>(n);
    }
  }
  void OnTestStart(const testing::TestInfo& test) override {
    met_a_stub = false;
    running_ = test.name();
    send("start", running_, "");
  }
  void OnTestPartResult(const testing::TestPartResult& part) override {
    // What follows a stub's exception says nothing new.
    if (part.failed() && !met_a_stub) send("fail", running_, part.message());
  }
  void OnTestEnd(const testing::TestInfo& test) override {
    std::fflush(stdout);
    if (met_a_stub) send("stub", test.name(), "");
    send(test.result()->Skipped() ? "skip" : "end", test.name(), "");
  }
  int pipe_;
  std::string running_;  // asking GoogleTest for it while it reports a failure would deadlock
};

[[noreturn]] void run_in_child(const Exercise& exercise, int pipe, int errors) {
  dup2(errors, STDERR_FILENO);
  mallopt(M_PERTURB, 0xA5);  // fresh memory holds rubbish: a forgotten initialisation shows
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  const rlimit memory{std::uint64_t{4} << 30, std::uint64_t{4} << 30};
  setrlimit(RLIMIT_AS, &memory);  // "resize(-1)" must not take the machine down
#endif
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new PipeListener(pipe));
  testing::GTEST_FLAG(filter) = exercise.suite + ".*";
  const int code = RUN_ALL_TESTS();
  std::fflush(nullptr);
  _exit(code);
}

// ---- In the parent ----

// "Value of: x / Actual: ..." of GoogleTest's own macros is fine; exceptions get a sentence of ours.
void take_failure(Result& result, const std::string& test, std::string text) {
  if (result.failed > 0) return;
  ++result.failed;
  result.state = State::wrong;
  result.test = test;
  const std::size_t mark = text.find(kHintMark);
  if (mark != std::string::npos) {
    result.hint = text.substr(mark + kHintMark.size());
    text.resize(mark);
  }
  if (text.rfind("Failed ", 0) == 0) text.erase(0, 7);  // GoogleTest's word before a message of ours
  static const std::string kThrown = "C++ exception with description \"";
  if (text.rfind(kThrown, 0) == 0) {
    const std::size_t end = text.rfind("\" thrown in");
    text = "it threw an error: " +
           text.substr(kThrown.size(), end == std::string::npos ? end : end - kThrown.size());
  } else if (text.rfind("Unknown C++ exception", 0) == 0) {
    text = "it threw something that is no std::exception";
  }
  result.message = text;
}

std::string last_line_of(std::FILE* file) {
  std::rewind(file);
  std::string line, last;
  for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) {
    if (c != '\n')
      line += static_cast<char>(c);
    else if (!line.empty())
      last = std::exchange(line, "");
  }
  return line.empty() ? last : line;
}

std::string describe_crash(int signal, const std::string& said) {
  const std::size_t assertion = said.find("Assertion '");
  if (assertion != std::string::npos) {
    const std::string condition =
        said.substr(assertion + 11, said.find('\'', assertion + 11) - assertion - 11);
    if (condition.find("this->size()") != std::string::npos || condition.find("size()") != std::string::npos)
      return "it crashed: an index outside of a vector, span or string (" + condition + " does not hold)";
    return "it crashed: the standard library asserts " + condition;
  }
  switch (signal) {
    case SIGSEGV:
      return "it crashed (segmentation fault): most often an index outside of an array";
    case SIGFPE:
      return "it crashed (SIGFPE): a division of integers by zero?";
    case SIGABRT:
      return "it crashed (abort)" + (said.empty() ? "" : ": " + said.substr(0, 200));
    default:
      return fmt::format("it was stopped by signal {} ({})", signal, strsignal(signal));
  }
}

Result run(const Exercise& exercise, const Options& options) {
  int pipe_ends[2];
  check(pipe(pipe_ends) == 0, "cannot make a pipe: {}", std::strerror(errno));
  std::FILE* errors = std::tmpfile();
  check(errors != nullptr, "cannot make a temporary file: {}", std::strerror(errno));
  std::fflush(nullptr);
  const pid_t child = fork();
  check(child >= 0, "cannot start a process: {}", std::strerror(errno));
  if (child == 0) {
    close(pipe_ends[0]);
    setpgid(0, 0);  // so that whatever it starts ends with it
    run_in_child(exercise, pipe_ends[1], fileno(errors));
  }
  setpgid(child, child);
  close(pipe_ends[1]);

  Result result;
  bool stub = false, timed_out = false;
  std::string running, line;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(options.seconds);
  for (;;) {
    const auto left = std::chrono::duration<double>(deadline - std::chrono::steady_clock::now()).count();
    pollfd waited{pipe_ends[0], POLLIN, 0};
    const int ready = poll(&waited, 1, std::max(0, static_cast<int>(left * 1000)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) {
      timed_out = true;
      break;
    }
    char buffer[4096];
    const ssize_t n = read(pipe_ends[0], buffer, sizeof buffer);
    if (n <= 0) break;
    for (ssize_t i = 0; i < n; ++i) {
      if (buffer[i] != '\n') {
        line += buffer[i];
        continue;
      }
      const std::size_t a = line.find('\t'), b = line.find('\t', a + 1);
      const std::string event = line.substr(0, a), test = line.substr(a + 1, b - a - 1),
                        text = line.substr(b + 1);
      line.clear();
      if (event == "start") running = test;
      if (event == "stub") stub = true;
      if (event == "end") ++result.passed, running.clear();
      if (event == "skip") running.clear();
      if (event == "fail") take_failure(result, test, text);
    }
  }
  close(pipe_ends[0]);
  if (timed_out) kill(-child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  kill(-child, SIGKILL);  // grandchildren
  const std::string said = last_line_of(errors);
  if (!said.empty() && !options.report && !(WIFSIGNALED(status))) {
    std::rewind(errors);  // a learner's std::cerr
    for (int c = std::fgetc(errors); c != EOF; c = std::fgetc(errors)) std::fputc(c, stderr);
  }
  std::fclose(errors);

  if (timed_out) {
    take_failure(result, running,
                 fmt::format("it ran longer than {:g} seconds: does a loop never end?", options.seconds));
  } else if (WIFSIGNALED(status)) {
    take_failure(result, running, describe_crash(WTERMSIG(status), said));
  } else if (!stub && result.state == State::done) {
    if (!running.empty() || WEXITSTATUS(status) != 0)
      take_failure(
          result, running,
          fmt::format("the process ended with exit code {}: does the code call exit?", WEXITSTATUS(status)));
    else if (result.passed == 0)
      take_failure(result, "", "no test ran");
  }
  // A stub counts unless something else is wrong (one of two functions is written, and not yet right).
  if (stub && result.state == State::done) result.state = State::not_started;
  return result;
}

// The titles in hints.md, by number: lines "## 3.2 Title".
using Titles = std::map<std::string, std::string>;

Titles read_titles(const std::string& path) {
  Titles titles;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("## ", 0) != 0) continue;
    const std::size_t space = line.find(' ', 3);
    if (space == std::string::npos) continue;
    titles[line.substr(3, space - 3)] = line.substr(space + 1);
  }
  return titles;
}

std::vector<Exercise> find_exercises(const Titles& titles) {
  std::vector<Exercise> exercises;
  const testing::UnitTest& unit = *testing::UnitTest::GetInstance();
  for (int i = 0; i < unit.total_test_suite_count(); ++i) {
    const std::string suite = unit.GetTestSuite(i)->name();
    int chapter = 0, number = 0, end = 0;
    check(std::sscanf(suite.c_str(), "Exercise_%d_%d%n", &chapter, &number, &end) == 2 &&
              suite.size() == static_cast<std::size_t>(end),
          "the test suite {} must be named as Exercise_3_2", suite);
    Exercise exercise{fmt::format("{}.{}", chapter, number), suite, ""};
    const auto title = titles.find(exercise.number);
    if (title != titles.end()) exercise.title = title->second;
    exercises.push_back(exercise);
  }
  std::sort(exercises.begin(), exercises.end(), [](const Exercise& a, const Exercise& b) {
    return std::stoi(a.number.substr(a.number.find('.') + 1)) <
           std::stoi(b.number.substr(b.number.find('.') + 1));
  });
  return exercises;
}

struct Colors {
  std::string green, red, dim, bold, off;
};

Colors colors() {
  const char* term = std::getenv("TERM");
  if (isatty(STDOUT_FILENO) != 1 || std::getenv("NO_COLOR") || !term || std::string(term) == "dumb")
    return {};
  return {"\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[1m", "\x1b[0m"};
}

void print_result(const Exercise& exercise, const Result& result, const Colors& c) {
  switch (result.state) {
    case State::done:
      fmt::print("{}✓ {}{}  {}\n", c.green, exercise.number, c.off, exercise.title);
      break;
    case State::not_started:
      fmt::print("{}○ {}  {}  (not started){}\n", c.dim, exercise.number, exercise.title, c.off);
      break;
    case State::wrong:
      fmt::print("{}✗ {}{}  {}\n", c.red, exercise.number, c.off, exercise.title);
      fmt::print("       {}{}{}\n", result.test.empty() ? "" : result.test + ": ", result.message, "");
      if (!result.hint.empty()) fmt::print("       Hint: {}\n", result.hint);
      break;
  }
}

void print_summary(const std::vector<Exercise>& exercises, const std::vector<Result>& results,
                   const Options& options, const Colors& c) {
  const auto done =
      std::count_if(results.begin(), results.end(), [](const Result& r) { return r.state == State::done; });
  if (done == static_cast<std::ptrdiff_t>(results.size())) {
    fmt::print("\n{}{}{}\n", c.bold,
               results.size() == 1 ? "Done." : fmt::format("All {} done.", results.size()), c.off);
    return;
  }
  std::size_t next = 0;  // the first wrong one, else the first not started
  while (next < results.size() && results[next].state != State::wrong) ++next;
  if (next == results.size())
    for (next = 0; results[next].state != State::not_started;) ++next;
  const Exercise& exercise = exercises[next];
  if (results.size() > 1) fmt::print("\n{} of {} done.", done, results.size());
  fmt::print("{}{}: {}{}{} in {}; ./book hint {} helps; then ./book check {}.\n",
             results.size() > 1 ? " " : "\n", results[next].state == State::wrong ? "Correct" : "Next",
             c.bold, exercise.number + (exercise.title.empty() ? "" : " " + exercise.title), c.off,
             options.learner_file.empty() ? "exercises.cpp" : options.learner_file, exercise.number,
             exercise.number);
}

int run_all(const Options& options) {
  std::vector<Exercise> exercises = find_exercises(read_titles(options.hints_file));
  if (!options.only.empty()) {
    std::erase_if(exercises, [&](const Exercise& e) { return e.number != options.only; });
    if (exercises.empty()) {
      fmt::print(stderr, "there is no exercise {} here\n", options.only);
      return 2;
    }
  }
  const Colors c = colors();
  std::vector<Result> results;
  bool all_done = !exercises.empty();
  for (const Exercise& exercise : exercises) {
    results.push_back(run(exercise, options));
    const Result& result = results.back();
    all_done = all_done && result.state == State::done;
    if (options.report) {
      const char* state = result.state == State::done    ? "done"
                          : result.state == State::wrong ? "wrong"
                                                         : "not started";
      fmt::print("{}\t{}\t{}\t{}: {}\n", exercise.number, state, exercise.title, result.test, result.message);
    } else if (!options.brief) {
      print_result(exercise, result, c);
    }
    std::fflush(stdout);
  }
  if (options.brief) {
    std::string marks;
    for (const Result& r : results)
      marks += r.state == State::done    ? c.green + "✓" + c.off
               : r.state == State::wrong ? c.red + "✗" + c.off
                                         : c.dim + "○" + c.off;
    const auto done =
        std::count_if(results.begin(), results.end(), [](const Result& r) { return r.state == State::done; });
    fmt::print("{}  {} of {} done\n", marks, done, results.size());
  } else if (!options.report) {
    print_summary(exercises, results, options, c);
  }
  return all_done ? 0 : 1;
}

}  // namespace

void note_not_started() {
  met_a_stub = true;
}

}  // namespace llm::exercises

int main(int argc, char** argv) {
  using namespace llm::exercises;  // NOLINT(google-build-using-namespace)
  testing::InitGoogleTest(&argc, argv);
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&] { return i + 1 < argc ? argv[++i] : ""; };
    if (word == "--hints")
      options.hints_file = value();
    else if (word == "--file")
      options.learner_file = value();
    else if (word == "--only")
      options.only = value();
    else if (word == "--seconds")
      options.seconds = std::atof(value());
    else if (word == "--brief")
      options.brief = true;
    else if (word == "--report")
      options.report = true;
    else {
      fmt::print(stderr, "unknown option {}\n", word);
      return 2;
    }
  }
  try {
    return run_all(options);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
