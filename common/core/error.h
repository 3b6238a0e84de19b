// Errors: one sentence for a person, thrown, and turned into an exit code by the program.
//
// A library function that meets something it cannot work with throws `Error` with a sentence that
// names what was expected and what was found. Programs catch it in one place (common/cli/program.h),
// print the sentence on stderr and exit with 1; `UsageError`, for wrong flags and arguments, exits
// with 2.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <stdexcept>
#include <string>

namespace llm {

/// Something went wrong at run time (a missing file, a wrong shape, a full disk). Exit code 1.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The caller asked for something that makes no sense (an unknown flag, a size of zero). Exit code 2.
struct UsageError : Error {
  using Error::Error;
};

/// Throws Error with a formatted sentence: `fail("{} has {} bytes, expected {}", path, n, m)`.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> sentence, Args&&... args) {
  throw Error(fmt::format(sentence, std::forward<Args>(args)...));
}

/// Throws UsageError with a formatted sentence.
template <typename... Args>
[[noreturn]] void fail_usage(fmt::format_string<Args...> sentence, Args&&... args) {
  throw UsageError(fmt::format(sentence, std::forward<Args>(args)...));
}

/// Throws Error unless `condition` holds: `check(n > 0, "a batch needs at least one row, got {}", n)`.
template <typename... Args>
void check(bool condition, fmt::format_string<Args...> sentence, Args&&... args) {
  if (!condition) [[unlikely]]
    fail(sentence, std::forward<Args>(args)...);
}

}  // namespace llm
