// What the ranks of one run of threads share: the lock, who failed first, who has ended. For
// threads_communicator.cpp and run_ranks.cpp.
#pragma once

#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/parallel/communicator.h"

namespace llm {

struct ThreadsRun {
  ThreadsRun(int ranks, double seconds) : deadline(seconds), ended(static_cast<std::size_t>(ranks)) {}

  const double deadline;
  std::mutex mutex;  // of everything below and of all meetings; never held while numbers are copied
  std::condition_variable changed;
  int failed_rank = -1;  // the first that failed; -1: none
  std::string why;
  std::exception_ptr error;  // what that rank threw, if it has come out of its body
  std::vector<bool> ended;   // whose body is over

  // With the mutex held:
  void throw_if_failed() const {
    if (failed_rank >= 0) throw PeerError(fmt::format("ended because rank {} failed: {}", failed_rank, why));
  }
  /// Remembers the first failure only.
  void record_failure(int rank, const std::string& sentence) {
    if (failed_rank < 0) failed_rank = rank, why = sentence;
    changed.notify_all();
  }
  template <typename E>
  [[noreturn]] void fail_run(int rank, const E& error_to_throw) {
    throw_if_failed();
    record_failure(rank, error_to_throw.what());
    throw E(error_to_throw);
  }
};

/// The communicator "world" of rank `i` of the run, for all i.
std::vector<std::unique_ptr<Communicator>> make_threads_communicators(const std::shared_ptr<ThreadsRun>& run);

}  // namespace llm
