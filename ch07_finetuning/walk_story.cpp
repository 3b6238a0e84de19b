// The walk: the story teller of chapter 5 learns to classify, to answer, to prefer, and to be right.
#include <fmt/format.h>

#include "ch07_finetuning/finetuning.h"
#include "common/cli/format.h"
#include "common/core/error.h"
#include "common/text/story_labels.h"

namespace llm::ch07 {

namespace {

/// A command with its default settings, for a model of the walk.
template <typename Command>
Command on_stories(const WalkCommand& walk, const fs::path& model, const char* out) {
  Command command;
  command.tune.model = model;
  command.tune.out = walk.work / "ch07_finetuning" / out;
  command.tune.placement = walk.placement;
  command.tune.seed = walk.seed;
  command.tune.metrics = walk.metrics;
  return command;
}

/// Three questions about a story that the model was not trained on.
void converse(const OpenModel& open, std::uint64_t seed) {
  for (std::uint64_t i = 0; i < 3; ++i) {
    const Question q = make_question(seed + 2, i);
    const Asked asked{styled_prompt("chat", q.question, q.story), q.answer};
    const ExactMatch answer = ask_all(open, {asked});
    if (i == 0 || make_question(seed + 2, i - 1).story != q.story) fmt::print("\n  {}\n", q.story);
    fmt::print("  User: {}\n  Assistant: {}   ({})\n", q.question, answer.given.front(),
               answer.exact ? "right" : "the answer is: " + q.answer);
  }
}

}  // namespace

void walk(const WalkCommand& command) {
  const fs::path base = command.work / "ch05_pretraining";
  check(fs::exists(base / "model.safetensors"),
        "{} has no model yet; chapter 5 makes it: ./book run ch05, or build/cpu/bin/ch05_pretraining",
        base.string());

  fmt::print("── Does a story end well? A new head on the last token\n\n");
  classify(on_stories<ClassifyCommand>(command, base, "classifier"));

  fmt::print("\n── Questions and answers\n\n");
  instruct(on_stories<InstructCommand>(command, base, "instruct"));

  fmt::print("\n── Preferences\n\n");
  dpo(on_stories<DpoCommand>(command, base, "dpo"));

  fmt::print("\n── Rewards\n\n");
  const fs::path answering = command.work / "ch07_finetuning" / "instruct";
  grpo(on_stories<GrpoCommand>(command, answering, "grpo"));

  fmt::print("\nA conversation with the model:\n");
  converse(open_model(command.work / "ch07_finetuning" / "grpo", command.placement), command.seed);
}

}  // namespace llm::ch07
