// Tensor and sequence parallelism: a model held by several ranks computes what the whole model computes.
#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "ch06_tensor_helpers.h"
#include "common/core/error.h"
#include "common/parallel/tensor_parallel_group.h"
#include "common/parallel/threads_communicator.h"

namespace llm::testing {
namespace {

struct Setting {
  std::string name = "";
  int ranks;
  bool sequence = false;
  float dropout = 0;
  bool bias = true, tied = true, recompute = false;
  bool packed = false;  // several documents in a row, and losses with weights
  Placement placement = {};
  double tolerance = 1e-5;
};
std::ostream& operator<<(std::ostream& out, const Setting& s) {
  return out << s.name;
}

/// A vocabulary that neither two nor four ranks share evenly; heads of 8, as the device wants them.
GptConfig config_of(const Setting& s) {
  GptConfig config;
  config.vocab_size = 43;
  config.context = 14;
  config.channels = 32;
  config.layers = 3;
  config.heads = 4;
  config.mlp_channels = 56;
  config.dropout = s.dropout;
  config.bias = s.bias;
  config.qkv_bias = s.bias;
  config.tied_head = s.tied;
  return config;
}

constexpr std::int64_t kBatch = 3, kTokens = 12;
ForwardOptions forward_options(const Setting& s) {
  return {.training = s.dropout > 0, .seed = 5, .step = 7, .first_row = 6};
}
constexpr std::int64_t kDocuments[] = {0, 5, 6, 12, 24, 31};
Tensor targets_of(const GptConfig& config) {
  Tensor targets = random_ids(kBatch, kTokens, config.vocab_size, 2);
  targets.data<std::int32_t>()[5] = -1;
  return targets;
}

/// What a step leaves, by name: the losses, the logits and every gradient, f32 on the CPU.
using Outcome = std::map<std::string, Tensor>;

/// A step on the model, or on one shard. Gradients are accumulated over two micro-batches.
Outcome step(GptStage& model, const Setting& s) {
  const Tensor tokens = random_ids(kBatch, kTokens, model.config().vocab_size, 1);
  const Tensor targets = targets_of(model.config());
  StageActivations saved;
  StageScratch scratch;
  Outcome outcome;
  Tensor weights({kBatch, kTokens});
  for (std::int64_t i = 0; i < weights.numel(); ++i) weights.data()[i] = 0.1F * static_cast<float>(i % 7);
  for (std::uint64_t micro_batch = 0; micro_batch < 2; ++micro_batch) {
    ForwardOptions options = forward_options(s);
    if (s.packed) options.documents = kDocuments;
    options.first_row += micro_batch * kBatch;
    model.forward(saved, tokens, options);
    model.loss(saved, scratch, targets, 0.5F, s.packed ? weights : Tensor());
    model.backward(saved, scratch, tokens, options);
  }
  model.sum_partial_gradients();
  outcome["losses"] = saved.losses.to(Device::cpu).clone();
  const Tensor logits({kBatch, kTokens, model.config().vocab_size});
  model.logits(logits, saved);
  outcome["logits"] = logits;
  for (const Parameter& p : model.parameters().all()) outcome[p.name] = p.gradient.to(Device::cpu).clone();
  return outcome;
}

class TensorParallel : public ::testing::TestWithParam<Setting> {};

TEST_P(TensorParallel, ComputesWhatTheWholeComputes) {
  const Setting s = GetParam();
  const GptConfig config = config_of(s);
  GptStage start(config);
  randomize(start, 3);
  GptStage whole = start.placed(s.placement);
  const Outcome expected = step(whole, s);

  std::mutex mutex;
  Outcome gathered;  // gradients of the shards, put together
  for (const Parameter& p : whole.parameters().all()) gathered[p.name] = Tensor(p.shape);
  std::map<std::string, std::vector<float>> unsplit;
  run_group(s.ranks, [&](std::shared_ptr<MeetingGroup> group) {
    GptStage shard(config, {}, {group, s.sequence, s.recompute});
    for (const Parameter& p : shard.parameters().all())
      copy_from_whole(p, p.value, start.parameters().find(p.name)->value);
    shard = shard.placed(s.placement);
    const Outcome got = step(shard, s);
    const std::lock_guard lock(mutex);
    for (const char* name : {"losses", "logits"})
      EXPECT_LT(relative_distance(got.at(name).span(), expected.at(name).span()), s.tolerance)
          << name << " of rank " << group->rank();
    for (const Parameter& p : shard.parameters().all()) {
      const Tensor& gradient = got.at(p.name);
      copy_into_whole(p, gathered.at(p.name), gradient);
      if (p.is_split()) continue;
      const auto [first, is_first] = unsplit.emplace(p.name, copy(gradient));
      EXPECT_TRUE(is_first || first->second == copy(gradient)) << p.name << " differs from rank to rank";
    }
  });
  for (const auto& [name, gradient] : gathered)
    EXPECT_LT(relative_distance(gradient.span(), expected.at(name).span()), s.tolerance) << name;
}

constexpr Placement kEmulated{Device::cuda, DType::f32}, kBf16{Device::cuda, DType::bf16};
const Setting kSettings[] = {
    {.name = "Two", .ranks = 2},
    {.name = "Four", .ranks = 4},
    {.name = "FourWithDropout", .ranks = 4, .dropout = 0.2F},
    {.name = "TwoUntied", .ranks = 2, .tied = false},
    {.name = "FourWithoutBiases", .ranks = 4, .bias = false},
    {.name = "TwoRecomputing", .ranks = 2, .dropout = 0.2F, .recompute = true},
    {.name = "TwoOverSequence", .ranks = 2, .sequence = true},
    {.name = "FourOverSequence", .ranks = 4, .sequence = true},
    {.name = "FourOverSequenceWithDropout", .ranks = 4, .sequence = true, .dropout = 0.2F},
    {.name = "TwoOverSequenceUntiedWithoutBiases",
     .ranks = 2,
     .sequence = true,
     .bias = false,
     .tied = false},
    {.name = "FourOverSequenceRecomputing", .ranks = 4, .sequence = true, .dropout = 0.2F, .recompute = true},
    {.name = "TwoPacked", .ranks = 2, .dropout = 0.2F, .packed = true},
    {.name = "FourOverSequencePacked",
     .ranks = 4,
     .sequence = true,
     .dropout = 0.2F,
     .recompute = true,
     .packed = true},
    {.name = "TwoOnDevice", .ranks = 2, .dropout = 0.2F, .placement = kEmulated},
    {.name = "FourOverSequenceOnDevice",
     .ranks = 4,
     .sequence = true,
     .dropout = 0.2F,
     .placement = kEmulated},
    // bf16 keeps 8 bits: a sum rounded once more differs by 2^-9 of itself, and this adds up over layers.
    {.name = "TwoInBf16", .ranks = 2, .dropout = 0.2F, .placement = kBf16, .tolerance = 0.05},
    {.name = "TwoOverSequenceInBf16", .ranks = 2, .sequence = true, .placement = kBf16, .tolerance = 0.05},
};
INSTANTIATE_TEST_SUITE_P(All, TensorParallel, ::testing::ValuesIn(kSettings),
                         [](const auto& setting) { return setting.param.name; });

TEST(TensorParallelModel, ShardsStartWithTheNumbersOfTheWhole) {
  for (const int ranks : {2, 4}) {
    const GptConfig config = config_of({.ranks = ranks, .tied = false});
    GptStage whole(config);
    whole.initialize(11);
    run_group(ranks, [&](std::shared_ptr<MeetingGroup> group) {
      GptStage shard(config, {}, {group});
      shard.initialize(11);
      for (const Parameter& p : shard.parameters().all()) {
        const Tensor expected(p.shape);
        copy_from_whole(p, expected, whole.parameters().find(p.name)->value);
        EXPECT_EQ(copy(p.value), copy(expected)) << p.name << " of rank " << group->rank();
      }
    });
  }
}

TEST(TensorParallelModel, RunsOverACommunicator) {
  const GptConfig config = config_of({.ranks = 2});
  GptStage whole(config);
  whole.initialize(11);
  const Tensor tokens = random_ids(kBatch, kTokens, config.vocab_size, 1);
  const double expected = run(whole, tokens, targets_of(config));
  for (const bool sequence : {false, true})
    run_ranks(2, {}, [&](Communicator& communicator) {
      GptStage shard(config, {}, {std::make_shared<CommunicatorGroup>(communicator), sequence});
      shard.initialize(11);
      EXPECT_NEAR(run(shard, tokens, targets_of(config)), expected, 1e-5 * expected);
      shard.sum_partial_gradients();
      const Parameter& norm = *shard.parameters().find("h.1.ln_2.weight");
      const Tensor& gradient = whole.parameters().find(norm.name)->gradient;
      EXPECT_LT(relative_distance(norm.gradient.span(), gradient.span()), 1e-5);
    });
}

TEST(TensorParallelModel, EveryElementHasOneOwner) {
  for (const bool sequence : {false, true}) {
    const GptConfig config = config_of({.ranks = 4});
    std::mutex mutex;
    std::int64_t owned = 0;
    run_group(4, [&](std::shared_ptr<MeetingGroup> group) {
      const StageOptions options{group, sequence};
      for (const auto& [first, last] : {std::pair{0, 1}, {1, 2}, {2, 3}}) {  // a pipeline of three stages
        const GptStage stage(config, first, last, {}, options);
        const std::lock_guard lock(mutex);
        for (const Parameter& p : stage.parameters().all()) {
          if (p.owner) owned += p.value.numel();
          EXPECT_EQ(p.partial, sequence && p.name.find("ln_") != std::string::npos) << p.name;
          EXPECT_EQ(p.shared, p.name == "wte.weight") << p.name;
        }
      }
    });
    EXPECT_EQ(owned, parameter_count(config));
  }
}

TEST(TensorParallelModel, SendsWhatTheFormulasSay) {
  const GptConfig config = config_of({.ranks = 2});
  const std::int64_t BTC = kBatch * kTokens * config.channels, L = config.layers;
  for (const bool sequence : {false, true})
    for (const bool recompute : {false, true})
      run_group(2, [&](std::shared_ptr<MeetingGroup> group) {
        const StageOptions options{group, sequence, recompute};
        GptStage shard(config, {}, options);
        shard.initialize(1);
        const Tensor tokens = random_ids(kBatch, kTokens, config.vocab_size, 1);
        run(shard, tokens, targets_of(config));
        const Traffic step = group->traffic;
        shard.sum_partial_gradients();
        const std::int64_t gradients = group->traffic.all_reduce_f32 - step.all_reduce_f32;
        const TensorTraffic formula = tensor_traffic(config, 0, L, kBatch, kTokens, options);
        EXPECT_EQ(step.all_reduce_f32 + step.all_reduce_max, formula.all_reduce + formula.statistics);
        EXPECT_EQ(step.reduce_scatter, formula.reduce_scatter);
        EXPECT_EQ(step.all_gather, formula.all_gather);
        EXPECT_EQ(gradients, formula.step_gradients);
        EXPECT_EQ(formula.statistics, 3 * kBatch * kTokens);
        EXPECT_EQ(formula.step_gradients, sequence ? (2 * L + 1) * 2 * config.channels : 0);
        if (!sequence) {
          EXPECT_EQ(formula.all_reduce, BTC * (L * (recompute ? 5 : 4) + 2));
        } else {
          EXPECT_EQ(formula.all_gather, BTC * (L * (recompute ? 8 : 6) + 2));
          EXPECT_EQ(formula.reduce_scatter, BTC * (L * (recompute ? 5 : 4) + 2));
        }
      });
}

TEST(TensorParallelModel, SequenceParallelismSharesTheActivations) {
  const GptConfig config = config_of({.ranks = 4});
  std::int64_t alone = 0;
  std::mutex mutex;
  {
    GptStage whole(config);
    StageActivations saved;
    whole.forward(saved, random_ids(kBatch, kTokens, config.vocab_size, 1));
    alone = static_cast<std::int64_t>(saved.memory.values.bytes());
  }
  run_group(4, [&](std::shared_ptr<MeetingGroup> group) {
    GptStage shard(config, {}, {group, true});
    StageActivations saved;
    const Tensor& output = shard.forward(saved, random_ids(kBatch, kTokens, config.vocab_size, 1));
    const std::lock_guard lock(mutex);
    EXPECT_EQ(output.shape(), (Shape{kBatch, kTokens / 4, config.channels}));
    EXPECT_EQ(output.shape(), shard.stream_shape(kBatch, kTokens));
    const auto here = static_cast<std::int64_t>(saved.memory.values.bytes());
    EXPECT_NEAR(static_cast<double>(here), static_cast<double>(alone) / 4, 0.02 * static_cast<double>(alone));
  });
}

TEST(TensorParallelModel, SaysWhatCannotBeShared) {
  const auto message = [](GptConfig config, int ranks, bool sequence = false, std::int64_t tokens = 4) {
    std::string text = "nothing thrown";
    std::mutex mutex;
    run_group(ranks, [&](std::shared_ptr<MeetingGroup> group) {
      try {
        GptStage shard(config, {}, {group, sequence});
        StageActivations saved;
        shard.forward(saved, random_ids(1, tokens, config.vocab_size, 1));
      } catch (const UsageError& error) {
        const std::lock_guard lock(mutex);
        text = error.what();
      }
    });
    return text;
  };
  GptConfig config = config_of({.ranks = 3});
  EXPECT_EQ(message(config, 3),
            "tensor parallelism gives every rank whole heads, but 3 ranks cannot share 4 evenly");
  config.mlp_channels = 58;
  EXPECT_EQ(message(config, 4),
            "tensor parallelism shares out the feed-forward layer evenly, but 4 ranks cannot share 58 units");
  config.mlp_channels = 56;
  config.vocab_size = 3;
  EXPECT_EQ(
      message(config, 4),
      "tensor parallelism gives every rank a part of the vocabulary, but 4 ranks cannot share 3 tokens");
  config.vocab_size = 43;
  EXPECT_EQ(message(config, 2, true, 5),
            "sequence parallelism shares out a sequence's tokens evenly, but 2 ranks cannot share 5");
}

// ---- recomputation and stages, alone -----------------------------------------------------------------

TEST(Recomputation, ChangesNoBitAndKeepsLess) {
  for (const Placement placement : {Placement{}, kEmulated, kBf16}) {
    const Setting s{.ranks = 1, .dropout = 0.2F};
    const GptConfig config = config_of(s);
    GptStage start(config);
    randomize(start, 3);
    GptStage keeping = start.placed(placement);
    GptStage recomputing(config, placement, {.recompute = true});
    recomputing.parameters().values().copy_from(start.parameters().values());
    recomputing.parameters().round_values();
    const Outcome expected = step(keeping, s), got = step(recomputing, s);
    for (const auto& [name, tensor] : expected) EXPECT_EQ(copy(tensor), copy(got.at(name))) << name;

    StageActivations kept, less;
    const Tensor tokens = random_ids(kBatch, kTokens, config.vocab_size, 1);
    keeping.forward(kept, tokens);
    recomputing.forward(less, tokens);
    EXPECT_LT(3 * less.bytes(), kept.bytes());
  }
}

TEST(Recomputation, MicroBatchesInFlightShareOneWorkspace) {
  const GptConfig config = config_of({.ranks = 1});
  GptStage keeping(config), recomputing(config, {}, {.recompute = true});
  randomize(keeping, 3);
  randomize(recomputing, 3);
  for (GptStage* model : {&keeping, &recomputing}) {
    StageActivations saved[2];
    saved[0].workspace = saved[1].workspace = std::make_shared<StageWorkspace>();
    StageScratch scratch;
    Tensor tokens[2];
    for (int i : {0, 1}) {
      tokens[i] = random_ids(2, 7 + i, config.vocab_size, static_cast<std::uint64_t>(i));  // of two sizes
      model->forward(saved[i], tokens[i]);
    }
    for (int i : {0, 1}) {
      model->loss(saved[i], scratch, tokens[i], 1.0F);
      model->backward(saved[i], scratch, tokens[i]);
    }
  }
  EXPECT_EQ(copy(keeping.parameters().gradients()), copy(recomputing.parameters().gradients()));
}

TEST(Stages, FirstAndLastShareATiedEmbedding) {
  const Setting s{.ranks = 1, .dropout = 0.2F};
  const GptConfig config = config_of(s);
  GptStage whole(config), first(config, 0, 2), last(config, 2, 3);
  whole.initialize(4);
  first.initialize(4);
  last.initialize(4);
  const Tensor tokens = random_ids(kBatch, kTokens, config.vocab_size, 1);
  const ForwardOptions options = forward_options(s);
  const double expected = run(whole, tokens, targets_of(config), options);

  StageActivations saved_first, saved_last;
  StageScratch scratch_first, scratch_last;
  const Tensor& between = first.forward(saved_first, tokens, options);
  last.forward(saved_last, between, options);
  EXPECT_EQ(last.loss(saved_last, scratch_last, targets_of(config), 1.0F), expected);
  last.backward(saved_last, scratch_last, between, options);
  first.prepare(scratch_first, kBatch, kTokens);
  scratch_first.dstream.copy_from(scratch_last.dstream);
  first.backward(saved_first, scratch_first, tokens, options);

  for (const Parameter& p : whole.parameters().all()) {
    const Parameter* here = first.parameters().find(p.name);
    const Parameter* there = last.parameters().find(p.name);
    if (p.name == "wte.weight") {
      ASSERT_TRUE(here && there && here->shared && there->shared && here->owner && !there->owner);
      EXPECT_EQ(copy(here->value), copy(there->value));
      const Tensor sum(p.shape);
      add(sum, here->gradient, there->gradient);
      EXPECT_LT(relative_distance(sum.span(), p.gradient.span()), 1e-6);
    } else {
      ASSERT_TRUE((here == nullptr) != (there == nullptr)) << p.name;
      EXPECT_EQ(copy((here ? here : there)->gradient), copy(p.gradient)) << p.name;
    }
  }
}

}  // namespace
}  // namespace llm::testing
