// `grpo`: from answers that can be checked. The model writes several to each question, and learns from which
// of them were right.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ch07_finetuning/finetuning.h"
#include "common/cli/format.h"
#include "common/cli/progress.h"
#include "common/core/error.h"
#include "common/finetuning/policy.h"

namespace llm::ch07 {

namespace {

constexpr std::int64_t kLongestAnswer = 24;

/// The answers to the questions of one step: `group` to each, one after the other.
struct Rollouts {
  std::vector<Example> examples;
  std::vector<double> rewards;
};

Rollouts write_answers(const OpenModel& open, const std::vector<Asked>& questions, std::int64_t group,
                       std::uint64_t seed) {
  const std::int64_t context = open.model.config().context;
  std::vector<std::vector<std::int32_t>> prompts;
  for (const Asked& q : questions)
    for (std::int64_t i = 0; i < group; ++i)
      prompts.push_back(make_prompt(*open.tokenizer, q.prompt, context - kLongestAnswer));
  const AnswerOptions options{.sampling = {.temperature = 1, .seed = seed}, .max_new_tokens = kLongestAnswer};
  const auto answers = generate_answers(open.model, prompts, open.end_of_text, options);
  Rollouts rollouts;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    Example e{prompts[i], static_cast<std::int64_t>(prompts[i].size())};
    e.tokens.insert(e.tokens.end(), answers[i].tokens.begin(), answers[i].tokens.end());
    if (answers[i].stopped) e.tokens.push_back(open.end_of_text);
    const std::string& right = questions[i / static_cast<std::size_t>(group)].answer;
    const bool exact = answers[i].stopped && trimmed(open.tokenizer->decode(answers[i].tokens)) == right;
    rollouts.examples.push_back(std::move(e));
    rollouts.rewards.push_back(exact ? 1 : 0);
  }
  return rollouts;
}

}  // namespace

void grpo(const GrpoCommand& command) {
  const TuneOptions& tune = command.tune;
  if (command.group < 2) fail_usage("a group needs at least two answers, got {}", command.group);
  OpenModel open = open_model(tune.model, tune.placement);
  OpenModel reference = open_model(tune.model, tune.placement);
  // Questions that instruct's training, with the same seed, has not seen.
  const std::uint64_t seed = tune.seed + 1;
  const std::vector<Asked> held_out = story_questions(seed, 0, command.held_out, "chat");

  check(!tune.lora, "GRPO writes with the model that it trains; adapters are for the other commands");
  Tuner tuner({&open.model.parameters()}, tune.tuner());
  fmt::print("Each step: {} new questions, {} answers to each; kl {:g}, clip {:g}\n", tune.batch,
             command.group, command.grpo.kl, command.grpo.clip);
  MetricsWriter metrics = tune.out.empty() ? MetricsWriter() : MetricsWriter(tune.out / "metrics.jsonl");
  std::vector<double> steps, rewards, watched_steps, watched;
  Progress progress("learning from rewards", tune.steps, "steps");
  const auto watch = [&] {
    const double drawn = ask_all(open, held_out, 1, 7, kLongestAnswer).share();
    watched_steps.push_back(static_cast<double>(tuner.steps_done()));
    watched.push_back(drawn);
    metrics.write({{"step", tuner.steps_done()}, {"held_out_reward", drawn}});
    progress.say(fmt::format("step {:>5}  held out: {:.1f}% of answers right, drawn at temperature 1",
                             tuner.steps_done(), 100 * drawn));
  };
  const double greedy_before = ask_all(open, held_out, 0, 0, kLongestAnswer).share();
  watch();
  PassBuffers buffers, reference_buffers;
  const std::int64_t every = std::max<std::int64_t>(1, tune.steps / 4);
  std::int64_t asked = 1000;  // behind the held-out ones
  for (std::int64_t step = 0; tuner.steps_done() < tuner.steps_total(); ++step) {
    const std::vector<Asked> questions =
        story_questions(seed, std::max(asked, command.held_out), tune.batch, "chat");
    asked = std::max(asked, command.held_out) + tune.batch;
    const Rollouts all = write_answers(open, questions, command.group,
                                       tune.seed * 1'000'003 + static_cast<std::uint64_t>(step));
    double mean = 0;
    Rollouts kept;  // groups in which all answers are as good have no advantage, and no gradient but the kl's
    std::vector<double> advantages;
    for (std::size_t first = 0; first < all.rewards.size();
         first += static_cast<std::size_t>(command.group)) {
      const auto group = std::span(all.rewards).subspan(first, static_cast<std::size_t>(command.group));
      for (const double r : group) mean += r / static_cast<double>(all.rewards.size());
      if (std::ranges::all_of(group, [&](double r) { return r == group.front(); })) continue;
      for (std::size_t i = 0; i < group.size(); ++i) kept.examples.push_back(all.examples[first + i]);
      for (const double a : group_advantages(group)) advantages.push_back(a);
    }
    steps.push_back(static_cast<double>(tuner.steps_done() + 1));
    rewards.push_back(mean);
    double kl = 0, loss = 0;
    if (kept.examples.empty()) {
      tuner.step([] { return 0.0; });
    } else {
      const Batch batch = collate(kept.examples, open.end_of_text);
      const auto theirs = command.grpo.kl > 0
                              ? token_log_probabilities(reference.model, reference_buffers, batch)
                              : std::vector<double>();
      const auto old =
          command.updates > 1 ? token_log_probabilities(open.model, buffers, batch) : std::vector<double>();
      for (std::int64_t u = 0; u < command.updates && tuner.steps_done() < tuner.steps_total(); ++u) {
        GrpoLoss result;
        tuner.step([&] {
          result = grpo_gradients(open.model, buffers, batch, advantages, old, theirs, command.grpo);
          return result.loss;
        });
        kl = result.kl;
        loss = result.loss;
      }
    }
    metrics.write({{"step", tuner.steps_done()}, {"reward", mean}, {"loss", loss}, {"kl", kl}});
    progress.update(tuner.steps_done(), fmt::format("reward {:.3f}, kl {:.4f}", mean, kl));
    if (tuner.steps_done() % every == 0 || tuner.steps_done() == tune.steps) watch();
  }
  progress.finish();
  const double greedy = ask_all(open, held_out, 0, 0, kLongestAnswer).share();
  fmt::print(
      "\n{} held-out questions: answers drawn at temperature 1 were right in {:.1f}% before, {:.1f}% now; "
      "the "
      "most probable ones in {:.1f}% before, {:.1f}% now\n",
      held_out.size(), 100 * watched.front(), 100 * watched.back(), 100 * greedy_before, 100 * greedy);
  if (!tune.metrics.empty())
    MetricsWriter(tune.metrics, true)
        .write({{"grpo_before", watched.front()}, {"grpo", watched.back()}, {"greedy", greedy}});
  if (!tune.out.empty()) {
    save_model(open, tune.out, "chat");
    draw_curve(tune.out / "reward.svg", "Learning from rewards", "share of right answers", steps, rewards,
               watched_steps, watched);
    fmt::print("Wrote {} (the model, its tokenizer, reward.svg)\n", tune.out.string());
  }
}

}  // namespace llm::ch07
