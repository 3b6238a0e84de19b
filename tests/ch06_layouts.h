// Every layout of some ranks, and that a run computes the same under all of them: as threads, and under
// mpirun.
#pragma once

#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/ch06_parallel_helpers.h"

namespace llm::parallel_test {

/// Every way to write `ranks` as pp x dp x tp, with each ZeRO stage that goes with it; tp at most the 4
/// heads.
inline std::vector<ParallelOptions> layouts_of(int ranks) {
  std::vector<ParallelOptions> all;
  for (int pp = 1; pp <= ranks; ++pp)
    for (int dp = 1; pp * dp <= ranks; ++dp) {
      const int tp = ranks / (pp * dp);
      if (pp * dp * tp != ranks || tp > 4) continue;
      for (int zero = 0; zero <= (pp > 1 ? 1 : 3); ++zero) {
        all.push_back(layout(pp, dp, tp, zero));
        if (zero < 2 || dp == 1 || dp == ranks) continue;
        all.push_back(all.back());
        all.back().no_sync = true;
      }
    }
  return all;
}

inline TestRun grid_setup(std::int64_t steps = kSteps) {
  TestRun r;
  r.config.layers = 8;
  r.config.channels = 16;
  r.config.context = 8;
  r.trainer = tiny_run(8, steps);
  r.trainer.batch = 1;
  r.steps = steps;
  return r;
}

/// Under every layout of `ranks` ranks the run comes close to one alone. Layouts with the same number of
/// data-parallel and tensor-parallel ranks sum in the same order, so they have the same bits, but for how
/// ZeRO 2 and 3 with sync add up several micro-batches. `run_it` has all ranks run it; only the one that
/// `leads` looks at what comes out.
inline void expect_the_same_under_every_layout(TestRun r, int ranks,
                                               const std::function<Outcome(const TestRun&)>& run_it,
                                               bool leads = true) {
  const Outcome alone = leads ? run(r) : Outcome{};
  std::map<std::tuple<int, int, bool>, Outcome> same;
  const auto layouts = layouts_of(ranks);
  EXPECT_GE(layouts.size(), 20u);
  for (const ParallelOptions& o : layouts) {
    r.parallel = o;
    const std::string name =
        fmt::format("{}, zero {}{}", to_string(o.layout), o.zero, o.no_sync ? " without sync" : "");
    Outcome outcome = run_it(r);
    if (!leads) continue;
    expect_close(alone, outcome, name);
    const bool ranks_first = o.zero >= 2 && !o.no_sync && o.layout.dp < ranks;
    const std::tuple key(o.layout.dp, o.layout.tp, ranks_first);
    if (const auto other = same.find(key); other != same.end())
      expect_same_bits(other->second, outcome, name);
    else
      same.emplace(key, std::move(outcome));
  }
}

}  // namespace llm::parallel_test
