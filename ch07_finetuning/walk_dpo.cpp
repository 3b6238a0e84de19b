// `dpo`: from pairs of a better and a worse answer.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "ch07_finetuning/finetuning.h"
#include "common/cli/format.h"
#include "common/cli/progress.h"
#include "common/core/error.h"
#include "common/finetuning/chat_format.h"
#include "common/finetuning/datasets.h"
#include "common/finetuning/policy.h"
#include "common/text/story.h"
#include "common/text/story_labels.h"

namespace llm::ch07 {

namespace {

struct Pair {
  Example chosen, rejected;
};

/// A story's end is what stands behind its beginning, as it is: no template.
Pair story_pair(const OpenModel& open, std::uint64_t seed, std::int64_t index) {
  const Preference p = make_preference(seed, static_cast<std::uint64_t>(index));
  const std::int64_t longest = open.model.config().context + 1;
  // `chosen` and `rejected` begin with the space that make_example puts there.
  return {make_example(*open.tokenizer, p.prompt, p.chosen.substr(1), longest),
          make_example(*open.tokenizer, p.prompt, p.rejected.substr(1), longest)};
}

std::vector<Pair> pairs(const OpenModel& open, const DpoCommand& command, bool held_out) {
  std::vector<Pair> all;
  if (command.data.empty()) {
    const std::int64_t first = held_out ? command.pairs : 0;
    const std::int64_t count = held_out ? command.held_out : command.pairs;
    for (std::int64_t i = 0; i < count; ++i) all.push_back(story_pair(open, command.tune.seed, first + i));
    return all;
  }
  const std::vector<InstructionEntry> entries = read_instructions(command.data);
  const std::int64_t longest = open.model.config().context + 1;
  const std::size_t train = entries.size() * 85 / 100;
  for (std::size_t i = held_out ? train : 0; i < (held_out ? entries.size() : train); ++i) {
    const InstructionEntry& e = entries[i];
    check(!e.chosen.empty() && !e.rejected.empty(), "{}: entry {} has no \"chosen\" and \"rejected\"",
          command.data.string(), i);
    const std::string prompt = alpaca_prompt(e.instruction, e.input);
    const auto tokens = [&](const std::string& text) {
      return static_cast<std::int64_t>(open.tokenizer->encode(text).size());
    };
    if (std::max(tokens(e.chosen), tokens(e.rejected)) + 3 > longest) continue;
    all.push_back({make_example(*open.tokenizer, prompt, e.chosen, longest),
                   make_example(*open.tokenizer, prompt, e.rejected, longest)});
  }
  check(!all.empty(), "{} has no pairs that fit in the model's context", command.data.string());
  return all;
}

/// Chosen answers first, rejected ones behind them.
Batch batch_of(const std::vector<Pair>& all, std::span<const std::size_t> chosen, std::int32_t padding) {
  std::vector<Example> rows;
  for (const std::size_t i : chosen) rows.push_back(all[i].chosen);
  for (const std::size_t i : chosen) rows.push_back(all[i].rejected);
  return collate(rows, padding);
}

/// log p of all pairs, chosen and rejected: a row of two for each.
struct PairScores {
  std::vector<double> chosen, rejected;
};
PairScores score(ParallelTuner& tuner, const std::vector<Pair>& all, std::int32_t padding) {
  constexpr std::size_t kBatch = 16;
  std::vector<Batch> batches;
  for (std::size_t first = 0; first < all.size(); first += kBatch) {
    std::vector<std::size_t> some;
    for (std::size_t i = first; i < std::min(first + kBatch, all.size()); ++i) some.push_back(i);
    batches.push_back(batch_of(all, some, padding));
  }
  const std::vector<double> p = answer_log_probabilities(tuner, batches);
  PairScores scores;
  auto next = p.begin();
  for (const Batch& batch : batches) {
    const std::int64_t pairs_here = batch.inputs.dim(0) / 2;
    scores.chosen.insert(scores.chosen.end(), next, next + pairs_here);
    scores.rejected.insert(scores.rejected.end(), next + pairs_here, next + 2 * pairs_here);
    next += 2 * pairs_here;
  }
  return scores;
}

/// How many of the model's own endings of held-out beginnings make valid stories.
double valid_share(const OpenModel& open, const DpoCommand& command) {
  std::vector<std::vector<std::int32_t>> prompts;
  std::vector<std::string> beginnings;
  for (std::int64_t i = 0; i < command.held_out; ++i) {
    const Preference p = make_preference(command.tune.seed, static_cast<std::uint64_t>(command.pairs + i));
    beginnings.push_back(p.prompt);
    prompts.push_back(make_prompt(*open.tokenizer, p.prompt, open.model.config().context));
  }
  AnswerOptions options{.sampling = {.temperature = 1, .seed = command.tune.seed}, .max_new_tokens = 120};
  const auto answers = generate_answers(open.model, prompts, open.end_of_text, options);
  std::int64_t valid = 0;
  for (std::size_t i = 0; i < answers.size(); ++i)
    valid += judge_story(beginnings[i] + open.tokenizer->decode(answers[i].tokens)).valid ? 1 : 0;
  return static_cast<double>(valid) / static_cast<double>(answers.size());
}

}  // namespace

void dpo(const DpoCommand& command) {
  OpenModel open = open_model(command.tune.model, command.tune.placement);
  const GptConfig config = open.model.config();
  const TuneOptions tune = with_layout(command.tune, config);
  const std::vector<Pair> train = pairs(open, command, false), held_out = pairs(open, command, true);
  const bool stories = command.data.empty();
  const double valid_before = stories && leads() ? valid_share(open, command) : 0;

  std::vector<double> steps, margins, watched_steps, watched;
  DpoLoss now;
  train_on_ranks(open, tune, tune.parallel_tuner(), [&](ParallelTuner& tuner, bool leads) {
    // The reference is this model before training. It never changes, so its log-probabilities are made once.
    const PairScores reference = score(tuner, train, open.end_of_text),
                     held_out_reference = score(tuner, held_out, open.end_of_text);
    const std::int64_t trained = tuner.model().trained_count();
    MetricsWriter metrics;
    std::optional<Progress> progress;
    if (leads) {
      fmt::print("Pairs: {} to train, {} held out; training {} of {} parameters, beta {:g}\n",
                 with_commas(static_cast<std::int64_t>(train.size())), held_out.size(), with_commas(trained),
                 with_commas(parameter_count(config)), command.beta);
      if (!tune.out.empty()) metrics = MetricsWriter(tune.out / "metrics.jsonl");
      progress.emplace("learning preferences", tune.steps, "steps");
    }
    const auto watch = [&] {
      const PairScores p = score(tuner, held_out, open.end_of_text);
      if (!leads) return;
      now = dpo_loss(p.chosen, p.rejected, held_out_reference.chosen, held_out_reference.rejected,
                     command.beta);
      watched_steps.push_back(static_cast<double>(tuner.steps_done()));
      watched.push_back(now.margin);
      metrics.write({{"step", tuner.steps_done()},
                     {"held_out_loss", now.loss},
                     {"held_out_margin", now.margin},
                     {"held_out_accuracy", now.accuracy}});
      progress->say(
          fmt::format("step {:>5}  held out: loss {:.4f}, margin {:.3f}, {:.1f}% prefer the chosen answer",
                      tuner.steps_done(), now.loss, now.margin, 100 * now.accuracy));
    };
    watch();
    const std::int64_t every = std::max<std::int64_t>(1, tune.steps / 4);
    while (tuner.steps_done() < tuner.steps_total()) {
      const auto chosen = examples_of_step(train.size(), tune.batch, tune.seed, tuner.steps_done());
      std::vector<Batch> batches;
      std::vector<std::vector<double>> theirs;
      for (std::int64_t m = 0; m < tune.accumulate; ++m) {
        const auto some = micro_batch(chosen, m, tune.accumulate);
        batches.push_back(batch_of(train, some, open.end_of_text));
        std::vector<double>& reference_of = theirs.emplace_back();
        for (const std::size_t i : some) reference_of.push_back(reference.chosen[i]);
        for (const std::size_t i : some) reference_of.push_back(reference.rejected[i]);
      }
      const auto n = static_cast<double>(tune.batch);
      std::vector<double> sums;  // loss, margin, accuracy
      const TunerReport r = tuner.step(pair_passes(batches, theirs, n, command.beta, {}), n, &sums);
      if (leads) {
        steps.push_back(static_cast<double>(r.step));
        margins.push_back(sums[1] / n);
        metrics.write(
            {{"step", r.step}, {"loss", r.loss}, {"margin", sums[1] / n}, {"accuracy", sums[2] / n}});
        progress->update(r.step, fmt::format("loss {:.4f}", r.loss));
      }
      if (r.step % every == 0 || r.step == tune.steps) watch();
    }
    if (leads) progress->finish();
  });
  if (!leads()) return;
  MetricRecord record = {{"dpo_margin", now.margin}, {"dpo_accuracy", now.accuracy}};
  if (stories) {
    const double valid = valid_share(open, command);
    fmt::print(
        "\nThe model's own endings of {} held-out beginnings, at temperature 1: {:.1f}% made valid stories "
        "before, {:.1f}% do now\n",
        command.held_out, 100 * valid_before, 100 * valid);
    record.emplace_back("valid_before", valid_before);
    record.emplace_back("valid", valid);
  }
  if (!tune.metrics.empty()) MetricsWriter(tune.metrics, true).write(record);
  if (!tune.out.empty()) {
    save_model(open, tune.out, stories ? load_chat_format(tune.model).name : "alpaca");
    draw_curve(tune.out / "margin.svg", "Learning preferences", "margin of the implied rewards", steps,
               margins, watched_steps, watched);
    fmt::print("Wrote {} (the model, its tokenizer, margin.svg)\n", tune.out.string());
  }
}

}  // namespace llm::ch07
