// Checks of the exercises of chapter 6 on what ranks say to each other: a ring, buckets, a deadlock. Expected
// numbers: by hand.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ch06_multi_gpu/exercises.h"
#include "common/core/error.h"
#include "tests/exercises/exercise_test.h"

namespace llm::exercises {
namespace {

constexpr auto kPatience = std::chrono::milliseconds(1500);

/// Runs body(rank) on a thread per rank. The first exception is thrown again.
void on_ranks(int ranks, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      try {
        body(rank);
      } catch (...) {
        errors[static_cast<std::size_t>(rank)] = std::current_exception();
      }
    });
  for (auto& thread : threads) thread.join();
  for (const auto& error : errors)
    if (error) std::rethrow_exception(error);
}

// ---- 6.1 ------------------------------------------------------------------------------------------

/// What is on its way between neighbours.
struct Wires {
  explicit Wires(int ranks) : full(static_cast<std::size_t>(ranks)), value(full.size()), sent(full.size()) {}
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<bool> full;
  std::vector<std::vector<float>> value;  // from rank i to its right neighbour
  std::vector<std::size_t> sent;
};

struct TestRing : ch06::Ring {
  TestRing(Wires& w, int r, int n)
      : wires(w), rank(static_cast<std::size_t>(r)), ranks(static_cast<std::size_t>(n)) {}
  void pass(std::span<const float> out, std::span<float> in) override {
    std::unique_lock lock(wires.mutex);
    const std::size_t left = (rank + ranks - 1) % ranks;
    wait(lock, [&] { return !wires.full[rank]; });
    wires.value[rank].assign(out.begin(), out.end());
    wires.full[rank] = true;
    wires.sent[rank] += out.size();
    wires.changed.notify_all();
    wait(lock, [&] { return wires.full[left]; });
    check(wires.value[left].size() == in.size(), "rank {} sent {} numbers, but rank {} expected {}", left,
          wires.value[left].size(), rank, in.size());
    std::copy(wires.value[left].begin(), wires.value[left].end(), in.begin());
    wires.full[left] = false;
    wires.changed.notify_all();
  }
  void wait(std::unique_lock<std::mutex>& lock, const std::function<bool()>& ready) {
    check(wires.changed.wait_for(lock, kPatience, ready),
          "rank {} waits for a neighbour that does not come: all ranks must make as many passes", rank);
  }
  Wires& wires;
  std::size_t rank, ranks;
};

/// Element i of rank r is 10^r (i + 1): the sum shows who is in it.
void check_ring(int ranks, std::size_t piece) {
  Wires wires(ranks);
  const std::size_t size = piece * static_cast<std::size_t>(ranks);
  std::vector<std::vector<float>> x(static_cast<std::size_t>(ranks));
  std::vector<float> expected(size);
  for (std::size_t r = 0; r < x.size(); ++r)
    for (std::size_t i = 0; i < size; ++i) {
      x[r].push_back(static_cast<float>(std::pow(10, r)) * static_cast<float>(i + 1));
      expected[i] += x[r].back();
    }
  on_ranks(ranks, [&](int rank) {
    TestRing ring(wires, rank, ranks);
    ch06::ring_all_reduce(x[static_cast<std::size_t>(rank)], rank, ranks, ring);
  });
  for (std::size_t r = 0; r < x.size(); ++r)
    expect_close(x[r], expected, "digit d of an element counts how often rank d was added");
  for (const std::size_t sent : wires.sent)
    expect_equal(static_cast<std::int64_t>(sent), static_cast<std::int64_t>(2 * (size - piece)),
                 "each rank sends 2 (ranks - 1) pieces");
}

TEST(Exercise_6_1, TwoRanks) {
  check_ring(2, 1);
}
TEST(Exercise_6_1, MoreRanksAndLongerPieces) {
  check_ring(3, 2);
  check_ring(5, 7);
}
TEST(Exercise_6_1, OneRankHasNothingToDo) {
  check_ring(1, 4);
}

// ---- 6.2 ------------------------------------------------------------------------------------------

TEST(Exercise_6_2, FillsBucketsFromTheLastGradient) {
  std::vector<float> a = {1, 2}, b = {3}, c = {4, 5, 6}, d = {7, 8};
  std::vector<std::vector<float>> buckets;
  const auto sum_of_two = [&](std::span<float> bucket) {
    buckets.emplace_back(bucket.begin(), bucket.end());
    for (float& g : bucket) g += 100;  // what the other rank has
  };
  ch06::average_in_buckets({a, b, c, d}, 5, 2, sum_of_two);
  ASSERT_EQ(buckets.size(), 2u) << "d and c fill a bucket of 5; b and a make another";
  expect_close(buckets[0], std::vector<float>{7, 8, 4, 5, 6}, "the last gradient comes first");
  expect_close(buckets[1], std::vector<float>{3, 1, 2}, "the last gradient comes first");
  expect_close(a, std::vector<float>{50.5F, 51}, "the average is the sum divided by the ranks");
  expect_close(b, std::vector<float>{51.5F});
  expect_close(c, std::vector<float>{52, 52.5F, 53});
  expect_close(d, std::vector<float>{53.5F, 54});
}

TEST(Exercise_6_2, ALargeGradientIsABucketOfItsOwn) {
  std::vector<float> a = {1}, b(10, 2), c = {3};
  std::vector<std::int64_t> sizes;
  ch06::average_in_buckets({a, b, c}, 4, 1, [&](std::span<float> bucket) {
    sizes.push_back(static_cast<std::int64_t>(bucket.size()));
  });
  expect_equal(sizes, std::vector<std::int64_t>{1, 10, 1}, "a gradient that is larger alone goes alone");
}

TEST(Exercise_6_2, ABucketMayBeExactlyFull) {
  std::vector<float> a(2), b(2), c(2);
  std::vector<std::int64_t> sizes;
  ch06::average_in_buckets({a, b, c}, 4, 1, [&](std::span<float> bucket) {
    sizes.push_back(static_cast<std::int64_t>(bucket.size()));
  });
  expect_equal(sizes, std::vector<std::int64_t>{4, 2}, "at most bucket_size elements: so as many are fine");
  ch06::average_in_buckets({}, 4, 1, [&](std::span<float>) { FAIL() << "there is nothing to reduce"; });
}

// ---- 6.10 -----------------------------------------------------------------------------------------

/// Rendezvous messages, with a clock per rank that counts rounds: a message ends one round after both were
/// ready.
struct Meeting {
  std::mutex mutex;
  std::condition_variable changed;
  struct Offer {
    float value = 0;
    int ready = 0, done = -1;
  };
  std::map<std::pair<int, int>, Offer> offers;  // (from, to): a send that waits
};

struct TestLine : ch06::BlockingLine {
  TestLine(Meeting& m, int r) : meeting(m), rank(r) {}
  void send(int to, float value) override {
    std::unique_lock lock(meeting.mutex);
    auto& offer = meeting.offers[{rank, to}] = {value, clock, -1};
    meeting.changed.notify_all();
    wait(lock, to, [&] { return offer.done >= 0; });
    clock = offer.done;
    meeting.offers.erase({rank, to});
  }
  float receive(int from) override {
    std::unique_lock lock(meeting.mutex);
    const std::pair key(from, rank);
    wait(lock, from, [&] {
      const auto found = meeting.offers.find(key);
      return found != meeting.offers.end() && found->second.done < 0;
    });
    auto& offer = meeting.offers[key];
    clock = offer.done = std::max(offer.ready, clock) + 1;
    meeting.changed.notify_all();
    return offer.value;
  }
  void wait(std::unique_lock<std::mutex>& lock, int other, const std::function<bool()>& ready) {
    check(meeting.changed.wait_for(lock, kPatience, ready), "a deadlock: rank {} waits for rank {}", rank,
          other);
  }
  Meeting& meeting;
  int rank, clock = 0;
};

void check_line(int ranks) {
  Meeting meeting;
  std::vector<float> left(static_cast<std::size_t>(ranks)), right = left, expected_left = left,
                                                            expected_right = left;
  std::vector<int> rounds(left.size());
  on_ranks(ranks, [&](int rank) {
    TestLine line(meeting, rank);
    const auto got = ch06::exchange_with_neighbours(static_cast<float>(rank + 1), rank, ranks, line);
    const auto i = static_cast<std::size_t>(rank);
    left[i] = got.left;
    right[i] = got.right;
    rounds[i] = line.clock;
  });
  for (int rank = 0; rank < ranks; ++rank) {
    if (rank > 0) expected_left[static_cast<std::size_t>(rank)] = static_cast<float>(rank);
    if (rank + 1 < ranks) expected_right[static_cast<std::size_t>(rank)] = static_cast<float>(rank + 2);
  }
  expect_close(left, expected_left, "the value of rank - 1, and 0 on the first rank");
  expect_close(right, expected_right, "the value of rank + 1, and 0 on the last rank");
  EXPECT_LE(*std::ranges::max_element(rounds), 4)
      << "pairs should talk at the same time, not one after the other";
}

TEST(Exercise_6_10, TwoRanks) {
  check_line(2);
}
TEST(Exercise_6_10, FiveRanks) {
  check_line(5);
}
TEST(Exercise_6_10, ManyRanksTakeNoLonger) {
  check_line(1);
  check_line(16);
}

}  // namespace
}  // namespace llm::exercises
