#include "tests/exercises/run_exercise.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <utility>

#include "common/core/device_memory.h"
#include "common/core/error.h"
#include "tests/exercises/report.h"

namespace llm::exercises {
namespace {

bool met_a_stub = false;  // by the running test

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

// "resize(-1)" must not take the machine down: 4 GB more than it has now. The software GPU reserves large
// ranges of addresses with its first block of memory, most of which it never uses, so that block comes first.
void limit_memory() {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(LLM_CUDA)
  device_free(device_allocate(1));
  std::ifstream status("/proc/self/status");
  std::uint64_t kilobytes = 0;
  for (std::string line; std::getline(status, line);)
    if (std::sscanf(line.c_str(), "VmData: %" SCNu64, &kilobytes) == 1) break;
  const rlim_t most = (kilobytes << 10) + (std::uint64_t{4} << 30);
  const rlimit memory{most, most};
  setrlimit(RLIMIT_DATA, &memory);
#endif
}

[[noreturn]] void run_in_child(const Exercise& exercise, double seconds, int pipe, int errors) {
  dup2(errors, STDERR_FILENO);
  mallopt(M_PERTURB, 0xA5);  // fresh memory holds rubbish: a forgotten initialisation shows
  limit_memory();
  // Seconds of computing, so that a busy machine makes no loop endless; the parent watches the clock as well.
  const auto limit = static_cast<rlim_t>(std::max(1.0, std::ceil(seconds)));
  const rlimit computing{limit, limit + 1};
  setrlimit(RLIMIT_CPU, &computing);
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

// Keeps the first failure. GoogleTest's own words are fine, but exceptions get a sentence of ours.
void take_failure(Result& result, const std::string& test, std::string text) {
  if (result.state == State::wrong) return;
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

// What the child has told so far.
struct Told {
  Result result;
  std::string running;  // the test that has started and not ended
  bool stub = false;
  int passed = 0;
};

void hear(Told& told, const std::string& line) {
  const std::size_t a = line.find('\t'), b = line.find('\t', a + 1);
  const std::string event = line.substr(0, a), test = line.substr(a + 1, b - a - 1),
                    text = line.substr(b + 1);
  if (event == "start") told.running = test;
  if (event == "stub") told.stub = true;
  if (event == "end") ++told.passed;
  if (event == "end" || event == "skip") told.running.clear();
  if (event == "fail") take_failure(told.result, test, text);
}

// Reads the child's lines until it ends; false if that takes longer than `seconds`.
bool listen(int pipe, double seconds, Told& told) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (std::string line;;) {
    const double left = std::chrono::duration<double>(deadline - std::chrono::steady_clock::now()).count();
    pollfd waited{pipe, POLLIN, 0};
    const int ready = poll(&waited, 1, std::max(0, static_cast<int>(left * 1000)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return false;
    std::array<char, 4096> buffer{};
    const ssize_t n = read(pipe, buffer.data(), buffer.size());
    if (n <= 0) return true;
    for (ssize_t i = 0; i < n; ++i) {
      const char c = buffer[static_cast<std::size_t>(i)];
      if (c != '\n')
        line += c;
      else
        hear(told, std::exchange(line, ""));
    }
  }
}

}  // namespace

void note_not_started() {
  met_a_stub = true;
}

Result run(const Exercise& exercise, double seconds, bool show_errors) {
  std::array<int, 2> ends{};
  check(pipe(ends.data()) == 0, "cannot make a pipe: {}", std::strerror(errno));
  std::FILE* errors = std::tmpfile();
  check(errors != nullptr, "cannot make a temporary file: {}", std::strerror(errno));
  std::fflush(nullptr);
  const pid_t child = fork();
  check(child >= 0, "cannot start a process: {}", std::strerror(errno));
  if (child == 0) {
    close(ends[0]);
    setpgid(0, 0);  // so that whatever it starts ends with it
    run_in_child(exercise, seconds, ends[1], fileno(errors));
  }
  setpgid(child, child);
  close(ends[1]);

  Told told;
  const bool timed_out = !listen(ends[0], 4 * seconds + 5, told);
  close(ends[0]);
  if (timed_out) kill(-child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  kill(-child, SIGKILL);  // what it may have started
  const std::string said = last_line_of(errors);
  if (show_errors && !WIFSIGNALED(status)) {
    std::rewind(errors);  // a learner's std::cerr
    for (int c = std::fgetc(errors); c != EOF; c = std::fgetc(errors)) std::fputc(c, stderr);
  }
  std::fclose(errors);

  Result& result = told.result;
  if (timed_out || (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)) {
    take_failure(result, told.running,
                 fmt::format("it ran longer than {:g} seconds: does a loop never end?", seconds));
  } else if (WIFSIGNALED(status)) {
    take_failure(result, told.running, describe_crash(WTERMSIG(status), said));
  } else if (!told.stub &&
             (!told.running.empty() || (WEXITSTATUS(status) != 0 && result.state == State::done))) {
    take_failure(
        result, told.running,
        fmt::format("the process ended with exit code {}: does the code call exit?", WEXITSTATUS(status)));
  } else if (!told.stub && told.passed == 0) {
    take_failure(result, "", "no test ran");
  }
  // A stub counts unless something else is wrong (one of two functions is written, and not yet right).
  if (told.stub && result.state == State::done) result.state = State::not_started;
  return result;
}

}  // namespace llm::exercises
