// The walk: from stories, over their tokens, to a model that tells stories of its own.
#include <fmt/format.h>

#include <algorithm>

#include "ch05_pretraining/pretraining.h"
#include "common/cli/format.h"
#include "common/cli/progress.h"
#include "common/model/huggingface.h"
#include "common/text/documents_folder.h"
#include "common/tokenizer/token_folder.h"
#include "common/training/checkpoint.h"

namespace llm::ch05 {

namespace {

/// Chapters 1 and 2 leave their results here; whoever starts with chapter 5 gets the same ones made now.
void make_token_folder(const fs::path& work, std::uint64_t seed) {
  if (fs::exists(work / "ch02_tokenizer" / "train.bin")) return;
  const fs::path documents = work / "ch01_data";
  if (!is_documents_folder(documents)) {
    fmt::print("{} is missing: telling the stories of chapter 1\n", documents.string());
    StoryCorpusOptions options;
    options.seed = seed;
    write_story_corpus(documents, options);
  }
  fmt::print("{} is missing: training the tokenizer of chapter 2\n", (work / "ch02_tokenizer").string());
  const auto tokenizer = train_tokenizer({documents}, {});
  write_token_folder(documents, *tokenizer, work / "ch02_tokenizer");
}

/// A model that is large enough to keep track of who has what, and small enough to learn it in three minutes.
TrainCommand story_run(const WalkCommand& command) {
  TrainCommand t;
  t.data = command.work / "ch02_tokenizer";
  t.out = command.work / "ch05_pretraining";
  t.layers = 4;
  t.heads = 4;
  t.channels = 128;
  t.init_std = 0.05F;   // 0.02 is made for 768 channels
  t.context = 192;      // the longest story and, in chapter 7, a question about it
  t.trainer.batch = 8;  // many small steps learn more from the same stories than few large ones
  t.trainer.schedule = {.peak = 3e-3, .floor = 1e-4, .warmup = 200, .steps = 4000};
  t.trainer.adamw.beta2 = 0.98F;
  t.trainer.seed = command.seed;
  t.placement = command.placement;
  t.metrics = command.metrics;
  // A run that was stopped goes on; a finished one, or one with other settings, is made anew.
  const fs::path checkpoint = t.out / "checkpoint" / "training.ckpt";
  try {
    t.resume = fs::exists(checkpoint) && read_checkpoint_info(checkpoint).step < t.trainer.schedule.steps;
  } catch (const Error& error) {
    fmt::print("{}; starting anew\n", error.what());
  }
  return t;
}

}  // namespace

void walk(const WalkCommand& command) {
  make_token_folder(command.work, command.seed);
  const TrainCommand run = story_run(command);
  train(run);

  // What was written is what is judged.
  const GptStage model = load_huggingface(run.out).placed(command.placement);
  const auto tokenizer = load_tokenizer(run.out);
  const Samples samples = report_samples(model, *tokenizer, 200, 0.8F, command.seed, command.metrics);
  // The first that holds together; if none does, the first, and what is wrong with it.
  const auto valid = std::find(samples.verdicts.begin(), samples.verdicts.end(), "");
  const std::size_t shown =
      valid == samples.verdicts.end() ? 0 : static_cast<std::size_t>(valid - samples.verdicts.begin());
  fmt::print("\nA story of the model's own (number {} of the {}):\n\n", shown, samples.count);
  print_story(samples.texts[shown]);
  fmt::print("\nVerdict: {}\n", samples.verdicts[shown].empty() ? "a valid story" : samples.verdicts[shown]);
}

}  // namespace llm::ch05
