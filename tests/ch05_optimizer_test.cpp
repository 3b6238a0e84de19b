// AdamW and clipping against PyTorch, the schedule against values by hand.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/training/adamw.h"
#include "common/training/schedule.h"

namespace llm {
namespace {

using nlohmann::json;

TEST(AdamW, FollowsPyTorchWithGroupsAndClipping) {
  const json golden = json::parse(read_file(std::string(LLM_GOLDEN_DIR) + "/training_adamw.json"));
  ParameterStore store;
  for (const json& p : golden["parameters"]) store.declare(p["name"], p["shape"].get<Shape>(), p["decay"]);
  store.allocate();
  const auto set = [](const Tensor& t, const json& values) {
    ASSERT_EQ(static_cast<std::size_t>(t.numel()), values.size());
    for (std::size_t i = 0; i < values.size(); ++i) t.span()[i] = values[i].get<float>();
  };
  for (const json& p : golden["parameters"])
    set(store.find(p["name"].get<std::string>())->value, p["initial"]);

  const json& o = golden["options"];
  AdamW optimizer(store, {o["beta1"], o["beta2"], o["eps"], o["weight_decay"]});
  int clipped = 0;
  for (const json& step : golden["steps"]) {
    for (const auto& [name, values] : step["gradients"].items()) set(store.find(name)->gradient, values);
    const double norm = gradient_norm(store);
    EXPECT_NEAR(norm, step["norm"].get<double>(), 1e-6 * norm);
    const double scale = clip_scale(norm, o["clip"]);
    clipped += scale < 1;
    optimizer.step(step["lr"], scale);
    for (const auto& [name, values] : step["values"].items()) {
      const auto got = store.find(name)->value.span();
      // Values are of order 1 and a step moves them by at most 0.05. Float32 rounds some ten operations on
      // both sides: 10 * 2^-24 relative to the value, and the same relative to the step; 2e-6 is twice that.
      for (std::size_t i = 0; i < values.size(); ++i)
        EXPECT_NEAR(got[i], values[i].get<float>(), 2e-6 * (1 + std::abs(values[i].get<float>())))
            << name << "[" << i << "]";
    }
  }
  EXPECT_GT(clipped, 0);
  EXPECT_LT(clipped, 5) << "the golden file should have steps with and without clipping";
}

TEST(AdamW, RangesJoinNeighboursOfOneKind) {
  ParameterStore store;
  store.declare("a", {5}, true);
  store.declare("b", {3}, false);
  store.declare("c", {2}, false);
  store.declare("d", {7}, true);
  store.allocate();
  const auto ranges = decay_ranges(store);
  ASSERT_EQ(ranges.size(), 3u);
  EXPECT_TRUE(ranges[0].decay);
  EXPECT_FALSE(ranges[1].decay);
  EXPECT_TRUE(ranges[2].decay);
  for (const Parameter& p : store.all()) {
    int covered = 0;
    for (const DecayRange& r : ranges)
      if (r.begin <= p.offset && p.offset + p.value.numel() <= r.end && r.decay == p.decay) ++covered;
    EXPECT_EQ(covered, 1) << p.name;
  }
  for (std::size_t i = 1; i < ranges.size(); ++i) EXPECT_LE(ranges[i - 1].end, ranges[i].begin);
}

TEST(AdamW, RefusesAbsurdOptions) {
  EXPECT_THROW(validate(AdamWOptions{.beta1 = 1}), UsageError);
  EXPECT_THROW(validate(AdamWOptions{.beta2 = -0.1F}), UsageError);
  EXPECT_THROW(validate(AdamWOptions{.eps = 0}), UsageError);
  EXPECT_THROW(validate(AdamWOptions{.weight_decay = -1}), UsageError);
}

TEST(Clipping, ScalesOnlyWhatIsTooLong) {
  EXPECT_EQ(clip_scale(0.5, 1), 1);
  EXPECT_EQ(clip_scale(1, 1), 1);
  EXPECT_EQ(clip_scale(4, 1), 0.25);
  EXPECT_EQ(clip_scale(4, 0), 1) << "0 means no clipping";
  EXPECT_EQ(clip_scale(0, 1), 1);
}

TEST(Schedule, GoesThroughItsCorners) {
  const Schedule s{.peak = 0.01, .floor = 0.001, .warmup = 4, .steps = 104};
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 0.002);
  EXPECT_DOUBLE_EQ(learning_rate(s, 3), 0.008);
  EXPECT_DOUBLE_EQ(learning_rate(s, 4), 0.01);
  EXPECT_NEAR(learning_rate(s, 54), 0.0055, 1e-15);  // half way: the mean of peak and floor
  EXPECT_NEAR(learning_rate(s, 29), 0.001 + 0.009 * (1 + std::sqrt(0.5)) / 2, 1e-15);
  EXPECT_DOUBLE_EQ(learning_rate(s, 104), 0.001);
  EXPECT_DOUBLE_EQ(learning_rate(s, 9999), 0.001);
  for (int step = 5; step < 104; ++step) EXPECT_LT(learning_rate(s, step), learning_rate(s, step - 1));
}

TEST(Schedule, RefusesAbsurdOptions) {
  EXPECT_THROW(validate(Schedule{.peak = -1}), UsageError);
  EXPECT_THROW(validate(Schedule{.peak = 1e-3, .floor = 1e-2}), UsageError);
  EXPECT_THROW(validate(Schedule{.peak = std::nan(""), .floor = 0}), UsageError);
  EXPECT_THROW(validate(Schedule{.warmup = -1}), UsageError);
  EXPECT_THROW(validate(Schedule{.steps = 0}), UsageError);
}

}  // namespace
}  // namespace llm
