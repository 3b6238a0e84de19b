// Checks of the exercises of chapter 6 on who keeps what: ZeRO, and the memory formula. Expected numbers: by
// hand, from the papers where said so.
#include <algorithm>
#include <string>
#include <vector>

#include "ch06_multi_gpu/exercises.h"
#include "common/core/error.h"
#include "tests/exercises/exercise_test.h"

namespace llm::exercises {
namespace {

// ---- 6.7 ------------------------------------------------------------------------------------------

std::string text(const ch06::Range& range) {
  return fmt::format("[{}, {})", range.begin, range.end);
}

TEST(Exercise_6_7, CutsEvenly) {
  expect_equal(text(ch06::zero1_part(12, 0, 3, 1)), "[0, 4)");
  expect_equal(text(ch06::zero1_part(12, 2, 3, 1)), "[8, 12)");
}

TEST(Exercise_6_7, RoundsUp) {
  expect_equal(text(ch06::zero1_part(10, 0, 3, 1)), "[0, 4)",
               "10 / 3, rounded up, is 4: nothing may be left over");
  expect_equal(text(ch06::zero1_part(10, 2, 3, 1)), "[8, 10)", "the last part ends where the buffer ends");
}

TEST(Exercise_6_7, KeepsTheAlignment) {
  // 10 over 3 is 4, and the next multiple of 8 is 8.
  expect_equal(text(ch06::zero1_part(10, 0, 3, 8)), "[0, 8)",
               "the size of a part is a multiple of the alignment");
  expect_equal(text(ch06::zero1_part(10, 1, 3, 8)), "[8, 10)");
  expect_equal(text(ch06::zero1_part(10, 2, 3, 8)), "[10, 10)",
               "an empty part begins and ends at the end of the buffer");
}

TEST(Exercise_6_7, CoversEverythingOnce) {
  for (const std::int64_t elements : {0, 1, 7, 64, 1000, 944896})
    for (const int ranks : {1, 2, 3, 8})
      for (const std::int64_t alignment : {1, 4, 16}) {
        std::int64_t next = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const ch06::Range part = ch06::zero1_part(elements, rank, ranks, alignment);
          expect_equal(part.begin, next, "parts follow each other without a gap", "the begin");
          next = part.end;
        }
        expect_equal(next, elements, "together the parts are the whole buffer", "the last end");
      }
}

// ---- 6.8 ------------------------------------------------------------------------------------------

struct RecordedLayers : ch06::ShardedLayers {
  explicit RecordedLayers(int n) : state(static_cast<std::size_t>(n)) {}
  enum State { away, coming, here };
  std::vector<State> state;
  std::vector<std::string> log;
  std::string wrong;
  int gradients = 0, forwards = 0, overlapped = 0;

  State& of(int layer) { return state.at(static_cast<std::size_t>(layer)); }
  void note(const std::string& what, int layer) { log.push_back(fmt::format("{} {}", what, layer)); }
  void expect(bool condition, const std::string& sentence) {
    if (!condition && wrong.empty()) wrong = sentence;
  }
  void start_gather(int layer) override {
    note("start", layer);
    expect(of(layer) == away, fmt::format("layer {} is gathered though it is here or under way", layer));
    of(layer) = coming;
    expect(std::ranges::count(state, away) >= static_cast<std::ptrdiff_t>(state.size()) - 2,
           "there is room for the values of two layers only");
  }
  void finish_gather(int layer) override {
    note("finish", layer);
    expect(of(layer) == coming, fmt::format("the gather of layer {} was not started", layer));
    of(layer) = here;
  }
  void compute(const char* what, int layer) {
    note(what, layer);
    expect(of(layer) == here, fmt::format("the {} of layer {} needs values that are not here", what, layer));
    overlapped += static_cast<int>(std::ranges::count(state, coming));
  }
  void forward(int layer) override {
    compute("forward", layer);
    expect(forwards++ == layer, "forward goes from layer 0 on");
  }
  void backward(int layer) override {
    compute("backward", layer);
    expect(gradients++ == 0, "gradients of two layers are there: reduce each layer's at once");
  }
  void reduce_gradients(int layer) override {
    note("reduce", layer);
    expect(gradients-- == 1, fmt::format("layer {} has no gradients to reduce", layer));
  }
  void release(int layer) override {
    note("release", layer);
    expect(of(layer) == here, fmt::format("layer {} is released, but is not here", layer));
    of(layer) = away;
  }
};

void check_zero3(int layers) {
  RecordedLayers model(layers);
  ch06::zero3_step(layers, model);
  EXPECT_EQ(model.wrong, "") << "in this order: " << fmt::format("{}", fmt::join(model.log, ", "));
  std::vector<std::string> passes, expected;
  for (const std::string& entry : model.log)
    if (entry.starts_with("forward") || entry.starts_with("backward")) passes.push_back(entry);
  for (int i = 0; i < layers; ++i) expected.push_back(fmt::format("forward {}", i));
  for (int i = layers; i-- > 0;) expected.push_back(fmt::format("backward {}", i));
  expect_equal(passes, expected, "forward from the first layer to the last, then backward");
  EXPECT_EQ(std::ranges::count(model.state, RecordedLayers::away), layers) << "values are left at the end";
  EXPECT_EQ(model.gradients, 0) << "gradients are left at the end";
  EXPECT_EQ(model.overlapped, 2 * (layers - 1))
      << "every gather but the first of each direction should be under "
         "way while the layer before is computed";
}

TEST(Exercise_6_8, ThreeLayers) {
  check_zero3(3);
}
TEST(Exercise_6_8, OneLayerAndMany) {
  check_zero3(1);
  check_zero3(17);
}

// ---- 6.9 ------------------------------------------------------------------------------------------

/// parameters, gradients, optimizer, activations
std::vector<double> list(const ch06::Memory& m) {
  return {m.parameters, m.gradients, m.optimizer, m.activations};
}

TEST(Exercise_6_9, OneDevice) {
  // By hand: 2 layers of 12 x 100 parameters; activations 34 x 7 x 3 x 10 bytes for each layer.
  expect_close(list(ch06::rank_memory(2, 10, 7, 3, 1, 1, 1, 0, 4, 0)),
               std::vector<double>{4800, 4800, 28800, 14280},
               "2, 2 and 12 bytes for each of 2 x 12 x 10^2 parameters; 34 s b h bytes per layer");
}

TEST(Exercise_6_9, ZeroStages) {
  // Rajbhandari et al. 2020, figure 1, with the 24 million parameters of 2 layers of h = 1000 and d = 4.
  const double P = 24e6;
  const std::vector<std::vector<double>> expected = {{2 * P, 2 * P, 12 * P, 0},
                                                     {2 * P, 2 * P, 3 * P, 0},
                                                     {2 * P, P / 2, 3 * P, 0},
                                                     {P / 2, P / 2, 3 * P, 0}};
  for (int zero = 0; zero <= 3; ++zero) {
    std::vector<double> got = list(ch06::rank_memory(2, 1000, 7, 1, 1, 1, 4, zero, 2, 0));
    got[3] = 0;
    expect_close(got, expected[static_cast<std::size_t>(zero)],
                 "ZeRO-1 divides the optimizer by d, ZeRO-2 the gradients too, ZeRO-3 also the parameters");
  }
}

TEST(Exercise_6_9, DataParallelismLeavesActivationsAlone) {
  const ch06::Memory one = ch06::rank_memory(2, 10, 7, 3, 1, 1, 1, 3, 4, 0);
  const ch06::Memory many = ch06::rank_memory(2, 10, 7, 3, 1, 1, 8, 3, 4, 0);
  expect_close(many.activations, one.activations, "every replica has a micro-batch of its own");
}

TEST(Exercise_6_9, PipelineAndTensor) {
  // 8 layers over 4 stages and 2 tensor-parallel ranks: each rank has half of 2 layers.
  const double layer = 34.0 * 7 * 3 * 10 / 2;
  for (int stage = 0; stage < 4; ++stage)
    expect_close(list(ch06::rank_memory(8, 10, 7, 3, 4, 2, 1, 0, 16, stage)),
                 std::vector<double>{2400, 2400, 14400, (4 - stage) * 2 * layer},
                 "stage i of p holds p - i micro-batches of L / p layers");
  expect_close(ch06::rank_memory(8, 10, 7, 3, 4, 2, 1, 0, 2, 0).activations, 2 * 2 * layer,
               "with two micro-batches no stage holds more than two");
}

TEST(Exercise_6_9, Gpt175B) {
  // 96 layers of 12,288 over 8 stages and 8 ranks: 2.717 billion parameters each (more than 32 bits count),
  // 16 bytes each.
  const ch06::Memory m = ch06::rank_memory(96, 12288, 2048, 1, 8, 8, 1, 0, 64, 0);
  expect_close(m.parameters + m.gradients + m.optimizer, 16 * 2717908992.0);
  expect_close(m.activations, 96 * 34.0 * 2048 * 12288 / 8,
               "the first stage holds L layers' worth, as if there were no pipeline");
}

}  // namespace
}  // namespace llm::exercises
