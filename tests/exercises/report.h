// What the tests of exercises tell the program that runs them (run_exercise.cpp).
#pragma once

#include <string_view>

namespace llm::exercises {

/// Thrown by not_started(). Deliberately no std::exception: no EXPECT_THROW of a test takes it for an answer.
struct NotStarted {};

/// Remembers for the running test that it met a stub, even if the test swallows the exception.
void note_not_started();

/// Stands between a failure's message and its hint.
inline constexpr std::string_view kHintMark = "\x1fhint:";

}  // namespace llm::exercises
