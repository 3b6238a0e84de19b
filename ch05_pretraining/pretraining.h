// What the program's commands are asked to do, and the functions that do it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/model/config.h"
#include "common/training/model_choice.h"
#include "common/training/trainer.h"
#include "common/training/training_data.h"

namespace llm::ch05 {

namespace fs = std::filesystem;

struct TrainCommand : ModelChoice {
  fs::path data, out;
  fs::path init_from;            // start from this model's weights; empty: from random ones
  std::string samples = "auto";  // windows, documents, or auto: documents where all fit in the context
  TrainerOptions trainer;
  Placement placement;
  std::int64_t eval_every = 0;     // steps; 0: ten times in the run
  std::int64_t eval_batches = 16;  // per evaluation while training; the last is over everything
  std::int64_t save_every = 0;     // steps; 0: ten times in the run
  std::int64_t sample_every = 0;   // steps; 0: five times in the run
  std::int64_t log_every = 0;      // steps between lines in metrics.jsonl; 0: at most 2,000 lines
  bool resume = false;
  bool final_eval = true;  // over all of the validation text, at the end
  fs::path metrics;        // a second copy of metrics.jsonl
};

/// Trains, evaluates, and writes the model folder `out`.
void train(const TrainCommand& command);

struct EvalCommand {
  fs::path model, data;
  std::int64_t batch = 32;
  std::int64_t samples = 200;  // stories to write and judge, if the data are stories
  float temperature = 0.8F;
  std::uint64_t seed = 42;
  Placement placement;
  fs::path metrics;
};

/// Loss over the whole validation shard; on stories also the distance to the floor and the share of valid
/// samples.
void evaluate(const EvalCommand& command);

struct BenchCommand {
  std::string model_name = "gpt2-124m";
  std::int64_t layers = 0, heads = 0, channels = 0, vocabulary = 0;  // 0: the model's
  std::int64_t batch = 4, tokens = 64, steps = 10;
  std::uint64_t seed = 42;
  Placement placement;
  fs::path metrics;
};

/// Times the training step on random tokens.
void bench(const BenchCommand& command);

struct WalkCommand {
  fs::path work;
  std::uint64_t seed = 42;
  Placement placement;
  fs::path metrics;
};

/// The chapter's walk: the story model, from data to a story of its own.
void walk(const WalkCommand& command);

// ---- parts that several commands use --------------------------------------------------------------

/// Validation loss in the way that fits the data. For stories `floor` (nats per token) is known.
struct Validation {
  SampleKind kind = SampleKind::windows;
  double nats_per_token = 0;
  std::int64_t tokens = 0;
  std::optional<double> floor;
};

/// The validation text of a folder, cut up once for repeated evaluations.
class Validator {
 public:
  /// `context` of the model. Documents are evaluated one by one where all of them fit and `kind` says so.
  Validator(const TrainingData& folder, SampleKind kind, std::int64_t context, std::int64_t batch);
  /// Over everything, or if max_batches > 0 over that many batches spread over the text.
  Validation evaluate(GptStage& model, std::int64_t max_batches = 0) const;
  bool stories() const { return !floor_.empty(); }
  SampleKind kind() const { return kind_; }

  const std::vector<TokenRange>& documents() const { return documents_; }
  const std::vector<std::string>& texts() const { return texts_; }

 private:
  const TrainingData& folder_;
  SampleKind kind_;
  std::int64_t context_, batch_;
  std::vector<TokenRange> documents_;
  std::vector<std::string> texts_;
  std::vector<double> floor_;  // nats of each document, if all are stories
};

/// Prints loss, perplexity and bits per byte; for stories the distance to the floor. Returns what was
/// printed.
Validation report_validation(GptStage& model, const TrainingData& folder, const Validator& validator,
                             const fs::path& metrics);

struct Samples {
  std::int64_t count = 0, valid = 0;
  double seconds = 0;
  std::vector<std::string> texts;     // all of them
  std::vector<std::string> verdicts;  // empty where valid
};
/// Writes `count` stories from the end-of-text token on, judges each, and prints the share of valid ones with
/// examples of what broke.
Samples report_samples(const GptStage& model, const Tokenizer& tokenizer, std::int64_t count,
                       float temperature, std::uint64_t seed, const fs::path& metrics);

/// Prints a text, wrapped and indented.
void print_story(const std::string& text);

/// Draws loss.svg from metrics.jsonl.
void draw_loss_curve(const fs::path& folder);

}  // namespace llm::ch05
