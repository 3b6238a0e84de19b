// Fine-tuning on chapter 6's layouts: what one rank computes, several compute together.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/ch07_tuning_helpers.h"

namespace llm {
namespace {

using namespace tuning_test;

struct Named {
  std::string name;
  TuningRun run;
};

std::vector<Named> tasks() {
  LoraOptions split = kLora, with_head = kLora;
  split.split_qkv = true;
  with_head.targets.emplace_back("score");
  GptConfig untied = config_of();
  untied.tied_head = false;
  return {
      {"answers, everything", {.task = Task::answers}},
      {"answers, adapters", {.task = Task::answers, .lora = kLora}},
      {"answers, split adapters, untied", {.task = Task::answers, .lora = split, .config = untied}},
      {"packed, adapters", {.task = Task::packed, .lora = kLora}},
      {"pairs, everything", {.task = Task::pairs}},
      {"pairs, adapters", {.task = Task::pairs, .lora = kLora}},
      {"classes, everything", {.task = Task::classes, .part = TrainedPart::everything}},
      {"classes, last block", {.task = Task::classes, .part = TrainedPart::last_block}},
      {"classes, head", {.task = Task::classes, .part = TrainedPart::head}},
      {"classes, adapters", {.task = Task::classes, .lora = with_head, .part = TrainedPart::lora}},
  };
}

TEST(FinetuningLayouts, TwoRanksGiveTheLossesOfOne) {
  for (const Named& task : tasks()) {
    SCOPED_TRACE(task.name);
    TuningRun r = task.run;
    const Outcome alone = run(r);
    EXPECT_GT(alone.norms.back(), 1e-3) << "something is to be learned";
    {
      SCOPED_TRACE("pp 2");
      r.layout = {.pp = 2};
      expect_same_bits(run(r), alone);
    }
    {
      SCOPED_TRACE("dp 2");
      r.layout = {.dp = 2};
      const Outcome shared = run(r);
      EXPECT_EQ(shared.losses.front(), alone.losses.front()) << "before anything was added up";
      expect_close_runs(shared, alone);
    }
    {
      SCOPED_TRACE("tp 2");
      r.layout = {.tp = 2};
      expect_close_runs(run(r), alone);
    }
  }
}

TEST(FinetuningLayouts, ThreeDimensions) {
  for (const Named& task : tasks()) {
    if (task.name != "answers, adapters" && task.name != "classes, adapters") continue;
    SCOPED_TRACE(task.name);
    TuningRun r = task.run;
    const Outcome alone = run(r);
    r.layout = {.pp = 2, .dp = 2, .tp = 2};
    expect_close_runs(run(r), alone);
  }
}

TEST(FinetuningLayouts, WhatIsFrozenHasNoMoments) {
  GptStage start(config_of());
  for (const int zero : {0, 1}) {
    run_ranks(2, {}, [&](Communicator& world) {
      ParallelTunerOptions o;
      o.micro_batches = 2;
      o.parallel.layout = {.dp = 2};
      o.parallel.zero = zero;
      o.trains = trained_by(TrainedPart::last_block, start.config());
      ParallelTuner tuner(world, start, {}, o);
      const std::int64_t trained = tuner.model().stages().front()->stage().parameters().trained_count();
      const std::int64_t here = tuner.model().stages().front()->partition().moment_count;
      EXPECT_LT(trained, start.parameters().count() / 2);
      EXPECT_LE(here, zero == 0 ? trained : (trained + 1) / 2 + 1);
      EXPECT_EQ(tuner.model().trained_count(), trained);
    });
  }
}

// Frozen parameters are in no shard; what trains beside a stage is on every rank.
TEST(FinetuningLayouts, ZeroStages) {
  for (const Named& task : tasks()) {
    if (!task.name.starts_with("classes") && task.name != "answers, everything") continue;
    SCOPED_TRACE(task.name);
    TuningRun r = task.run;
    r.layout = {.dp = 2};
    const Outcome plain = run(r);
    r.zero = 1;
    expect_same_bits(run(r), plain);
    r.zero = 3;
    expect_close_runs(run(r), plain);
  }
}

// The tuner of chapter 7 without a grid: other code for the passes, the norm and the update.
TEST(FinetuningLayouts, OneRankDoesWhatTheTunerDoes) {
  for (const bool adapts : {false, true}) {
    TuningRun r{.task = Task::classes, .part = adapts ? TrainedPart::lora : TrainedPart::everything};
    if (adapts) r.lora = kLora;
    r.config = config_of(0);
    const Outcome grid = run(r);
    GptStage model(r.config);
    model.initialize(3);
    Classifier classifier(model, 3, *r.part, 3, kLora);
    Tuner tuner(classifier.stores(), tuner_options());
    EXPECT_EQ(tuner.trained_count(), grid.trained);
    StageActivations saved;
    StageScratch scratch;
    for (std::size_t i = 0; i < grid.losses.size(); ++i) {
      const TunerReport report = tuner.step([&] {
        double sum = 0;
        for (const TextBatch& batch : texts(static_cast<std::int64_t>(i))) {
          model.forward(saved, batch.inputs);
          sum += classifier.head().loss(model, saved, scratch, batch, 1.0F / (2 * kMicroBatches));
          model.backward(saved, scratch, batch.inputs);
        }
        return sum / (2 * kMicroBatches);
      });
      EXPECT_NEAR(report.loss, grid.losses[i], 1e-5 * report.loss);
      EXPECT_NEAR(report.gradient_norm, grid.norms[i], 1e-4 * report.gradient_norm);
    }
  }
}

TEST(FinetuningLayouts, SaysWhatDoesNotGoTogether) {
  TuningRun r{.layout = {.dp = 3}};
  EXPECT_THROW(run(r), UsageError) << "4 micro-batches over 3 ranks";
  r.layout = {.pp = 3};
  EXPECT_THROW(run(r), UsageError) << "2 layers in 3 stages";
  r = {.layout = {.tp = 2}, .lora = LoraOptions{.rank = 2, .dropout = 0.1F}};
  EXPECT_THROW(run(r), UsageError) << "a shard sees a part of an adapter's input";
  r = {.layout = {.pp = 2}, .lora = LoraOptions{.rank = 2, .targets = {"h.1.attn.c_attn"}}};
  EXPECT_EQ(run(r).trained, 2 * (16 + 3 * 16)) << "the first stage has none of the targets";
  r.lora->targets = {"h.2.attn.c_attn"};
  EXPECT_THROW(run(r), UsageError) << "no such layer";
}

}  // namespace
}  // namespace llm
