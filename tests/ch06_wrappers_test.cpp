// Wrappers: what is checked, counted, kept and drawn.
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "common/core/file.h"
#include "common/parallel/threads_communicator.h"
#include "common/parallel/wrappers.h"
#include "tests/ch06_conformance.h"

using namespace llm;

namespace {

std::unique_ptr<Communicator> world_of(Communicator& c) {
  return c.split(0, c.rank(), c.name());
}

TEST(CheckingCommunicator, Conforms) {
  for (const int n : {1, 3, 4})
    run_ranks(n, {}, [](Communicator& c) {
      const auto checked = make_checking_communicator(world_of(c));
      conformance::run(*checked, 1001);
    });
}

/// What ranks that check each other fail with; all see a difference, so the first of them is as good as any.
std::string failure(int n, const std::function<void(Communicator&)>& body, double deadline = 60) {
  CommunicatorOptions options;
  options.deadline = deadline;
  try {
    run_ranks(n, options, [&](Communicator& c) {
      const auto checked = make_checking_communicator(world_of(c));
      body(*checked);
    });
  } catch (const Error& e) {
    return std::string(e.what()).substr(8);
  }
  return "nothing";
}

TEST(CheckingCommunicator, NamesTheRankThatDiffers) {
  const Tensor x({10}), y({12}), half({6}, DType::bf16);
  EXPECT_EQ(failure(3,
                    [&](Communicator& c) {
                      c.all_reduce(x).wait();
                      c.all_reduce(c.rank() == 1 ? y : x).wait();
                    }),
            "the ranks of 'world' do not call the same operation: rank 1 calls all_reduce #2 of 12 f32, but "
            "ranks 0 "
            "and 2 call all_reduce #2 of 10 f32");
  EXPECT_EQ(
      failure(3,
              [&](Communicator& c) {
                if (c.rank() == 2)
                  c.barrier();
                else
                  c.all_reduce(x, ReduceOp::max).wait();
              }),
      "the ranks of 'world' do not call the same operation: rank 2 calls barrier #1, but ranks 0 and 1 call "
      "all_reduce #1 of 10 f32 (max)");
  EXPECT_EQ(
      failure(4, [&](Communicator& c) { c.broadcast(x, c.rank() / 3).wait(); }),
      "the ranks of 'world' do not call the same operation: rank 3 calls broadcast #1 of 10 f32 from rank 1, "
      "but ranks 0, 1 and 2 call broadcast #1 of 10 f32 from rank 0");
  EXPECT_EQ(
      failure(2,
              [&](Communicator& c) {
                if (c.rank() == 0)
                  c.send(y, 1).wait();
                else
                  c.recv(half, 0).wait();
              }),
      "message #1 on 'world' differs: rank 0 calls send of 12 f32 to rank 1, but rank 1 calls recv of 6 bf16 "
      "from rank 0");
}

TEST(CheckingCommunicator, TellsOfTheOperationAtTheDeadline) {
  EXPECT_EQ(failure(
                2,
                [](Communicator& c) {
                  if (c.rank() == 1)
                    std::this_thread::sleep_for(std::chrono::milliseconds(800));
                  else
                    c.all_reduce(Tensor({3})).wait();
                },
                0.2),
            "all_reduce #1 of 3 f32 on 'world' has waited 0.2 s for rank 1");
}

TEST(TracingCommunicator, ConformsAndCountsByTheFormulas) {
  for (const int n : {1, 2, 4}) {
    run_ranks(n, {}, [&](Communicator& c) {
      const auto trace = std::make_shared<Trace>(true);
      const auto traced = make_tracing_communicator(world_of(c), trace);
      conformance::run(*traced, 1001);
      trace->reset_counts();
      const auto dp = traced->split(0, c.rank(), "dp");
      const Tensor x({1000 * n}), part({1000}), small({8}, DType::bf16);
      dp->all_reduce(x).wait();
      dp->reduce_scatter(part, x).wait();
      dp->all_gather(x, part).wait();
      const double bytes = 4000.0 * (n - 1);  // (n-1)/n of x
      EXPECT_EQ(trace->bytes_sent("dp"), 4 * bytes);
      EXPECT_EQ(trace->bytes_sent("world"), 0);
      dp->broadcast(small, 0).wait();
      EXPECT_EQ(trace->bytes_sent("dp"), 4 * bytes + 16.0 * (n - 1) / n);
      const std::vector<Transfer> ring = {{Transfer::Kind::send, part, (c.rank() + 1) % n},
                                          {Transfer::Kind::recv, part.clone(), (c.rank() + n - 1) % n}};
      traced->exchange(ring).wait();
      EXPECT_EQ(trace->bytes_sent("world"), 4000);
      const auto& all_reduces = trace->counts().at({"dp", Operation::Kind::all_reduce});
      EXPECT_EQ(all_reduces.operations, 1);
      EXPECT_EQ(all_reduces.bytes(), 2 * bytes);
    });
  }
}

TEST(TracingCommunicator, KeepsTheLastOperationsForTheDeadline) {
  CommunicatorOptions soon;
  soon.deadline = 0.2;
  try {
    run_ranks(2, soon, [](Communicator& c) {
      const auto traced = make_tracing_communicator(world_of(c), std::make_shared<Trace>());
      for (int k = 0; k < 100; ++k) traced->all_reduce(Tensor({k})).wait();
      if (c.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(800));
      if (c.rank() == 0) traced->broadcast(Tensor({7}), 0).wait();
    });
    FAIL() << "there was no deadline";
  } catch (const DeadlineError& e) {
    EXPECT_STREQ(e.what(),
                 "rank 0: broadcast #101 of 7 f32 from rank 0 on 'world' has waited 0.2 s for rank 1");
    EXPECT_EQ(std::ranges::count(e.history, '\n'), 64);
    EXPECT_NE(e.history.find("all_reduce #100 of 99 f32 on 'world': done in "), std::string::npos)
        << e.history;
    EXPECT_NE(e.history.find("broadcast #101 of 7 f32 from rank 0 on 'world': waited for since 0."),
              std::string::npos)
        << e.history;
  }
}

TEST(Trace, IsWrittenAsAChromeTrace) {
  const auto path = std::filesystem::temp_directory_path() / fmt::format("llm_trace_{}.json", getpid());
  run_ranks(3, {}, [&](Communicator& c) {
    const auto trace = std::make_shared<Trace>(true);
    const auto traced = make_tracing_communicator(world_of(c), trace);
    const double begin = Trace::now_us();
    Work work = traced->all_reduce(Tensor({5}));
    trace->span("forward 0", begin, Trace::now_us());
    work.wait();
    write_chrome_trace(c, *trace, path);
  });
  const auto json = nlohmann::json::parse(read_file(path));
  std::filesystem::remove(path);
  std::set<std::string> seen;
  for (const auto& event : json.at("traceEvents"))
    seen.insert(fmt::format("{} {} {}", event.at("pid").get<int>(), event.at("ph").get<std::string>(),
                            event.at("name").get<std::string>()));
  for (const int rank : {0, 1, 2})
    for (const char* event :
         {"X forward 0", "b all_reduce #1 of 5 f32 on 'world'", "e all_reduce #1 of 5 f32 on 'world'",
          "X all_reduce #1 of 5 f32 on 'world'", "M process_name"})
      EXPECT_TRUE(seen.count(fmt::format("{} {}", rank, event))) << rank << " " << event;
}

}  // namespace
