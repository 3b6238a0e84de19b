// One thread that steps a model for everybody: requests queue, join the batch when there is a row for them,
// and get their tokens through a mailbox. Chapter 7 explains it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/generation/batch_engine.h"

namespace llm {

/// What happened to one of a request's sequences.
struct TokenEvent {
  std::size_t choice = 0;             // which of them
  std::optional<std::int32_t> token;  // a new one; not the stop token
  Finish finish = Finish::none;
  std::string error;  // the sequence ended because of this
};

/// Where a request's tokens arrive. The scheduler never waits for it to be emptied: it holds at most the
/// tokens that were asked for.
class Mailbox {
 public:
  /// What has come; waits up to `timeout` for something. Empty: nothing came.
  std::deque<TokenEvent> wait(std::chrono::milliseconds timeout);
  /// Nobody reads on: the sequence `choice`, or all of them, may leave. (So does letting go of the mailbox.)
  void cancel(std::size_t choice);
  void cancel_all();

 private:
  friend class Scheduler;
  void put(TokenEvent event);
  bool cancelled(std::size_t choice);

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<TokenEvent> events_;
  std::vector<bool> cancelled_;
  bool all_cancelled_ = false;
};

class Scheduler {
 public:
  struct Sequence {
    std::vector<std::int32_t> prompt;
    GenerateOptions options;
    std::uint64_t number = 0;
  };
  struct Load {
    std::int64_t running = 0, waiting = 0;
    std::int64_t tokens = 0;  // drawn since the start
  };

  /// `rows` sequences at a time (batch_engine.h), and `queue` more that wait. The model must outlive it.
  Scheduler(const GptStage& model, std::int64_t rows, std::int64_t queue);
  /// stop().
  ~Scheduler();

  /// All of a request's sequences, or null if the queue has no room for them. Errors as BatchEngine::join.
  std::shared_ptr<Mailbox> submit(std::vector<Sequence> sequences);
  /// Ends all sequences with an error; from here on `submit` finds no room.
  void stop();

  Load load() const;
  std::int64_t rows() const { return engine_.rows(); }
  std::int64_t cache_bytes() const { return engine_.cache_bytes(); }

 private:
  struct Entry {
    std::weak_ptr<Mailbox> mailbox;
    std::size_t choice;
    Sequence sequence;
    std::int64_t id = -1;  // in the engine, once it runs
  };

  void run();
  void admit();
  void deliver(std::span<const BatchEngine::Drawn> drawn);
  void end_all(std::vector<Entry>& entries, const std::string& why);

  const GptStage& model_;
  BatchEngine engine_;  // the thread's
  std::int64_t queue_;
  mutable std::mutex mutex_;
  std::condition_variable work_;
  std::vector<Entry> waiting_, running_;  // running_ is the thread's
  Load load_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace llm
