// What the program's commands are asked to do, and the functions that do it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/cli/metrics.h"
#include "common/finetuning/classifier.h"
#include "common/finetuning/evaluation.h"
#include "common/finetuning/grpo.h"
#include "common/finetuning/lora.h"
#include "common/finetuning/parallel_tuner.h"
#include "common/finetuning/tuner.h"
#include "common/model/gpt.h"
#include "common/tokenizer/tokenizer.h"

namespace llm::ch07 {

namespace fs = std::filesystem;

/// What all commands that train have in common.
struct TuneOptions {
  fs::path model = {}, out = {};  // folders
  Placement placement = {};
  std::uint64_t seed = 42;
  fs::path metrics = {};
  std::int64_t steps = 0, batch = 16;
  double learning_rate = 5e-4;
  float weight_decay = 0.01F;
  double clip = 1;
  std::optional<LoraOptions> lora = {};  // instead of all parameters

  // Of the commands that run on chapter 6's layouts.
  int ranks = 0;  // 0: as many as mpirun started, or as the layout has
  ParallelOptions parallel = {};
  std::int64_t accumulate = 0;  // micro-batches of a step; 0: as few as the layout can share out
  bool nccl = false;
  double deadline = 0;  // seconds; 0: the default

  TunerOptions tuner() const;
  ParallelTunerOptions parallel_tuner() const;
};

struct ClassifyCommand {
  TuneOptions tune = {.steps = 60, .batch = 16, .learning_rate = 1e-3};
  fs::path data = {};                                 // label TAB text lines; empty: the story world's
  std::vector<std::string> labels = {"ham", "spam"};  // of `data`
  std::int64_t stories = 3000;                        // of the story world, before the split
  std::string part = "everything";
  std::int64_t longest = 0;  // tokens of a text; 0: the model's context
};
/// The texts of `data` as JSON lines, to pretrain on, without those that `classify` with the same seed tests
/// on.
void write_texts(const ClassifyCommand& command, const fs::path& out);
/// Trains a classifier; accuracy, precision, recall and confusion on the test part. Returns the accuracy.
double classify(const ClassifyCommand& command);

struct InstructCommand {
  TuneOptions tune = {.steps = 1100, .batch = 8, .learning_rate = 2e-3};
  fs::path data = {};          // instruction-data.json; empty: the story world's questions
  std::string style = "chat";  // or alpaca
  std::int64_t questions = 16'000, held_out = 300;
  bool mask_prompt = true, packing = false;
};
/// Teaches a model to answer. Returns the share of exact answers on held-out questions.
double instruct(const InstructCommand& command);

struct DpoCommand {
  TuneOptions tune = {.steps = 60, .batch = 8, .learning_rate = 1e-4};
  fs::path data = {};  // entries with "chosen" and "rejected"; empty: the story world's preferences
  std::int64_t pairs = 1600, held_out = 200;
  double beta = 0.1;
};
void dpo(const DpoCommand& command);

struct GrpoCommand {
  TuneOptions tune = {.steps = 120, .batch = 16, .learning_rate = 2e-4};
  std::int64_t group = 8, held_out = 500;
  std::int64_t updates = 1;  // per group of answers
  GrpoOptions grpo = {.kl = 0.01};
};
/// On the story world's questions, whose answers can be checked.
void grpo(const GrpoCommand& command);

struct EvaluateCommand {
  fs::path model, choices, texts, metrics;
  std::int64_t questions = 0;  // of the story world
  std::uint64_t seed = 42;
  Placement placement;
};
void evaluate(const EvaluateCommand& command);

struct MergeCommand {
  fs::path model, adapter, out;
};
/// A model folder with a PEFT adapter's products added to its weights.
void merge(const MergeCommand& command);

struct WalkCommand {
  fs::path work;
  std::uint64_t seed = 42;
  Placement placement;
  fs::path metrics;
};
void walk(const WalkCommand& command);

// ---- parts that several commands use --------------------------------------------------------------

struct OpenModel {
  GptStage model;
  std::unique_ptr<Tokenizer> tokenizer;
  std::int32_t end_of_text = 0;
};
/// A model folder as chapter 5 makes it. Error, one sentence, if model and tokenizer do not go together.
OpenModel open_model(const fs::path& folder, const Placement& placement);
/// Weights, tokenizer, and finetuning.json, which names the template that the model was taught.
void save_model(const OpenModel& open, const fs::path& out, const std::string& style);

// Training on a layout: what comes before and after is done by one process, the one that leads.

/// Whether this process prints, asks and saves: rank 0 under mpirun, or the only one.
bool leads();
/// The options with all numbers of the layout filled in. UsageError if they and the model do not go together.
TuneOptions with_layout(TuneOptions options, const GptConfig& config);
/// Runs `body` on the ranks of the layout, each with a tuner that starts from the model folder, and gives
/// `open`, which lends its memory meanwhile, what they made: adapters merged, and saved in `out`/adapter.
/// Returns the classifier's head, if there is one. Only where this process leads.
std::unique_ptr<ClassifierHead> train_on_ranks(OpenModel& open, const TuneOptions& options,
                                               const ParallelTunerOptions& tuner,
                                               const std::function<void(ParallelTuner&, bool leads)>& body);
/// Part i of n of the examples of a step.
std::vector<std::size_t> micro_batch(const std::vector<std::size_t>& step, std::int64_t i, std::int64_t n);

/// The story world's questions as prompts and answers. The seeds of training and of held-out questions
/// differ.
struct Asked {
  std::string prompt, answer;
};
std::vector<Asked> story_questions(std::uint64_t seed, std::int64_t first, std::int64_t count,
                                   const std::string& style);
/// The prompt of an instruction with an input, in one of the styles. UsageError for an unknown style.
std::string styled_prompt(const std::string& style, const std::string& instruction, const std::string& input);

struct ExactMatch {
  std::int64_t count = 0, exact = 0;
  std::vector<std::string> given;  // what the model answered
  double share() const { return static_cast<double>(exact) / static_cast<double>(count); }
};
/// Greedy answers (or drawn, at a temperature) compared with the right ones.
ExactMatch ask_all(const OpenModel& open, const std::vector<Asked>& asked, float temperature = 0,
                   std::uint64_t seed = 0, std::int64_t longest_answer = 32);

/// The curve of one measure over the steps, as a picture.
void draw_curve(const fs::path& path, const std::string& title, const std::string& measure,
                const std::vector<double>& steps, const std::vector<double>& training,
                const std::vector<double>& held_out_steps, const std::vector<double>& held_out);

}  // namespace llm::ch07
