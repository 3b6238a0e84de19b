// Runs the exercises of one chapter and says of each: done, wrong or not started.
//
//   ch03_exercises --hints ch03_attention/hints.md --file ch03_attention/exercises.cpp --file
//   ch03_attention/exercises.cu [--only 3.2] [--brief | --report]
//
// Every exercise runs in a child process with a time limit, so that a crash or an endless loop in one is a
// result like any other. --report prints a line per exercise for other programs: number, state, message,
// separated by tabs. The exit code is 0 if all (asked for) are done, 1 if not, 2 if it was called wrongly.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "common/core/error.h"
#include "tests/exercises/device_test.h"
#include "tests/exercises/run_exercise.h"

namespace llm::exercises {
namespace {

struct Options {
  std::string hints_file, only;            // --hints, --only
  std::vector<std::string> learner_files;  // --file, each
  bool brief = false, report = false;
  double seconds = 10;
};

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

// The file of the learner that has the line "// 3.2" above the exercise's functions.
std::string file_of(const Exercise& exercise, const std::vector<std::string>& learner_files) {
  for (const std::string& path : learner_files) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);)
      if (line == "// " + exercise.number) return path;
  }
  return learner_files.empty() ? "exercises.cpp" : learner_files[0];
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
  fmt::print("\n");
  if (results.size() > 1) fmt::print("{} of {} done. ", done, results.size());
  fmt::print("{}: {}{}{}{}, in {}.\n", results[next].state == State::wrong ? "Correct" : "Next", c.bold,
             exercise.number, exercise.title.empty() ? "" : " " + exercise.title, c.off,
             file_of(exercise, options.learner_files));
  fmt::print("./book hint {0} helps; ./book check {0} checks it alone.\n", exercise.number);
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
    results.push_back(run(exercise, options.seconds, !options.report));
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
    if (std::filesystem::exists(std::filesystem::path(options.hints_file).replace_filename("exercises.cu")) &&
        !kernels_watched())
      fmt::print(
          "\nThis build does not watch kernels: only their results are checked. The preset cpu does "
          "watch.\n");
    print_summary(exercises, results, options, c);
  }
  return all_done ? 0 : 1;
}

}  // namespace

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
      options.learner_files.emplace_back(value());
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
