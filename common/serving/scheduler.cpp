// The thread between requests and the engine. See scheduler.h.
#include "common/serving/scheduler.h"

#include <algorithm>
#include <utility>

#include "common/core/error.h"

namespace llm {

// ---- mailboxes ------------------------------------------------------------------------------------

std::deque<TokenEvent> Mailbox::wait(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  arrived_.wait_for(lock, timeout, [&] { return !events_.empty(); });
  return std::exchange(events_, {});
}

void Mailbox::cancel(std::size_t choice) {
  const std::lock_guard lock(mutex_);
  if (cancelled_.size() <= choice) cancelled_.resize(choice + 1);
  cancelled_[choice] = true;
}

void Mailbox::cancel_all() {
  const std::lock_guard lock(mutex_);
  all_cancelled_ = true;
}

void Mailbox::put(TokenEvent event) {
  {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
  }
  arrived_.notify_one();
}

bool Mailbox::cancelled(std::size_t choice) {
  const std::lock_guard lock(mutex_);
  return all_cancelled_ || (choice < cancelled_.size() && cancelled_[choice]);
}

// ---- the thread -----------------------------------------------------------------------------------

Scheduler::Scheduler(const GptStage& model, std::int64_t rows, std::int64_t queue)
    : model_(model), engine_(model, rows), queue_(queue), thread_([this] { run(); }) {}

Scheduler::~Scheduler() {
  stop();
}

void Scheduler::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Scheduler::Load Scheduler::load() const {
  const std::lock_guard lock(mutex_);
  return load_;
}

std::shared_ptr<Mailbox> Scheduler::submit(std::vector<Sequence> sequences) {
  for (const Sequence& s : sequences) check_generation(model_, s.prompt, s.options);
  auto mailbox = std::make_shared<Mailbox>();
  {
    const std::lock_guard lock(mutex_);
    const auto count = static_cast<std::int64_t>(sequences.size());
    // Free rows count as room: who can run at once need not find a place to wait.
    const std::int64_t room = queue_ + engine_.rows() - load_.running - load_.waiting;
    if (stopping_ || count > room) return nullptr;
    for (std::size_t i = 0; i < sequences.size(); ++i)
      waiting_.push_back({mailbox, i, std::move(sequences[i])});
    load_.waiting += count;
  }
  work_.notify_one();
  return mailbox;
}

/// With the lock held: moves those that wait into free rows, first come, first served; forgets those whose
/// reader has gone.
void Scheduler::admit() {
  const auto gone = [](const Entry& e) {
    const auto mailbox = e.mailbox.lock();
    return !mailbox || mailbox->cancelled(e.choice);
  };
  std::erase_if(waiting_, gone);
  std::erase_if(running_, [&](const Entry& e) {
    if (!gone(e)) return false;
    engine_.leave(e.id);
    return true;
  });
  while (!waiting_.empty() && engine_.running() < engine_.rows()) {
    Entry entry = std::move(waiting_.front());
    waiting_.erase(waiting_.begin());
    entry.id = engine_.join(entry.sequence.prompt, entry.sequence.options, entry.sequence.number);
    running_.push_back(std::move(entry));
  }
  load_.waiting = static_cast<std::int64_t>(waiting_.size());
  load_.running = engine_.running();
}

void Scheduler::deliver(std::span<const BatchEngine::Drawn> drawn) {
  for (const auto& d : drawn) {
    const auto entry =
        std::find_if(running_.begin(), running_.end(), [&](const Entry& e) { return e.id == d.id; });
    TokenEvent event{.choice = entry->choice, .token = {}, .finish = d.finish, .error = {}};
    if (d.finish != Finish::stop) event.token = d.token;
    if (const auto mailbox = entry->mailbox.lock()) mailbox->put(std::move(event));
    if (d.finish != Finish::none) running_.erase(entry);
  }
}

void Scheduler::end_all(std::vector<Entry>& entries, const std::string& why) {
  for (const Entry& e : entries) {
    engine_.leave(e.id);
    if (const auto mailbox = e.mailbox.lock())
      mailbox->put({.choice = e.choice, .token = {}, .finish = Finish::none, .error = why});
  }
  entries.clear();
}

void Scheduler::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [&] { return stopping_ || !waiting_.empty() || !running_.empty(); });
    if (stopping_) break;
    admit();
    lock.unlock();
    try {
      const auto drawn = engine_.step();
      deliver(drawn);
      lock.lock();
      load_.tokens += static_cast<std::int64_t>(drawn.size());
    } catch (const std::exception& error) {  // the model, or no memory: it concerns all alike
      end_all(running_, error.what());
      lock.lock();
    }
    load_.running = engine_.running();
  }
  constexpr auto why = "the server is shutting down";
  end_all(running_, why);
  end_all(waiting_, why);
  load_.running = load_.waiting = 0;
}

}  // namespace llm
