// How good is it? Answers compared, choices scored, text predicted, classes confused. Chapter 7 explains it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "common/finetuning/examples.h"
#include "common/generation/sampling.h"
#include "common/model/gpt.h"
#include "common/tokenizer/tokenizer.h"

namespace llm {

// ---- answers that are right or wrong ----------------------------------------------------------------

struct AnswerOptions {
  SamplingOptions sampling{.temperature = 0};  // greedy
  std::int64_t max_new_tokens = 32;
  std::int64_t batch = 64;
};

/// What the model writes behind each prompt, up to `stop` (which is not part of it). Prompts of equal length
/// run side by side; prompt i draws with sequence number i. Error if a prompt is empty or leaves no room.
struct Answer {
  std::vector<std::int32_t> tokens;
  bool stopped = false;
};
std::vector<Answer> generate_answers(const GptStage& model,
                                     std::span<const std::vector<std::int32_t>> prompts, std::int32_t stop,
                                     const AnswerOptions& options);

/// The answer as it is compared: without white space at both ends.
std::string trimmed(std::string_view text);

// ---- multiple choice ------------------------------------------------------------------------------

struct MultipleChoice {
  std::string context;
  std::vector<std::string> choices;
  std::size_t gold = 0;
};
/// JSON lines {"context": "...", "choices": ["...", ...], "gold": 0}. Error names the line.
std::vector<MultipleChoice> read_multiple_choice(const std::filesystem::path& path);

/// As lm-evaluation-harness defines them (Gao et al. 2021): a choice's score is the log-probability of its
/// tokens behind the context; `acc` counts the items whose gold choice has the largest, `acc_norm` those
/// whose gold choice has the largest score per character. Of equal scores the first counts.
struct MultipleChoiceResult {
  std::int64_t items = 0;
  double acc = 0, acc_norm = 0;
};
std::size_t best_choice(std::span<const double> scores);
std::vector<double> scores_per_character(std::span<const double> scores,
                                         std::span<const std::string> choices);
/// A space is put between context and choice, as the harness does, unless the context ends in white space.
/// The text begins with an end-of-text token, as in training.
MultipleChoiceResult evaluate_multiple_choice(GptStage& model, const Tokenizer& tokenizer,
                                              std::span<const MultipleChoice> items, std::int64_t batch = 16);

// ---- text -----------------------------------------------------------------------------------------

/// What the model pays for texts, each read from an end-of-text token on in windows of the model's context,
/// as the harness does ("rolling"): every token is predicted once, from as much before it as its window
/// holds.
struct TextLoss {
  double nats = 0;
  std::int64_t tokens = 0, bytes = 0;
  double perplexity() const;     // per token
  double bits_per_byte() const;  // does not depend on the tokenizer
};
TextLoss evaluate_texts(GptStage& model, const Tokenizer& tokenizer, std::span<const std::string> texts,
                        std::int64_t batch = 8);

// ---- classes --------------------------------------------------------------------------------------

struct ConfusionMatrix {
  std::vector<std::vector<std::int64_t>> counts;  // [truth][predicted]

  explicit ConfusionMatrix(std::size_t classes) : counts(classes, std::vector<std::int64_t>(classes)) {}
  void add(std::size_t truth, std::size_t predicted) { ++counts.at(truth).at(predicted); }
  std::int64_t total() const;
  double accuracy() const;
  /// Of what was called `c`, how much is. NaN if nothing was.
  double precision(std::size_t c) const;
  /// Of what is `c`, how much was called so. NaN if nothing is.
  double recall(std::size_t c) const;
  /// The harmonic mean of the two.
  double f1(std::size_t c) const;
};

}  // namespace llm
