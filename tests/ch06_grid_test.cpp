// Three dimensions at once: every layout of 8 ranks computes what one rank does.
#include <set>

#include "common/parallel/step_traffic.h"
#include "common/parallel/wrappers.h"
#include "tests/ch06_layouts.h"

namespace llm {
namespace {

using namespace parallel_test;

TEST(Grid, TensorParallelRanksAreNeighbours) {
  run_ranks(8, {}, [](Communicator& world) {
    const Grid grid(world, {.pp = 2, .dp = 2, .tp = 2});
    EXPECT_EQ(world.rank(), (grid.pp_rank * 2 + grid.dp_rank) * 2 + grid.tp_rank);
    EXPECT_EQ(grid.tp->rank(), grid.tp_rank);
    EXPECT_EQ(grid.dp->rank(), grid.dp_rank);
    EXPECT_EQ(grid.pp->rank(), grid.pp_rank);
    EXPECT_EQ(grid.tp->size() * grid.dp->size() * grid.pp->size(), 8);
  });
  EXPECT_THROW(validate(Layout{.pp = 2, .dp = 2, .tp = 1}, 8), UsageError);
  EXPECT_THROW(validate(Layout{.pp = 0, .dp = 2, .tp = 1}, 0), UsageError);
}

TEST(Grid, EveryLayoutOfEightRanksComputesTheSame) {
  expect_the_same_under_every_layout(grid_setup(), 8, [](const TestRun& r) { return run(r); });
}

TEST(Grid, SequenceParallelismAndRecomputationGoWithEverything) {
  TestRun r = grid_setup(std::min<std::int64_t>(6, kSteps));
  const Outcome alone = run(r);
  for (ParallelOptions o : {layout(1, 1, 2), layout(2, 2, 2), layout(1, 2, 2, 1), layout(1, 2, 2, 2),
                            layout(1, 2, 2, 3), layout(2, 1, 4)}) {
    r.parallel = o;
    r.parallel.recompute = true;
    const Outcome recomputed = run(r);
    r.parallel.recompute = false;
    expect_same_bits(run(r), recomputed, "recomputation with " + to_string(o.layout));
    r.parallel.sequence_parallel = true;
    expect_close(alone, run(r), "sequence parallel with " + to_string(o.layout));
  }
}

TEST(Grid, InterleavedWithTheOtherTwo) {
  TestRun r = grid_setup(std::min<std::int64_t>(6, kSteps));
  r.parallel = layout(1, 2, 2);
  const Outcome without = run(r);
  r.parallel = layout(2, 2, 2, 1);
  r.parallel.schedule = PipelineKind::interleaved;
  r.parallel.chunks = 2;
  expect_same_bits(without, run(r), "interleaved 2 x 2 x 2, zero 1");
  r.parallel.schedule = PipelineKind::gpipe;
  r.parallel.chunks = 1;
  expect_same_bits(without, run(r), "gpipe 2 x 2 x 2, zero 1");
}

// Sizes that all ranks divide: then the formulas hold to the byte.
TEST(Grid, SendsWhatTheFormulasSay) {
  TestRun r = grid_setup();
  r.config.vocab_size = 64;
  const auto tokens = tiny_tokens();
  std::vector<ParallelOptions> all = layouts_of(8);
  all.push_back(layout(1, 2, 2, 3));
  all.back().sequence_parallel = true;
  all.push_back(layout(2, 1, 2));
  all.back().schedule = PipelineKind::interleaved;
  all.back().chunks = 2;
  all.push_back(layout(1, 1, 4));
  all.back().recompute = true;
  for (const ParallelOptions& o : all) {
    run_ranks(o.layout.ranks(), {}, [&](Communicator& world) {
      const auto trace = std::make_shared<Trace>();
      const auto counted = make_tracing_communicator(world.split(0, world.rank(), "world"), trace);
      ParallelTrainer trainer(*counted, r.config, {}, tokens, 0, r.trainer, o);
      trainer.initialize(3);
      trainer.step();
      trace->reset_counts();
      trainer.step();
      const StepTraffic formula = step_traffic(trainer, r.config.context);
      const std::string name = fmt::format("{}, zero {}, rank {}", to_string(o.layout), o.zero, world.rank());
      EXPECT_DOUBLE_EQ(trace->bytes_sent("dp"), formula.dp) << name;
      EXPECT_DOUBLE_EQ(trace->bytes_sent("pp") + trace->bytes_sent("tied embedding"), formula.pp) << name;
      EXPECT_DOUBLE_EQ(trace->bytes_sent("tp"), formula.tp) << name;
      if (o.layout.pp == 1 && o.layout.tp == 1) {
        const auto P = static_cast<double>(parameter_count(r.config));
        const double share = (o.layout.dp - 1.0) / o.layout.dp;
        EXPECT_DOUBLE_EQ(formula.dp, (o.zero == 3 ? 3 : 2) * P * sizeof(float) * share) << name;
      }
    });
  }
}

// The same runs on the device: on the software GPU a few small ones.
TEST(Grid, OnTheDevice) {
  TestRun r = grid_setup();
  r.config.layers = 2;
  r.config.channels = 32;  // heads of 8, as the kernels want them
  r.config.dropout = 0;
  r.trainer = tiny_run(2, 2);
  r.trainer.batch = 1;
  r.steps = 2;
  r.placement = {Device::cuda, DType::f32};
  const Outcome alone = run(r);
  for (const ParallelOptions& o :
       {layout(1, 2, 1), layout(1, 2, 1, 1), layout(1, 2, 1, 2), layout(1, 2, 1, 3), layout(2, 1, 1),
        layout(1, 1, 2), layout(2, 1, 2), layout(2, 2, 2, 1)}) {
    r.parallel = o;
    expect_close(alone, run(r), fmt::format("{}, zero {}", to_string(o.layout), o.zero), 2e-5);
  }
  r.placement.dtype = DType::bf16;
  r.parallel = {};
  const Outcome mixed = run(r);
  for (const ParallelOptions& o :
       {layout(1, 2, 1, 1), layout(1, 2, 1, 3), layout(2, 1, 1), layout(1, 1, 2)}) {
    r.parallel = o;
    // bf16 has 8 bits: sums in another order round differently by 2^-9 of a value.
    expect_close(mixed, run(r), fmt::format("bf16, {}, zero {}", to_string(o.layout), o.zero), 4e-3);
  }
}

}  // namespace
}  // namespace llm
