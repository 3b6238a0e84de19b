// Communicators: one process and ranks as threads.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "common/core/threads.h"
#include "common/parallel/reduce.h"
#include "common/parallel/threads_communicator.h"
#include "tests/ch06_conformance.h"

using namespace llm;

namespace {

CommunicatorOptions soon() {
  CommunicatorOptions options;
  options.deadline = 0.2;
  return options;
}

/// What `body` on `n` ranks fails with.
std::string failure(int n, const std::function<void(Communicator&)>& body,
                    const CommunicatorOptions& options = soon()) {
  try {
    run_ranks(n, options, body);
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing";
}

Tensor floats(std::int64_t n) {
  return Tensor({n});
}

TEST(SelfCommunicator, Conforms) {
  const auto self = make_self_communicator();
  EXPECT_EQ(self->size(), 1);
  EXPECT_EQ(self->rank(), 0);
  conformance::run(*self, 100'000);
}

class Threads : public testing::TestWithParam<int> {};

TEST_P(Threads, Conform) {
  run_ranks(GetParam(), {}, [](Communicator& c) { conformance::run(c, 50'000); });
}

INSTANTIATE_TEST_SUITE_P(Ranks, Threads, testing::Values(1, 2, 3, 4, 5, 8));

TEST(ThreadsCommunicator, TakesLargeTensors) {
  run_ranks(2, {}, [](Communicator& c) { conformance::operations(c, 1 << 20, DType::f32, Device::cpu); });
}

TEST(ThreadsCommunicator, TakesTensorsOnTheDevice) {
  run_ranks(3, {}, [](Communicator& c) { conformance::run(c, 40'000, Device::cuda); });
}

TEST(ThreadsCommunicator, AddsInTheOrderOfTheRanks) {
  // (1 + 2^-24) + 2^-24 is 1, but 1 + (2^-24 + 2^-24) is not.
  const float small = 1.0f / (1 << 24);
  for (const int big : {0, 2}) {
    run_ranks(3, {}, [&](Communicator& c) {
      const auto mine = [&](std::int64_t) { return c.rank() == big ? 1.0f : small; };
      const float expected = big == 0 ? 1.0f : 1.0f + 2 * small;
      Tensor x = conformance::make(60'000, DType::f32, Device::cpu, mine);
      c.all_reduce(x).wait();
      conformance::expect("all_reduce", x, [&](std::int64_t) { return expected; });
      x = conformance::make(60'000, DType::f32, Device::cpu, mine);
      Tensor part = x.range(c.rank() * 20'000, {20'000});
      c.reduce_scatter(part, x).wait();
      c.all_gather(x, part).wait();
      conformance::expect("reduce_scatter and all_gather", x, [&](std::int64_t) { return expected; });
    });
  }
}

TEST(ThreadsCommunicator, ArePerRankOfOneThread) {
  const int before = thread_count();
  set_thread_count(2);
  run_ranks(2, {}, [](Communicator&) { EXPECT_EQ(thread_count(), 1); });
  EXPECT_EQ(thread_count(), 2);
  run_ranks(1, {}, [](Communicator&) { EXPECT_EQ(thread_count(), 2); });
  set_thread_count(before);
}

TEST(ThreadsCommunicator, CompleteWithoutTheRanksThatDoNotWaitYet) {
  std::atomic<bool> over = false;
  run_ranks(2, {}, [&](Communicator& c) {
    Tensor x = conformance::make(100'000, DType::f32, Device::cpu, [](std::int64_t) { return 1; });
    Work work = c.all_reduce(x);
    if (c.rank() == 0) {
      work.wait();
      over = true;
    } else {  // does not look at the operation before the other has its result
      while (!over) std::this_thread::yield();
      work.wait();
    }
    conformance::expect("the sum", x, [](std::int64_t) { return 2; });
  });
}

TEST(ReduceInRankOrder, KeepsNaNsAndRoundsOnce) {
  const Tensor a = Tensor::from(std::vector<float>{1, NAN, 3}, {3});
  const Tensor b = Tensor::from(std::vector<float>{2, 5, NAN}, {3});
  Tensor out({3});
  const std::vector<const void*> from = {a.raw(), b.raw()};
  reduce_in_rank_order(out.raw(), from, 3, DType::f32, ReduceOp::max);
  EXPECT_EQ(out.data()[0], 2);
  EXPECT_TRUE(std::isnan(out.data()[1]) && std::isnan(out.data()[2]));
  // 1 + 2^-8 rounds to 1 in bf16 (8 bits); 1 + 2^-8 + 2^-8 is kept if the sum is rounded only at its end.
  const std::vector<BFloat16> one(1, BFloat16(1)), small(1, BFloat16(1.0f / 256));
  const std::vector<const void*> halves = {one.data(), small.data(), small.data()};
  BFloat16 sum;
  reduce_in_rank_order(&sum, halves, 1, DType::bf16, ReduceOp::sum);
  EXPECT_EQ(static_cast<float>(sum), 1 + 2.0f / 256);
}

// ---- What goes wrong ----

TEST(ThreadsCommunicator, NameTheRankThatCallsSomethingElse) {
  EXPECT_EQ(
      failure(4,
              [](Communicator& c) {
                c.barrier();
                Tensor x = floats(c.rank() == 2 ? 10 : 12);
                if (c.rank() == 2)
                  c.broadcast(x, 1).wait();
                else
                  c.all_reduce(x).wait();
              })
          .substr(8),  // whoever finds it
      "the ranks of 'world' do not call the same operation: rank 2 calls broadcast #2 of 10 f32 from rank "
      "1, but ranks 0, 1 and 3 call all_reduce #2 of 12 f32");
  const std::string message = failure(2, [](Communicator& c) {
    if (c.rank() == 0)
      c.send(floats(3), 1).wait();
    else
      c.recv(Tensor({4}, DType::i32), 0).wait();
  });
  EXPECT_EQ(
      message.substr(8),
      "message #1 on 'world' differs: rank 0 calls send of 3 f32 to rank 1, but rank 1 calls recv of 4 i32 "
      "from rank 0");
}

TEST(ThreadsCommunicator, RefuseWhatMakesNoSense) {
  const auto self = make_self_communicator();
  EXPECT_THROW(self->broadcast(floats(1), 1), Error);
  EXPECT_THROW(self->send(floats(1), -1), Error);
  EXPECT_THROW(self->reduce_scatter(floats(1), floats(2)), Error);
  EXPECT_THROW(self->all_gather(floats(2), floats(1)), Error);
  EXPECT_THROW(self->all_gather(floats(1), Tensor({1}, DType::i32)), Error);
  EXPECT_THROW(run_ranks(0, {}, [](Communicator&) {}), UsageError);
}

TEST(ThreadsCommunicator, NameWhomTheyWaitForAtTheDeadline) {
  std::atomic<bool> over = false;
  const std::string message = failure(3, [&](Communicator& c) {
    if (c.rank() == 1) {
      while (!over) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return;
    }
    try {
      c.all_reduce(floats(5)).wait();
    } catch (...) {
      over = true;
      throw;
    }
  });
  EXPECT_EQ(message.substr(8), "all_reduce #1 of 5 f32 on 'world' has waited 0.2 s for rank 1");
}

TEST(ThreadsCommunicator, NameADeadlock) {
  const std::string message = failure(2, [](Communicator& c) {
    Tensor x = floats(5), y = floats(5);
    c.send(x, 1 - c.rank()).wait();
    c.recv(y, 1 - c.rank()).wait();
  });
  EXPECT_TRUE(message.find("send #1 of 5 f32 to rank") != std::string::npos &&
              message.find("has waited 0.2 s for rank") != std::string::npos)
      << message;
}

TEST(ThreadsCommunicator, DoNotWaitForARankThatHasEnded) {
  CommunicatorOptions patient;
  patient.deadline = 1000;
  EXPECT_EQ(failure(
                2,
                [](Communicator& c) {
                  if (c.rank() == 0) c.barrier();
                },
                patient),
            "rank 0: barrier #1 on 'world' waits for rank 1, which has ended");
}

TEST(ThreadsCommunicator, EndTogetherWhenOneThrows) {
  CommunicatorOptions patient;
  patient.deadline = 1000;
  const auto body = [](Communicator& c) {
    const auto half = c.split(c.rank() % 2, c.rank(), "half");
    if (c.rank() == 3) throw UsageError("this rank has had enough");
    half->barrier();  // ends for ranks 0 and 2; rank 1 waits for rank 3
    c.barrier();
  };
  EXPECT_EQ(failure(4, body, patient), "rank 3: this rank has had enough");
  EXPECT_THROW(run_ranks(4, patient, body), UsageError);
  EXPECT_EQ(failure(
                2,
                [](Communicator& c) {
                  if (c.rank() == 1) throw 7;
                  c.barrier();
                },
                patient),
            "rank 1: something that is not a std::exception was thrown");
}

TEST(ThreadsCommunicator, EndTogetherWhenOneAborts) {
  EXPECT_EQ(failure(3,
                    [](Communicator& c) {
                      if (c.rank() == 2) c.abort("the disk is full");
                      c.barrier();
                    }),
            "rank 2: the disk is full");
}

TEST(ThreadsCommunicator, RememberWhatADestructorCannotThrow) {
  EXPECT_EQ(
      failure(2,
              [](Communicator& c) {
                { Work forgotten = c.all_reduce(floats(c.rank() + 1)); }
                c.barrier();
              })
          .substr(8),
      "the ranks of 'world' do not call the same operation: rank 1 calls all_reduce #1 of 2 f32, but rank 0 "
      "calls all_reduce #1 of 1 f32");
}

TEST(CommunicatorOptions, TakesTheDeadlineFromTheEnvironment) {
  setenv("LLM_DEADLINE", "2.5", 1);
  EXPECT_EQ(CommunicatorOptions().deadline, 2.5);
  setenv("LLM_DEADLINE", "soon", 1);
  EXPECT_THROW(CommunicatorOptions(), UsageError);
  unsetenv("LLM_DEADLINE");
  EXPECT_EQ(CommunicatorOptions().deadline, 60);
}

}  // namespace
