// Ctrl-C as a request to stop at the next good place.
#pragma once

#include <atomic>
#include <csignal>

namespace llm {

/// Whether the first Ctrl-C (or SIGTERM) has come since an InterruptGuard was made.
inline std::atomic<bool> interrupted{false};

/// While it lives, the first Ctrl-C asks the loop to stop after the step; a second one ends the program at
/// once.
class InterruptGuard {
 public:
  InterruptGuard() {
    interrupted = false;
    struct sigaction action {};
    action.sa_handler = [](int) { interrupted = true; };
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(SIGINT, &action, &old_int_);
    sigaction(SIGTERM, &action, &old_term_);
  }
  ~InterruptGuard() {
    sigaction(SIGINT, &old_int_, nullptr);
    sigaction(SIGTERM, &old_term_, nullptr);
  }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  struct sigaction old_int_ {};
  struct sigaction old_term_ {};
};

}  // namespace llm
