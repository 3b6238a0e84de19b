// One exercise's tests in a child process: a crash or an endless loop is a result like any other.
#pragma once

#include <string>

namespace llm::exercises {

struct Exercise {
  std::string number;  // "3.2"
  std::string suite;   // "Exercise_3_2", the tests' suite
  std::string title;
};

enum class State { done, wrong, not_started };

struct Result {
  State state = State::done;
  std::string test;     // the first that failed
  std::string message;  // what differed
  std::string hint;
};

/// Runs the tests of the exercise's suite (GoogleTest must be initialised) for at most `seconds` of
/// computing. What they print on stderr is passed on if `show_errors`.
Result run(const Exercise& exercise, double seconds, bool show_errors);

}  // namespace llm::exercises
