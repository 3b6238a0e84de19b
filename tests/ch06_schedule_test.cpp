// Pipeline schedules: right, free of deadlocks, as lean and as fast as published, for p up to 8 ranks, m up
// to 32 micro-batches and v up to 4 chunks; and the checker finds what is wrong with others.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "common/core/error.h"
#include "common/parallel/schedule.h"
#include "common/parallel/schedule_check.h"
#include "common/parallel/schedule_timing.h"

namespace llm {
namespace {

using Kind = Instruction::Kind;

/// Calls `f(schedule)` for every schedule of the three kinds with p <= 8, m <= 32, v <= 4.
template <typename F>
void for_all_schedules(const F& f) {
  for (int p = 1; p <= 8; ++p)
    for (int m = 1; m <= 32; ++m) {
      f(make_schedule(PipelineKind::gpipe, p, m));
      f(make_schedule(PipelineKind::one_f_one_b, p, m));
      for (int v = 1; v <= 4; ++v)
        if (m % p == 0 && (p > 1 || v == 1)) f(make_schedule(PipelineKind::interleaved, p, m, v));
    }
}

std::string name_of(const PipelineSchedule& s) {
  return fmt::format("{}, p {}, m {}, v {}", pipeline_kind_name(s.kind), s.ranks, s.micro_batches, s.chunks);
}

TEST(Schedule, KeepsDependenciesPairsMessagesAndNeverDeadlocks) {
  int count = 0;
  for_all_schedules([&](const PipelineSchedule& s) {
    EXPECT_NO_THROW(check_schedule(s)) << name_of(s);
    ++count;
  });
  EXPECT_GT(count, 700);
}

TEST(Schedule, HoldsAsManyMicroBatchesAsPublished) {
  for_all_schedules([&](const PipelineSchedule& s) {
    const std::vector<int> peaks = peak_in_flight(s);
    const int p = s.ranks, m = s.micro_batches, v = s.chunks;
    for (int rank = 0; rank < p; ++rank) {
      int expected = m;  // GPipe
      if (s.kind == PipelineKind::one_f_one_b) expected = std::min(m, p - rank);
      if (s.kind == PipelineKind::interleaved)
        expected = std::min(m * v, 2 * (p - 1 - rank) + (v - 1) * p + 1);
      EXPECT_EQ(peaks[static_cast<std::size_t>(rank)], expected) << name_of(s) << ", rank " << rank;
    }
    // Narayanan et al. 2021, section 2.2.2; Korthikanti et al. 2022, section 4.2.3: the first rank holds
    // p (1 + (p-1)/(p v)) micro-batches' worth of its layers.
    if (s.kind == PipelineKind::interleaved && m >= 2 * p) {
      EXPECT_DOUBLE_EQ(peaks[0] / double(v), p * (1 + (p - 1) / (double(p) * v))) << name_of(s);
    }
  });
}

TEST(Schedule, HasTheBubbleOfTheFormula) {
  for_all_schedules([&](const PipelineSchedule& s) {
    const double formula = (s.ranks - 1) / (double(s.chunks) * s.micro_batches);
    for (const double backward : {1.0, 2.0, 3.0}) {
      const Timeline timeline = simulate(s, PipelineCosts::uniform(s.stages(), 1, backward));
      EXPECT_NEAR(timeline.bubble(), formula, 1e-12) << name_of(s) << ", backward " << backward;
    }
  });
}

TEST(Schedule, KeepsItsBubbleEvenIfEverySendBlocks) {
  // Not the interleaved ones: their messages go round in a ring, and a rank can be held up by both
  // neighbours.
  for_all_schedules([&](const PipelineSchedule& s) {
    if (s.kind == PipelineKind::interleaved) return;
    PipelineCosts costs = PipelineCosts::uniform(s.stages(), 1, 2);
    costs.overlap = false;
    EXPECT_NEAR(simulate(s, costs).bubble(), (s.ranks - 1) / double(s.micro_batches), 1e-12) << name_of(s);
  });
}

TEST(Schedule, MessagesTakeTime) {
  // By hand: 2 ranks, 1 micro-batch: forward 1, message 0.5, forward 1, backward 2, message 0.5, backward 2.
  PipelineCosts costs = PipelineCosts::uniform(2, 1, 2);
  costs.transfer = 0.5;
  for (const bool overlap : {true, false}) {
    costs.overlap = overlap;
    EXPECT_DOUBLE_EQ(simulate(make_schedule(PipelineKind::one_f_one_b, 2, 1), costs).total, 7);
  }
}

TEST(Schedule, TheSlowestStageSetsThePace) {
  // By hand: stages of 1 and 3 (forward and backward alike), 4 micro-batches: the second rank starts at 1,
  // works 4 times 6, and the first rank does its last backward of 1.
  const PipelineCosts costs{{1, 3}, {1, 3}};
  EXPECT_DOUBLE_EQ(simulate(make_schedule(PipelineKind::gpipe, 2, 4), costs).total, 26);
}

TEST(Schedule, GoesInTheOrderOfThePapers) {
  const auto text = [](const PipelineSchedule& s, std::size_t rank) {
    std::string passes;
    for (const Instruction& i : s.instructions[rank])
      if (i.computes())
        passes += fmt::format("{}{}{} ", i.kind == Kind::forward ? 'F' : 'B', i.micro_batch,
                              s.chunks > 1 ? std::string(1, static_cast<char>('a' + i.chunk)) : "");
    return passes;
  };
  // Narayanan et al. 2021, figure 4 top: 4 devices, 8 micro-batches (theirs count from 1).
  const auto plain = make_schedule(PipelineKind::one_f_one_b, 4, 8);
  EXPECT_EQ(text(plain, 0), "F0 F1 F2 F3 B0 F4 B1 F5 B2 F6 B3 F7 B4 B5 B6 B7 ");
  EXPECT_EQ(text(plain, 3), "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 F6 B6 F7 B7 ");
  // Figure 4 bottom: the same with 2 chunks per device.
  const auto interleaved = make_schedule(PipelineKind::interleaved, 4, 8, 2);
  EXPECT_EQ(
      text(interleaved, 3),
      "F0a F1a F2a F3a F0b B0b F1b B1b F2b B2b F3b B3b F4a B0a F5a B1a F6a B2a F7a B3a F4b B4b F5b B5b F6b "
      "B6b F7b B7b B4a B5a B6a B7a ");
}

TEST(Schedule, RefusesWhatMakesNoSense) {
  EXPECT_THROW(make_schedule(PipelineKind::gpipe, 0, 1), UsageError);
  EXPECT_THROW(make_schedule(PipelineKind::one_f_one_b, 2, 0), UsageError);
  EXPECT_THROW(make_schedule(PipelineKind::one_f_one_b, 2, 4, 2), UsageError);
  EXPECT_THROW(make_schedule(PipelineKind::interleaved, 4, 6, 2), UsageError);
  EXPECT_THROW(make_schedule(PipelineKind::interleaved, 1, 6, 2), UsageError);
  EXPECT_THROW(parse_pipeline_kind("zigzag"), UsageError);
  for (const char* name : {"gpipe", "1f1b", "interleaved"})
    EXPECT_EQ(pipeline_kind_name(parse_pipeline_kind(name)), name);
}

// ---- The checker finds what is wrong ----------------------------------------------------------------

std::string complaint(const PipelineSchedule& schedule) {
  try {
    check_schedule(schedule);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

PipelineSchedule two_ranks() {
  return make_schedule(PipelineKind::one_f_one_b, 2, 2);
}

void expect_complaint(const PipelineSchedule& schedule, const std::string& words) {
  EXPECT_NE(complaint(schedule).find(words), std::string::npos) << complaint(schedule);
}

TEST(ScheduleCheck, FindsEachKindOfMistake) {
  PipelineSchedule s = two_ranks();
  ASSERT_EQ(s.instructions[1].back().kind, Kind::send_gradient);
  s.instructions[1].pop_back();  // never sent
  expect_complaint(s,
                   "the schedule deadlocks: rank 0 waits to receive the gradient for micro-batch 1, chunk 0");

  s = two_ranks();
  s.instructions[0].insert(s.instructions[0].begin(), s.instructions[0][1]);  // sent before it is computed
  expect_complaint(s, "it was not computed yet");

  s = two_ranks();
  ASSERT_EQ(s.instructions[1][0].kind, Kind::recv_activation);
  std::swap(s.instructions[1][0], s.instructions[1][1]);  // a pass before its input
  expect_complaint(s, "its input is not there yet");

  s = two_ranks();
  for (Instruction& i : s.instructions[1])
    if (i.kind == Kind::recv_activation) i.micro_batch = 1 - i.micro_batch;  // the wrong one first
  expect_complaint(s, "messages cross");

  s = two_ranks();
  s.instructions[1].insert(s.instructions[1].begin() + 2, s.instructions[1][1]);  // a pass twice
  expect_complaint(s, "it was done before");

  s = two_ranks();
  s.instructions[0].pop_back();  // a pass is missing
  expect_complaint(s, "expected 2 of each");

  s = two_ranks();
  s.instructions[0][1].peer = 0;
  expect_complaint(s, "not on this rank");

  s = two_ranks();
  s.instructions[0][0].micro_batch = 7;
  expect_complaint(s, "no such micro-batch");
}

TEST(ScheduleCheck, FindsADeadlockThatBufferingWouldHide) {
  // Both ranks send first and receive then, one message at a time: it passes while messages are small enough
  // to be buffered, and hangs when they are not.
  PipelineSchedule s = make_schedule(PipelineKind::one_f_one_b, 2, 4);
  for (auto& list : s.instructions) {
    for (std::size_t i = 0; i + 1 < list.size(); ++i)
      if (list[i].receives() && list[i + 1].sends() && list[i].group == list[i + 1].group)
        std::swap(list[i], list[i + 1]);
    int group = 0;
    for (Instruction& i : list)
      if (!i.computes()) i.group = group++;
  }
  expect_complaint(s, "deadlock");
}

// ---- Uneven stages --------------------------------------------------------------------------------

TEST(SplitLayers, SharesThemOut) {
  const auto sizes = [](std::int64_t layers, int stages, double embedding = 0, double head = 0) {
    std::vector<std::int64_t> result;
    std::int64_t next = 0;
    for (const LayerRange& range : split_layers(layers, stages, embedding, head)) {
      EXPECT_EQ(range.first, next);
      next = range.last;
      result.push_back(range.size());
    }
    EXPECT_EQ(next, layers);
    return result;
  };
  using Sizes = std::vector<std::int64_t>;
  EXPECT_EQ(sizes(8, 4), (Sizes{2, 2, 2, 2}));
  EXPECT_EQ(sizes(7, 3), (Sizes{3, 2, 2}));
  EXPECT_EQ(sizes(3, 3), (Sizes{1, 1, 1}));
  // Llama 3 405B: one layer fewer on the first and last of 16 stages (Grattafiori et al. 2024,
  // section 3.3.2): 126 layers, where an even cut of 128 would be 8 each.
  const Sizes llama = sizes(126, 16, 1, 1);
  EXPECT_EQ(llama.front(), 7);
  EXPECT_EQ(llama.back(), 7);
  EXPECT_EQ(std::count(llama.begin(), llama.end(), 8), 14);
  // A head as dear as 5 layers leaves the last stage one.
  EXPECT_EQ(sizes(9, 3, 0, 5), (Sizes{4, 4, 1}));
  EXPECT_THROW(split_layers(2, 3), UsageError);
  EXPECT_THROW(split_layers(2, 0), UsageError);
}

}  // namespace
}  // namespace llm
