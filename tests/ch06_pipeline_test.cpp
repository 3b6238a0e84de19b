// The pipeline runner: the same bits as without a pipeline, under every schedule.
#include "tests/ch06_parallel_helpers.h"

namespace llm {
namespace {

using namespace parallel_test;

struct Case {
  PipelineKind kind;
  int ranks, chunks;
};

void compare(TestRun r, const std::vector<Case>& cases) {
  r.parallel.layout = {};
  const Outcome whole = run(r);
  for (const Case& c : cases) {
    r.parallel.layout = {.pp = c.ranks};
    r.parallel.schedule = c.kind;
    r.parallel.chunks = c.chunks;
    expect_same_bits(
        whole, run(r),
        fmt::format("{} on {} ranks with {} chunks", pipeline_kind_name(c.kind), c.ranks, c.chunks));
  }
}

const std::vector<Case> kAll = {
    {PipelineKind::gpipe, 2, 1},       {PipelineKind::gpipe, 4, 1},       {PipelineKind::one_f_one_b, 2, 1},
    {PipelineKind::one_f_one_b, 3, 1}, {PipelineKind::one_f_one_b, 4, 1}, {PipelineKind::one_f_one_b, 8, 1},
    {PipelineKind::interleaved, 2, 2}, {PipelineKind::interleaved, 2, 4}, {PipelineKind::interleaved, 4, 2}};

TEST(Pipeline, HasTheSameBitsAsNoPipelineWithAdamW) {
  TestRun r;
  r.config.layers = 9;  // uneven stages
  r.trainer = tiny_run(8);
  compare(r, kAll);
}

TEST(Pipeline, HasTheSameBitsAsNoPipelineWithSgd) {
  TestRun r;
  r.config.layers = 9;
  r.trainer = tiny_run(8);
  r.parallel.optimizer = OptimizerKind::sgd;
  r.trainer.schedule.peak = 0.3;
  compare(
      r, {{PipelineKind::gpipe, 3, 1}, {PipelineKind::one_f_one_b, 4, 1}, {PipelineKind::interleaved, 2, 3}});
}

TEST(Pipeline, HasTheSameBitsWithAnUntiedHead) {
  TestRun r;
  r.config.tied_head = false;
  r.trainer = tiny_run(4);
  r.steps = std::min<std::int64_t>(8, kSteps);
  compare(
      r, {{PipelineKind::gpipe, 2, 1}, {PipelineKind::one_f_one_b, 4, 1}, {PipelineKind::interleaved, 2, 2}});
}

TEST(Pipeline, TakesStagesAsGiven) {
  TestRun r;
  r.trainer = tiny_run(3);
  r.steps = std::min<std::int64_t>(5, kSteps);
  r.parallel.layout = {};
  const Outcome whole = run(r);
  r.parallel.layout = {.pp = 2};
  r.parallel.stages = {{0, 1}, {1, 4}};
  expect_same_bits(whole, run(r), "one layer and three");
}

TEST(Pipeline, KeepsAsManyMicroBatchesInFlightAsPublished) {
  for (const auto kind : {PipelineKind::gpipe, PipelineKind::one_f_one_b}) {
    TestRun r;
    r.trainer = tiny_run(8);
    r.steps = 1;
    r.parallel = layout(4, 1, 1);
    r.parallel.schedule = kind;
    run(r, [&](ParallelTrainer& t) {
      const int expected = kind == PipelineKind::gpipe ? 8 : 4 - t.grid().pp_rank;
      EXPECT_EQ(t.runner().most_in_flight(), expected) << pipeline_kind_name(kind);
    });
  }
}

TEST(Pipeline, EvaluatesAsOneRankDoes) {
  const auto tokens = tiny_tokens();
  std::vector<Batch> batches;
  for (int i = 0; i < 5; ++i)
    batches.push_back(make_batch(tokens, random_starts(5000, 16, 1, 0, 3 * i, 3), 16));
  std::vector<double> losses;
  for (const ParallelOptions& o : {layout(1, 1, 1), layout(2, 2, 1), layout(4, 1, 1), layout(1, 4, 1, 3)}) {
    TestRun r;
    r.steps = 1;
    r.parallel = o;
    std::mutex mutex;
    double loss = 0;
    run(r, [&](ParallelTrainer& t) {
      const double here = t.evaluate(batches);
      const std::lock_guard lock(mutex);
      if (loss != 0) {
        EXPECT_EQ(loss, here);
      }
      loss = here;
    });
    losses.push_back(loss);
  }
  for (const double loss : losses) EXPECT_NEAR(loss, losses[0], 1e-5 * losses[0]);
}

}  // namespace
}  // namespace llm
