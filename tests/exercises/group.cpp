#include "tests/exercises/group.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/exercises/exercise_test.h"
#include "tests/exercises/report.h"

namespace llm::exercises {

namespace {

/// Where the ranks meet. A meeting is over when all have come; then all take the result.
class Table {
 public:
  explicit Table(int size) : size_(size), left_(size) {}

  void reduce(int rank, bool sum, std::span<float> x) {
    std::unique_lock lock(mutex_);
    if (failed_) throw Stopped();
    if (arrived_ == 0) {
      result_.assign(x.begin(), x.end());
      sum_ = sum;
      first_ = rank;
    } else if (sum != sum_ || x.size() != result_.size()) {
      fail(fmt::format("rank {} wants the {} of {} elements, rank {} the {} of {}", first_,
                       sum_ ? "sum" : "largest", result_.size(), rank, sum ? "sum" : "largest", x.size()));
    } else {
      for (std::size_t i = 0; i < x.size(); ++i)
        result_[i] = sum ? result_[i] + x[i] : std::max(result_[i], x[i]);
    }
    const std::uint64_t meeting = meeting_;
    if (++arrived_ == size_) {
      taken_ = result_;
      arrived_ = 0;
      ++meeting_;
      changed_.notify_all();
    } else {
      check_present();
      changed_.wait(lock, [&] { return failed_ || meeting_ != meeting; });
      if (failed_) throw Stopped();
    }
    std::copy(taken_.begin(), taken_.end(), x.begin());
  }

  /// A rank has ended, well or not.
  void leave(bool stopped) {
    const std::lock_guard lock(mutex_);
    --left_;
    if (stopped) failed_ = true;
    if (!failed_ && arrived_ > 0) note_absence();
    changed_.notify_all();
  }
  const std::string& message() const { return message_; }
  struct Stopped {};

 private:
  void check_present() {
    if (left_ == size_) return;
    note_absence();
    changed_.notify_all();
    throw Stopped();
  }
  void note_absence() {
    failed_ = true;
    if (message_.empty())
      message_ = fmt::format("rank {} waits for a reduction that another rank never joins", first_);
  }
  [[noreturn]] void fail(std::string message) {
    failed_ = true;
    message_ = std::move(message);
    changed_.notify_all();
    throw Stopped();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int size_, left_, arrived_ = 0, first_ = 0;
  std::uint64_t meeting_ = 0;
  bool sum_ = true, failed_ = false;
  std::vector<float> result_, taken_;
  std::string message_;
};

}  // namespace

bool run_group(int size, const std::function<void(GroupRank&)>& body) {
  Table table(size);
  std::vector<std::string> errors(static_cast<std::size_t>(size));
  std::vector<char> stubs(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r)
    threads.emplace_back([&, r] {
      GroupRank rank{.rank = r, .size = size};
      const auto reduce = [&table, &rank](bool sum) {
        return [&table, &rank, sum](std::span<float> x) {
          table.reduce(rank.rank, sum, x);
          rank.reduced += x.size();
        };
      };
      rank.sum = reduce(true);
      rank.most = reduce(false);
      try {
        body(rank);
        return table.leave(false);
      } catch (const NotStarted&) {
        stubs[static_cast<std::size_t>(r)] = 1;
      } catch (const Table::Stopped&) {
      } catch (const std::exception& error) {
        errors[static_cast<std::size_t>(r)] = error.what();
      }
      table.leave(true);
    });
  for (std::thread& thread : threads) thread.join();
  if (std::ranges::find(stubs, 1) != stubs.end()) {
    note_not_started();
    throw NotStarted();
  }
  for (int r = 0; r < size; ++r)
    if (const std::string& error = errors[static_cast<std::size_t>(r)]; !error.empty()) {
      report_difference(fmt::format("rank {}", r), "no exception", error, "");
      return false;
    }
  if (table.message().empty()) return true;
  report_difference("the ranks", "that all reduce the same, in the same order", table.message(), "");
  return false;
}

}  // namespace llm::exercises
