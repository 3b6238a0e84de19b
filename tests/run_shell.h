// Runs a line of shell and catches what it says.
#pragma once

#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <string>

namespace llm {

struct ShellOutcome {
  int exit_code = -1;  // as the shell gives it: 128 and the signal's number if a signal ended it
  std::string output;  // stdout and stderr
};

inline ShellOutcome run_shell(const std::string& line) {
  std::FILE* pipe = popen((line + " 2>&1").c_str(), "r");
  ShellOutcome outcome;
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> buffer;
  while (const std::size_t n = fread(buffer.data(), 1, buffer.size(), pipe))
    outcome.output.append(buffer.data(), n);
  const int status = pclose(pipe);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

}  // namespace llm
