#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "common/core/error.h"
#include "common/core/threads.h"

namespace llm {
namespace {

class Threads : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { set_thread_count(GetParam()); }
  void TearDown() override { set_thread_count(0); }
};

TEST_P(Threads, EveryElementIsVisitedOnce) {
  for (const std::int64_t n : {0, 1, 2, 3, 7, 1000}) {
    std::vector<int> visits(static_cast<std::size_t>(n), 0);
    parallel_for(n, 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
    });
    for (const int v : visits) EXPECT_EQ(v, 1);
  }
}

TEST_P(Threads, NoPartIsSmallerThanTheGrain) {
  std::atomic<int> parts{0};
  parallel_for(100, 60, [&](std::int64_t, std::int64_t) { ++parts; });
  EXPECT_EQ(parts, 1);
}

TEST_P(Threads, WhoIsHeldUpLeavesPartsToOthers) {
  // The first part waits for all others, among them some that its own thread would run next.
  constexpr int n = 64;
  std::atomic<int> done{0};
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  parallel_for(n, 1, [&](std::int64_t begin, std::int64_t end) {
    if (begin == 0) {
      while (done < n - end && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
      EXPECT_EQ(done, n - end);
    }
    done += static_cast<int>(end - begin);
  });
  EXPECT_EQ(done, n);
}

TEST_P(Threads, AnExceptionReachesTheCallerAndThePoolGoesOn) {
  for (int round = 0; round < 3; ++round) {
    EXPECT_THROW(parallel_for(8, 1,
                              [](std::int64_t, std::int64_t end) {
                                if (end == 8) fail("the last part failed");
                              }),
                 Error);
    std::atomic<int> sum{0};
    parallel_for(8, 1, [&](std::int64_t begin, std::int64_t end) { sum += static_cast<int>(end - begin); });
    EXPECT_EQ(sum, 8);
  }
}

TEST_P(Threads, NestedAndConcurrentLoopsComplete) {
  std::atomic<int> sum{0};
  const auto nested = [&] {
    for (int round = 0; round < 200; ++round)
      parallel_for(4, 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = begin; i < end; ++i)
          parallel_for(5, 1, [&](std::int64_t b, std::int64_t e) { sum += static_cast<int>(e - b); });
      });
  };
  std::thread other(nested);
  nested();
  other.join();
  EXPECT_EQ(sum, 2 * 200 * 20);
}

INSTANTIATE_TEST_SUITE_P(Counts, Threads, testing::Values(1, 2, 3, 8));

TEST(ThreadCount, RefusesAbsurdNumbers) {
  EXPECT_THROW(set_thread_count(-1), UsageError);
  EXPECT_THROW(set_thread_count(1000000), UsageError);
}

}  // namespace
}  // namespace llm
