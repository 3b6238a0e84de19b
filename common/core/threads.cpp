#include "common/core/threads.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "common/core/error.h"

namespace llm {

namespace {

// A worker that has nothing to do spins this often before it sleeps: the next loop of a training
// step comes within microseconds, and waking a thread costs tens of them.
constexpr int kSpins = 4000;

// A loop is cut into this many parts per thread: a thread that is held up (by another program, or by a
// neighbour on the same core) leaves some of its parts to the others.
constexpr int kPartsPerThread = 16;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/// Waits until `value` is no longer `old`; spins first, then sleeps.
void wait_while_equal(std::atomic<std::uint32_t>& value, std::uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause_cpu();
  }
  value.wait(old, std::memory_order_acquire);
}

class Pool {
 public:
  explicit Pool(int threads) : threads_(threads), next_(static_cast<std::size_t>(threads)) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  }
  ~Pool() {
    stop_ = true;
    start_.fetch_add(1, std::memory_order_release);
    start_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  int threads() const { return threads_; }

  void run(std::int64_t n, int parts, const std::function<void(std::int64_t, std::int64_t)>& body) {
    body_ = &body;
    n_ = n;
    parts_ = parts;
    for (int i = 0; i < threads_; ++i) next_part(i).store(first_part(i), std::memory_order_relaxed);
    pending_.store(static_cast<std::uint32_t>(threads_ - 1), std::memory_order_relaxed);
    start_.fetch_add(1, std::memory_order_release);
    start_.notify_all();
    run_parts(0);
    for (std::uint32_t left; (left = pending_.load(std::memory_order_acquire)) != 0;)
      wait_while_equal(pending_, left);
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  /// Each of these has a cache line to itself.
  struct alignas(64) Next {
    std::atomic<int> part{0};
  };
  std::atomic<int>& next_part(int thread) { return next_[static_cast<std::size_t>(thread)].part; }
  int first_part(int thread) const { return static_cast<int>(std::int64_t{parts_} * thread / threads_); }

  /// The thread's own parts in order, so that it meets the same data in each loop, and then what others have
  /// not begun.
  void run_parts(int thread) {
    for (int other = 0; other < threads_; ++other) {
      const int owner = (thread + other) % threads_;
      const int end = first_part(owner + 1);
      for (int i; (i = next_part(owner).fetch_add(1, std::memory_order_relaxed)) < end;) part(i);
    }
  }

  void part(int i) {
    try {
      (*body_)(n_ * i / parts_, n_ * (i + 1) / parts_);
    } catch (...) {
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }

  void work(int i);

  int threads_;
  std::vector<Next> next_;  // of each thread's parts, the first that nobody has begun
  std::vector<std::thread> workers_;
  std::atomic<std::uint32_t> start_{0};
  std::atomic<std::uint32_t> pending_{0};
  std::atomic<bool> stop_{false};
  const std::function<void(std::int64_t, std::int64_t)>* body_ = nullptr;
  std::int64_t n_ = 0;
  int parts_ = 0;
  std::mutex error_mutex_;
  std::exception_ptr error_;
};

// True on a thread that is running a part: loops inside it do not use the pool again.
thread_local bool inside_part = false;

void Pool::work(int i) {
  inside_part = true;
  std::uint32_t seen = 0;
  while (true) {
    wait_while_equal(start_, seen);
    seen = start_.load(std::memory_order_acquire);
    if (stop_) return;
    run_parts(i);
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
  }
}

struct PoolHolder {
  std::mutex mutex;  // held while a loop runs, so that only one caller at a time uses the pool
  std::unique_ptr<Pool> pool;
  std::atomic<int> count{0};
};

PoolHolder& holder() {
  static PoolHolder instance;
  return instance;
}

int cores() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

int thread_count() {
  const int count = holder().count.load();
  return count == 0 ? cores() : count;
}

void set_thread_count(int count) {
  if (count < 0 || count > 1024) fail_usage("the number of threads must be 0 to 1024, got {}", count);
  auto& h = holder();
  const std::lock_guard lock(h.mutex);
  h.count = count == 0 ? cores() : count;
  h.pool.reset();
}

void parallel_for(std::int64_t n, std::int64_t grain,
                  const std::function<void(std::int64_t, std::int64_t)>& body) {
  if (n <= 0) return;
  const int threads = thread_count();
  const int parts = static_cast<int>(
      std::min<std::int64_t>(std::int64_t{threads} * kPartsPerThread,
                             std::max<std::int64_t>(1, n / std::max<std::int64_t>(1, grain))));
  auto& h = holder();
  if (parts > 1 && threads > 1 && !inside_part) {
    const std::unique_lock lock(h.mutex, std::try_to_lock);
    if (lock.owns_lock()) {
      if (!h.pool || h.pool->threads() != threads) h.pool = std::make_unique<Pool>(threads);
      inside_part = true;
      struct Reset {
        ~Reset() { inside_part = false; }
      } reset;
      h.pool->run(n, parts, body);
      return;
    }
  }
  body(0, n);
}

}  // namespace llm
