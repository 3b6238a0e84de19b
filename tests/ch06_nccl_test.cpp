// The NCCL backend against a stand-in for NCCL (tests/nccl_stub), on the memory of the software GPU.
#ifndef LLM_CUDA  // with the real thing there is no stand-in
#include <gtest/gtest.h>

#include "common/parallel/nccl_communicator.h"
#include "common/parallel/threads_communicator.h"
#include "common/parallel/wrappers.h"
#include "tests/ch06_conformance.h"
#include "tests/nccl_stub/nccl.h"

using namespace llm;

namespace {

/// Runs `body` on `n` ranks with a NCCL communicator each; ranks are told `deadline` seconds. What it fails
/// with.
std::string run_nccl(int n, double deadline, const std::function<void(Communicator&)>& body) {
  nccl_stub::reset_counts();
  CommunicatorOptions options;
  options.deadline = 60;  // of the host
  try {
    run_ranks(n, options, [&](Communicator& host) {
      CommunicatorOptions of_nccl;
      of_nccl.deadline = deadline;
      const auto world = make_nccl_communicator(host.split(0, host.rank(), "world"), of_nccl);
      body(*world);
    });
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing";
}

Tensor on_device(std::int64_t n) {
  return Tensor({n}, DType::f32, Device::cuda);
}

TEST(Nccl, Conforms) {
  for (const int n : {1, 2, 4}) {
    EXPECT_EQ(run_nccl(n, 60,
                       [](Communicator& c) {
                         for (const DType dtype : {DType::f32, DType::bf16, DType::i32})
                           for (const std::int64_t count : {0, 1, 7, 1001})
                             conformance::operations(c, count, dtype, Device::cuda);
                         const auto half = c.split(c.rank() % 2, -c.rank(), "half");
                         conformance::operations(*half, 9, DType::f32, Device::cuda);
                       }),
              "nothing");
    EXPECT_EQ(nccl_stub::aborted(), 0);
    EXPECT_EQ(nccl_stub::destroyed(), 2 * n);
  }
}

TEST(Nccl, PollsWhatIsInProgress) {
  EXPECT_EQ(run_nccl(2, 60,
                     [](Communicator& c) {
                       nccl_stub::faults().polls_in_progress = 50;
                       conformance::operations(c, 7, DType::f32, Device::cuda);
                       c.split(0, c.rank(), "again")->all_reduce(on_device(3)).wait();
                       nccl_stub::faults() = {};
                     }),
            "nothing");
}

TEST(Nccl, IsCheckedOverTheHost) {
  nccl_stub::reset_counts();
  std::string failure;
  try {
    run_ranks(2, {}, [](Communicator& host) {
      auto control = host.split(0, host.rank(), "world");
      auto nccl = make_nccl_communicator(host.split(0, host.rank(), "world"), {});
      const auto world = make_checking_communicator(std::move(nccl), std::move(control));
      world->all_reduce(on_device(world->rank() + 1)).wait();
    });
  } catch (const Error& e) {
    failure = e.what();
  }
  EXPECT_NE(failure.find("rank 1 calls all_reduce #1 of 2 f32, but rank 0 calls all_reduce #1 of 1 f32"),
            std::string::npos)
      << failure;
}

TEST(Nccl, TellsTheOthersAndAbortsWhenItFails) {
  for (const bool at_once : {false, true}) {
    const std::string failure = run_nccl(3, 60, [&](Communicator& c) {
      try {
        c.all_reduce(on_device(5)).wait();
        if (c.rank() == 1) {
          nccl_stub::faults().calls_until_fault = 0;
          nccl_stub::faults().error_at_once = at_once;
        }
        c.all_reduce(on_device(5)).wait();
      } catch (const PeerError& e) {  // of the ranks 0 and 2, which would wait a minute
        EXPECT_EQ(std::string(e.what()).substr(0, 75),
                  "ended because rank 1 failed: all_reduce #2 of 5 f32 on 'world' failed in NC");
        EXPECT_NE(c.rank(), 1);
      }
    });
    EXPECT_EQ(
        failure,
        "rank 1: all_reduce #2 of 5 f32 on 'world' failed in NCCL: remote process exited or there was a "
        "network error (the stand-in says so)");
    EXPECT_EQ(nccl_stub::destroyed(), 0);
    EXPECT_EQ(nccl_stub::aborted(), 3);
  }
}

TEST(Nccl, HasADeadlineForWhatHangs) {
  const std::string failure = run_nccl(2, 0.3, [](Communicator& c) {
    if (c.rank() == 0) {
      nccl_stub::faults().calls_until_fault = 0;
      nccl_stub::faults().error = ncclInProgress;
    }
    Work work = c.all_reduce(on_device(5));
    EXPECT_FALSE(work.done());
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);  // "not yet": the next launch would take it for its own
    work.wait();
  });
  // From whichever of the two tells the other first.
  EXPECT_TRUE(failure.ends_with("all_reduce #1 of 5 f32 on 'world' has waited 0.3 s for another rank"))
      << failure;
  EXPECT_EQ(nccl_stub::destroyed(), 0);
  EXPECT_EQ(nccl_stub::aborted(), 2);
}

TEST(Nccl, EndsWhenARankLeavesForAnotherReason) {
  const std::string failure = run_nccl(2, 60, [](Communicator& c) {
    if (c.rank() == 0) fail("the disk is full");
    c.all_reduce(on_device(5)).wait();
  });
  EXPECT_EQ(failure, "rank 0: the disk is full");
  EXPECT_EQ(nccl_stub::aborted(), 2);
}

TEST(Nccl, RefusesMemoryOfTheHost) {
  EXPECT_EQ(run_nccl(1, 60, [](Communicator& c) { c.all_reduce(Tensor({3})); }),
            "rank 0: all_reduce #1 of 3 f32 on 'world': NCCL moves memory of the GPU, and this tensor is on "
            "the host");
}

}  // namespace
#endif
