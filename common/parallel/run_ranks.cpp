// The launcher of ranks as threads (threads_communicator.h).
#include <system_error>
#include <thread>

#include "common/core/threads.h"
#include "common/parallel/threads_communicator.h"
#include "common/parallel/threads_run.h"

namespace llm {

namespace {

std::string sentence_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "something that is not a std::exception was thrown";
  }
}

void run_one_rank(ThreadsRun& run, int rank, Communicator& world,
                  const std::function<void(Communicator&)>& body) {
  std::exception_ptr error;
  try {
    body(world);
  } catch (...) {
    error = std::current_exception();
  }
  const std::lock_guard lock(run.mutex);
  if (error) run.record_failure(rank, sentence_of(error));
  if (error && run.failed_rank == rank) run.error = error;
  run.ended[static_cast<std::size_t>(rank)] = true;
  run.changed.notify_all();
}

/// The first failure, its kind kept, with its rank in front.
[[noreturn]] void throw_first(const ThreadsRun& run) {
  const auto sentence = [&](const char* what) { return fmt::format("rank {}: {}", run.failed_rank, what); };
  try {
    if (run.error) std::rethrow_exception(run.error);
  } catch (const UsageError& e) {
    throw UsageError(sentence(e.what()));
  } catch (const PeerError&) {  // it ended itself, with abort()
  } catch (const DeadlineError& e) {
    DeadlineError named(sentence(e.what()));
    named.seconds = e.seconds;
    named.whom = e.whom;
    named.history = e.history;
    throw named;
  } catch (...) {
    throw Error(sentence(sentence_of(run.error).c_str()));
  }
  throw Error(sentence(run.why.c_str()));  // or it swallowed what it threw
}

/// One thread for parallel_for while there are several ranks.
struct OneThreadEach {
  explicit OneThreadEach(int ranks) : several(ranks > 1) {
    if (several) set_thread_count(1);
  }
  ~OneThreadEach() {
    if (several) set_thread_count(before);
  }
  OneThreadEach(const OneThreadEach&) = delete;
  OneThreadEach& operator=(const OneThreadEach&) = delete;
  const int before = thread_count();
  const bool several;
};

}  // namespace

void run_ranks(int n, const CommunicatorOptions& options, const std::function<void(Communicator&)>& body) {
  if (n < 1 || n > 1024) fail_usage("a run has 1 to 1024 ranks, not {}", n);
  const auto run = std::make_shared<ThreadsRun>(n, options.deadline);
  auto worlds = make_threads_communicators(run);
  const OneThreadEach one_thread_each(n);
  std::vector<std::thread> threads;
  try {
    for (int rank = 0; rank < n; ++rank)
      threads.emplace_back(run_one_rank, std::ref(*run), rank,
                           std::ref(*worlds[static_cast<std::size_t>(rank)]), std::cref(body));
  } catch (const std::system_error& e) {
    const std::lock_guard lock(run->mutex);
    run->record_failure(static_cast<int>(threads.size()),
                        fmt::format("the system gives no thread for it: {}", e.what()));
  }
  for (auto& thread : threads) thread.join();
  if (run->failed_rank >= 0) throw_first(*run);
}

}  // namespace llm
