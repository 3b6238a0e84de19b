// Checkpoints of parallel runs: saved under one layout, resumed under another; damage; crashes.
#include <fstream>

#include "common/core/file.h"
#include "common/model/huggingface.h"
#include "common/parallel/sharded_checkpoint.h"
#include "tests/ch06_parallel_helpers.h"

namespace llm {
namespace {

using namespace parallel_test;
namespace fs = std::filesystem;

class ParallelCheckpoint : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("llm_parallel_" + std::to_string(getpid()));
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// All of a checkpoint's state as one rank reads it: name -> value and moments, one after the other.
  std::map<std::string, std::vector<float>> everything(const fs::path& folder, const TestRun& r,
                                                       std::int64_t* step = nullptr) const {
    std::map<std::string, std::vector<float>> all;
    TestRun one = r;
    const ParallelOptions kept = r.parallel;
    one.parallel = {};
    one.parallel.optimizer = kept.optimizer;
    const auto tokens = tiny_tokens();
    run_ranks(1, {}, [&](Communicator& world) {
      ParallelTrainer trainer(world, one.config, {}, tokens, 0, one.trainer, one.parallel);
      trainer.resume(folder);
      if (step) *step = trainer.steps_done();
      for (const auto& piece : trainer.stages()[0]->state())
        for (const Tensor& t : {piece.value, piece.first_moment, piece.second_moment}) {
          auto& values = all[piece.parameter->name];
          values.insert(values.end(), t.span().begin(), t.span().end());
        }
    });
    return all;
  }

  fs::path folder_;
};

ParallelOptions with(ParallelOptions o, PipelineKind kind, int chunks) {
  o.schedule = kind;
  o.chunks = chunks;
  return o;
}

TEST_F(ParallelCheckpoint, EveryLayoutReadsEveryOther) {
  TestRun r;
  r.trainer = tiny_run(4, 8);
  const std::vector<ParallelOptions> layouts = {layout(1, 1, 1),
                                                layout(1, 4, 1),
                                                layout(1, 3, 1, 1),
                                                layout(1, 2, 1, 2),
                                                layout(1, 4, 1, 3),
                                                layout(1, 1, 4),
                                                layout(1, 2, 2, 3),
                                                layout(4, 1, 1),
                                                layout(2, 2, 2, 1),
                                                layout(2, 1, 2),
                                                with(layout(2, 2, 1, 1), PipelineKind::interleaved, 2)};
  const auto tokens = tiny_tokens();
  for (std::size_t i = 0; i < layouts.size(); ++i) {
    TestRun a = r;
    a.parallel = layouts[i];
    if (a.parallel.layout.dp == 3) continue;
    const fs::path first = folder_ / "a", second = folder_ / "b";
    std::vector<float> reference;
    run_ranks(a.parallel.layout.ranks(), {}, [&](Communicator& world) {
      ParallelTrainer trainer(world, a.config, {}, tokens, 0, a.trainer, a.parallel);
      trainer.initialize(3);
      for (int s = 0; s < 3; ++s) trainer.step();
      trainer.save(first, {{"data", "x"}});
    });
    const auto saved = everything(first, a);
    for (const std::size_t other : {(i + 1) % layouts.size(), (i + 4) % layouts.size()}) {
      TestRun b = r;
      b.parallel = layouts[other];
      if (b.parallel.layout.dp == 3) continue;
      run_ranks(b.parallel.layout.ranks(), {}, [&](Communicator& world) {
        ParallelTrainer trainer(world, b.config, {}, tokens, 0, b.trainer, b.parallel);
        EXPECT_THROW(trainer.resume(first, {{"data", "y"}}), Error);
        trainer.resume(first, {{"data", "x"}});
        EXPECT_EQ(trainer.steps_done(), 3);
        trainer.save(second);
      });
      std::int64_t step = 0;
      EXPECT_EQ(everything(second, b, &step), saved)
          << to_string(a.parallel.layout) << ", zero " << a.parallel.zero << " to "
          << to_string(b.parallel.layout) << ", zero " << b.parallel.zero;
      EXPECT_EQ(step, 3);
      fs::remove_all(second);
    }
    fs::remove_all(first);
  }
}

TEST_F(ParallelCheckpoint, ResumesToTheSameBits) {
  for (const ParallelOptions& o : {layout(2, 2, 2, 1), layout(1, 4, 1, 3), layout(1, 2, 1, 2)}) {
    TestRun r;
    r.trainer = tiny_run(4, 8);
    r.steps = 8;
    r.parallel = o;
    const Outcome straight = run(r);
    const auto tokens = tiny_tokens();
    const auto part = [&](std::int64_t until, bool resume, Outcome* outcome) {
      run_ranks(o.layout.ranks(), {}, [&](Communicator& world) {
        ParallelTrainer trainer(world, r.config, {}, tokens, 0, r.trainer, o);
        if (resume)
          trainer.resume(folder_);
        else
          trainer.initialize(3);
        while (trainer.steps_done() < until) trainer.step();
        trainer.save(folder_);
        const auto model = trainer.gather_model();
        if (model && outcome) outcome->values = model->parameters().values().clone();
      });
    };
    part(3, false, nullptr);
    Outcome resumed;
    part(8, true, &resumed);
    EXPECT_EQ(std::memcmp(straight.values.raw(), resumed.values.raw(), straight.values.bytes()), 0)
        << to_string(o.layout);
    fs::remove_all(folder_);
  }
}

TEST_F(ParallelCheckpoint, ExportsAHuggingFaceFolderFromAnyLayout) {
  std::string first;
  for (const ParallelOptions& o : {layout(1, 1, 1), layout(2, 1, 1), layout(4, 1, 1)}) {
    TestRun r;
    r.steps = 2;
    r.parallel = o;
    const Outcome outcome = run(r);
    save_huggingface(*outcome.model, folder_ / "model");
    const std::string file = read_file(folder_ / "model" / "model.safetensors");
    if (first.empty()) first = file;
    EXPECT_EQ(file, first) << to_string(o.layout);
  }
  TestRun r;
  r.steps = 2;
  r.parallel = layout(2, 2, 2, 1);
  const Outcome outcome = run(r);
  save_huggingface(*outcome.model, folder_ / "model");
  const GptStage back = load_huggingface(folder_ / "model");
  EXPECT_EQ(std::memcmp(back.parameters().values().raw(), outcome.values.raw(), outcome.values.bytes()), 0);
}

TEST_F(ParallelCheckpoint, DamageIsSaidInOneSentenceAndChangesNothing) {
  TestRun r;
  r.trainer = tiny_run(4, 8);
  r.parallel = layout(1, 2, 1, 1);
  const auto tokens = tiny_tokens();
  run_ranks(2, {}, [&](Communicator& world) {
    ParallelTrainer trainer(world, r.config, {}, tokens, 0, r.trainer, r.parallel);
    trainer.initialize(3);
    trainer.step();
    trainer.save(folder_);
  });
  const fs::path shard = folder_ / "step-00000001" / "shard-00001-of-00002.ckpt";
  ASSERT_TRUE(fs::exists(shard));
  const std::string good = read_file(shard), manifest = read_file(folder_ / "manifest.json");
  const auto refuses = [&](const std::string& what) {
    run_ranks(1, {}, [&](Communicator& world) {
      ParallelTrainer trainer(world, r.config, {}, tokens, 0, r.trainer, {});
      trainer.initialize(5);
      const Tensor before = trainer.stages()[0]->stage().parameters().values().clone();
      EXPECT_THROW(trainer.resume(folder_), Error) << what;
      const Tensor& after = trainer.stages()[0]->stage().parameters().values();
      EXPECT_EQ(std::memcmp(before.raw(), after.raw(), before.bytes()), 0) << what;
      EXPECT_EQ(trainer.steps_done(), 0) << what;
    });
  };
  const auto write = [](const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
  };
  write(shard, good.substr(0, good.size() - 100));
  refuses("cut off");
  std::string flipped = good;
  flipped[good.size() - 50] = static_cast<char>(flipped[good.size() - 50] ^ 1);
  write(shard, flipped);
  refuses("a flipped bit in a tensor");
  flipped = good;
  flipped[40] = static_cast<char>(flipped[40] ^ 1);
  write(shard, flipped);
  refuses("a flipped bit in the header");
  fs::remove(shard);
  refuses("a missing shard");
  write(shard, good);
  write(folder_ / "manifest.json", manifest.substr(0, manifest.size() / 2));
  refuses("half a manifest");
  write(folder_ / "manifest.json", manifest);
  EXPECT_NO_THROW(everything(folder_, r));
}

// A rank that fails before the manifest is replaced leaves the checkpoint before.
TEST_F(ParallelCheckpoint, AFailedSaveLeavesTheOneBefore) {
  TestRun r;
  r.trainer = tiny_run(4, 8);
  r.parallel = layout(1, 2, 1, 1);
  const auto tokens = tiny_tokens();
  EXPECT_THROW(
      run_ranks(2, {},
                [&](Communicator& world) {
                  ParallelTrainer trainer(world, r.config, {}, tokens, 0, r.trainer, r.parallel);
                  trainer.initialize(3);
                  trainer.step();
                  trainer.save(folder_);
                  trainer.step();
                  // A folder stands where rank 1 wants to write its shard.
                  if (world.rank() == 1)
                    fs::create_directories(folder_ / "step-00000002" / "shard-00001-of-00002.ckpt" / "x");
                  trainer.save(folder_);
                }),
      Error);
  std::int64_t step = 0;
  everything(folder_, r, &step);
  EXPECT_EQ(step, 1);
}

}  // namespace
}  // namespace llm
