// Classifier, tuner, policy gradients: against differences, and against the ways they must not go.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "common/finetuning/classifier.h"
#include "common/finetuning/policy.h"
#include "tests/ch04_model_helpers.h"
#include "tests/ops_helpers.h"

namespace llm {
namespace {

using namespace testing;

/// The slope of `loss` along the gradient that `stores` hold must be the gradient's norm.
void expect_gradient(const std::vector<ParameterStore*>& stores, const std::function<double()>& loss) {
  for (ParameterStore* store : stores) store->zero_gradients();
  loss();
  double squares = 0;
  std::vector<Tensor> direction, before;
  for (ParameterStore* store : stores) {
    const Tensor d = store->gradients().clone();
    for (const Parameter& p : store->all())
      if (!p.trains) d.range(p.offset, p.shape).zero();
    squares += squared_norm(d);
    direction.push_back(d);
    before.push_back(store->values().clone());
  }
  const double norm = std::sqrt(squares), step = 5e-3;
  ASSERT_GT(norm, 0);
  const auto at = [&](double h) {
    for (std::size_t s = 0; s < stores.size(); ++s)
      for (std::int64_t i = 0; i < before[s].numel(); ++i)
        stores[s]->values().data()[i] =
            before[s].data()[i] + static_cast<float>(h * direction[s].data()[i] / norm);
    const double value = loss();
    for (std::size_t s = 0; s < stores.size(); ++s) stores[s]->values().copy_from(before[s]);
    return value;
  };
  EXPECT_NEAR((at(step) - at(-step)) / (2 * step), norm, 1e-2 * norm);
}

TextBatch some_texts() {
  const std::vector<std::vector<std::int32_t>> tokens = {{1, 2, 3, 4, 5}, {6, 7}, {8, 9, 10, 11}};
  const std::vector<std::int64_t> labels = {0, 2, 1};
  return collate_texts(tokens, labels, 19, 0);
}

TEST(Classifier, GradientsAreThoseOfTheLoss) {
  for (const TrainedPart part :
       {TrainedPart::head, TrainedPart::last_block, TrainedPart::everything, TrainedPart::lora}) {
    GptStage model(small_config());
    randomize(model, 3);
    LoraOptions lora{.rank = 2, .alpha = 4};
    lora.targets.emplace_back("score");
    Classifier classifier(model, 3, part, 5, lora);
    for (ParameterStore* store : classifier.stores())  // B of adapters is 0 at first
      for (const Parameter& p : store->all())
        if (p.name.ends_with("lora_B.weight")) p.value.copy_from(normal(p.shape, stream_id(p.name), 0.3F));
    SCOPED_TRACE(static_cast<int>(part));
    expect_gradient(classifier.stores(), [&] { return classifier.train(some_texts()); });
  }
}

TEST(Classifier, PaddingAndNeighboursChangeNothing) {
  GptStage model(small_config());
  randomize(model, 3);
  Classifier classifier(model, 3, TrainedPart::head, 5);
  const Tensor together = classifier.logits(some_texts());
  const std::vector<std::vector<std::int32_t>> alone = {{6, 7}};
  const std::vector<std::int64_t> label = {2};
  const Tensor one = classifier.logits(collate_texts(alone, label, 19, 0));
  expect_close(one, together.slice(1, 2), "logits of a text alone");
}

TEST(Classifier, MergedAdaptersGiveTheSameLogits) {
  GptStage model(small_config());
  randomize(model, 3);
  LoraOptions lora{.rank = 2, .alpha = 4, .split_qkv = true};
  lora.targets.emplace_back("score");
  Classifier classifier(model, 3, TrainedPart::lora, 5, lora);
  for (ParameterStore* store : classifier.stores())
    for (const Parameter& p : store->all())
      if (p.name.ends_with("lora_B.weight")) p.value.copy_from(normal(p.shape, stream_id(p.name), 0.3F));
  const Tensor before = classifier.logits(some_texts());
  classifier.merge();
  expect_close(classifier.logits(some_texts()), before, "logits");
}

TEST(Classifier, TrainsWhatItSays) {
  GptStage model(small_config());
  const std::int64_t C = 21, head = 3 * (C + 1);
  EXPECT_EQ(Classifier(model, 3, TrainedPart::head, 1).trained_count(), head);
  EXPECT_EQ(Classifier(model, 3, TrainedPart::everything, 1).trained_count(),
            model.parameters().count() + head);
  EXPECT_EQ(parse_trained_part("last-block"), TrainedPart::last_block);
  EXPECT_THROW(parse_trained_part("first"), UsageError);
  EXPECT_THROW(Classifier(model, 1, TrainedPart::head, 1), UsageError);
}

Batch some_answers() {
  const std::vector<Example> examples = {
      {{1, 2, 3, 4, 5}, 2}, {{6, 7, 8}, 1}, {{1, 2, 9, 10}, 2}, {{6, 11, 12}, 1}};
  return collate(examples, 0);
}

TEST(Policy, LogProbabilitiesAreThoseOfTheSoftmax) {
  GptStage model(small_config());
  randomize(model, 3);
  PassBuffers buffers;
  const Batch batch = some_answers();
  const auto sums = answer_log_probabilities(model, buffers, batch);
  const Tensor logits({4, 4, 41});
  model.logits(logits, buffers.saved);
  const auto targets = batch.targets.span<std::int32_t>();
  for (std::int64_t b = 0; b < 4; ++b) {
    double expected = 0;
    for (std::int64_t t = 0; t < 4; ++t) {
      const std::int32_t target = targets[static_cast<std::size_t>(b * 4 + t)];
      if (target < 0) continue;
      const float* row = logits.data() + (b * 4 + t) * 41;
      double total = 0;
      for (int v = 0; v < 41; ++v) total += std::exp(static_cast<double>(row[v]));
      expected += static_cast<double>(row[target]) - std::log(total);
    }
    EXPECT_NEAR(sums[static_cast<std::size_t>(b)], expected, 1e-4);
  }
}

TEST(Policy, DpoGradientsAreThoseOfTheLoss) {
  GptStage model(small_config());
  randomize(model, 3);
  PassBuffers buffers;
  std::vector<double> reference = answer_log_probabilities(model, buffers, some_answers());
  for (std::size_t i = 0; i < reference.size(); ++i) reference[i] += i % 3 == 0 ? 2 : -1;
  expect_gradient({&model.parameters()},
                  [&] { return dpo_gradients(model, buffers, some_answers(), reference, 0.3).loss; });
}

TEST(Policy, GrpoGradientsAreThoseOfTheLoss) {
  GptStage model(small_config());
  randomize(model, 3);
  PassBuffers buffers;
  std::vector<double> old = token_log_probabilities(model, buffers, some_answers()), reference = old;
  for (std::size_t i = 0; i < old.size(); ++i) {
    old[i] += i % 2 == 0 ? 0.05 : -0.05;  // ratios within the clip, away from its corners
    reference[i] += i % 3 == 0 ? 0.4 : -0.2;
  }
  const std::vector<double> advantages = {1, -0.5, 0.25, -0.75};
  expect_gradient({&model.parameters()}, [&] {
    return grpo_gradients(model, buffers, some_answers(), advantages, old, reference,
                          {.clip = 0.3, .kl = 0.1})
        .loss;
  });
}

TEST(Tuner, StopsBeforeItMovesAnythingToNowhere) {
  GptStage model(small_config());
  Tuner tuner({&model.parameters()}, {});
  const std::vector<float> before = copy(model.parameters().values());
  EXPECT_THROW(tuner.step([] { return std::nan(""); }), Error);
  EXPECT_THROW(tuner.step([&] {
    model.parameters().gradients().fill(INFINITY);
    return 1.0;
  }),
               Error);
  EXPECT_EQ(before, copy(model.parameters().values()));
  EXPECT_EQ(tuner.steps_done(), 0);
  model.set_trainable([](const Parameter&) { return false; });
  EXPECT_THROW(Tuner({&model.parameters()}, {}), Error) << "nothing trains";
}

TEST(Tuner, GoesOnToTheSameBits) {
  const auto file = std::filesystem::temp_directory_path() / ("llm_ch07_tuner_" + std::to_string(getpid()));
  const auto run_steps = [&](Classifier& classifier, Tuner& tuner, int steps) {
    for (int i = 0; i < steps; ++i) tuner.step([&] { return classifier.train(some_texts()); });
  };
  const TunerOptions options{.schedule = {.peak = 1e-2, .floor = 1e-3, .warmup = 2, .steps = 6}};
  GptStage straight(small_config()), resumed(small_config());
  randomize(straight, 3);
  randomize(resumed, 3);
  Classifier a(straight, 3, TrainedPart::last_block, 5), b(resumed, 3, TrainedPart::last_block, 5);
  Tuner whole(a.stores(), options), half(b.stores(), options);
  run_steps(a, whole, 6);
  run_steps(b, half, 3);
  half.save(file, {{"part", "last-block"}});
  run_steps(b, half, 1);  // lost
  Tuner again(b.stores(), options);
  EXPECT_THROW(again.resume(file, {{"part", "head"}}), Error) << "other settings";
  again.resume(file, {{"part", "last-block"}});
  EXPECT_EQ(again.steps_done(), 3);
  run_steps(b, again, 3);
  EXPECT_EQ(copy(straight.parameters().values()), copy(resumed.parameters().values()));
  std::filesystem::remove(file);
}

TEST(Tuner, EveryExampleOncePerEpoch) {
  std::vector<int> seen(10);
  for (std::int64_t step = 0; step < 3; ++step)
    for (const std::size_t i : examples_of_step(10, 3, 1, step)) ++seen[i];
  for (const int count : seen) EXPECT_LE(count, 1);
  EXPECT_NE(examples_of_step(10, 3, 1, 0), examples_of_step(10, 3, 1, 3)) << "another epoch, another order";
  EXPECT_EQ(examples_of_step(10, 3, 1, 2), examples_of_step(10, 3, 1, 2));
  EXPECT_THROW(examples_of_step(2, 3, 1, 0), Error);
}

}  // namespace
}  // namespace llm
