// Fine-tuning on a grid. See parallel_tuner.h.
#include "common/finetuning/parallel_tuner.h"

#include "common/core/error.h"
#include "common/finetuning/policy.h"

namespace llm {

namespace {

const ParallelTunerOptions& validated(const ParallelTunerOptions& o) {
  validate(o.tuner.schedule);
  if (!(o.tuner.clip >= 0))
    fail_usage("the clipping norm must be 0 (none) or positive, got {}", o.tuner.clip);
  if (o.parallel.sequence_parallel)
    fail_usage("sequence parallelism shares out rows of one length, which examples do not have");
  return o;
}

std::function<bool(const Parameter&)> trained(const ParallelTunerOptions& o) {
  if (o.trains || !o.lora) return o.trains;
  return [](const Parameter&) { return false; };
}

}  // namespace

ParallelTuner::ParallelTuner(Communicator& world, const GptStage& start, const Placement& placement,
                             const ParallelTunerOptions& options)
    : options_(validated(options)),
      model_(world, start.config(), placement, options.parallel, options.tuner.adamw, options.micro_batches,
             trained(options)) {
  model_.initialize(start);
  if (!options.lora) return;
  for (const auto& s : model_.stages()) {
    adapters_.push_back(
        std::make_unique<LoraAdapters>(s->stage(), without_head(*options.lora), options.seed));
    s->stage().attach(adapters_.back().get());
    s->train_also(adapters_.back()->parameters());
  }
}

void ParallelTuner::add_head(std::int64_t classes) {
  classes_ = classes;
  ShardedStage* last = model_.last_stage();
  if (last == nullptr) return;
  head_ = std::make_unique<ClassifierHead>(last->stage(), classes, options_.seed,
                                           options_.lora ? &*options_.lora : nullptr);
  if (head_->parameters().trained_count() > 0) last->train_also(head_->parameters());
}

TunerReport ParallelTuner::step(const StepInput& passes, double divisor, std::vector<double>* sums) {
  TunerReport report;
  report.step = steps_done() + 1;
  report.learning_rate = learning_rate(options_.tuner.schedule, steps_done());
  const ModelStepReport done = model_.step({.passes = passes,
                                            .divisor = divisor,
                                            .learning_rate = report.learning_rate,
                                            .clip = options_.tuner.clip});
  report.loss = done.loss;
  report.gradient_norm = done.gradient_norm;
  if (sums) *sums = done.sums;
  return report;
}

ParallelTuner::Result ParallelTuner::gather() {
  Result result;
  result.model = model_.gather_model();
  const bool keeps = model_.grid().world.rank() == 0;
  // The other ranks only say what they have: of the model that it belongs to they need names and shapes.
  const GptStage plan(model_.config(), Placement{.buffers = {.values = false, .gradients = false}});
  if (options_.lora) {
    auto whole = std::make_unique<LoraAdapters>(plan, without_head(*options_.lora), options_.seed);
    std::vector<const ParameterStore*> parts;
    for (const auto& a : adapters_) parts.push_back(&a->parameters());
    model_.gather(whole->parameters(), parts);
    if (keeps) result.adapters = std::move(whole);
  }
  if (classes_ > 0) {
    auto whole = std::make_unique<ClassifierHead>(plan, classes_, options_.seed,
                                                  options_.lora ? &*options_.lora : nullptr);
    std::vector<const ParameterStore*> parts;
    if (head_) parts.push_back(&head_->parameters());
    model_.gather(whole->parameters(), parts);
    if (keeps) result.head = std::move(whole);
  }
  return result;
}

// ---- steps -------------------------------------------------------------------------------------

namespace {

/// Row 0 of micro-batch i is the step's row i * rows: dropout draws other masks in each.
ForwardOptions options_of(const ForwardOptions& step, int micro_batch, std::int64_t rows) {
  ForwardOptions options = step;
  options.first_row += static_cast<std::uint64_t>(micro_batch * rows);
  return options;
}

}  // namespace

StepInput answer_passes(std::span<const PackedBatch> micro_batches, double targets,
                        const ForwardOptions& options) {
  StepInput input;
  std::int64_t rows = 0;  // packed micro-batches may differ
  for (const PackedBatch& m : micro_batches) rows = std::max(rows, m.batch.inputs.dim(0));
  input.gradient_scale = static_cast<float>(1 / targets);
  input.batch = [=](int i) { return micro_batches[static_cast<std::size_t>(i)].batch; };
  input.options = [=](int i) {
    ForwardOptions o = options_of(options, i, rows);
    o.documents = micro_batches[static_cast<std::size_t>(i)].documents;
    return o;
  };
  return input;
}

StepInput class_passes(ParallelTuner& tuner, std::span<const TextBatch> micro_batches, double texts,
                       const ForwardOptions& options) {
  StepInput input;
  const std::int64_t rows = micro_batches.front().inputs.dim(0);
  input.batch = [=](int i) { return Batch{micro_batches[static_cast<std::size_t>(i)].inputs, {}}; };
  input.options = [=](int i) { return options_of(options, i, rows); };
  input.head = [=, &tuner](int i, GptStage& last, StageActivations& saved, StageScratch& scratch,
                           std::span<double> numbers) {
    numbers[0] = tuner.head()->loss(last, saved, scratch, micro_batches[static_cast<std::size_t>(i)],
                                    static_cast<float>(1 / texts));
  };
  return input;
}

StepInput pair_passes(std::span<const Batch> micro_batches, std::span<const std::vector<double>> references,
                      double pairs, double beta, const ForwardOptions& options) {
  StepInput input;
  const std::int64_t rows = micro_batches.front().inputs.dim(0);
  input.batch = [=](int i) { return micro_batches[static_cast<std::size_t>(i)]; };
  input.options = [=](int i) { return options_of(options, i, rows); };
  input.numbers = 3;
  input.head = [=](int i, GptStage& last, StageActivations& saved, StageScratch& scratch,
                   std::span<double> numbers) {
    const std::vector<double>& reference = references[static_cast<std::size_t>(i)];
    const auto here = static_cast<double>(reference.size()) / 2;
    const DpoLoss loss = dpo_head(last, saved, scratch, micro_batches[static_cast<std::size_t>(i)], reference,
                                  beta, static_cast<float>(here / pairs));
    numbers[0] = here * loss.loss;
    numbers[1] = here * loss.margin;
    numbers[2] = here * loss.accuracy;
  };
  return input;
}

// ---- without training --------------------------------------------------------------------------

std::vector<std::int64_t> predict(ParallelTuner& tuner, std::span<const TextBatch> batches) {
  std::vector<Batch> inputs;
  std::vector<int> counts;
  for (const TextBatch& b : batches) {
    inputs.push_back({b.inputs, {}});
    counts.push_back(static_cast<int>(b.lengths.size()));
  }
  const auto numbers = tuner.model().evaluate(
      inputs, counts,
      [&](int i, GptStage& last, StageActivations& saved, StageScratch&, std::span<double> out) {
        const auto classes =
            most_probable(tuner.head()->logits(last, saved, batches[static_cast<std::size_t>(i)]));
        std::copy(classes.begin(), classes.end(), out.begin());
      });
  return {numbers.begin(), numbers.end()};
}

std::vector<double> answer_log_probabilities(ParallelTuner& tuner, const std::vector<Batch>& batches) {
  std::vector<int> counts;
  for (const Batch& b : batches) counts.push_back(static_cast<int>(b.inputs.dim(0)));
  return tuner.model().evaluate(
      batches, counts,
      [&](int i, GptStage& last, StageActivations& saved, StageScratch& scratch, std::span<double> out) {
        const auto sums =
            answer_log_probabilities(last, saved, scratch, batches[static_cast<std::size_t>(i)]);
        std::copy(sums.begin(), sums.end(), out.begin());
      });
}

double mean_loss(ParallelTuner& tuner, const std::vector<Batch>& batches) {
  std::int64_t targets = 0;
  for (const Batch& b : batches) targets += target_count(b);
  double sum = 0;
  for (const double loss : tuner.model().evaluate(batches, std::vector<int>(batches.size(), 1))) sum += loss;
  return sum / static_cast<double>(targets);
}

}  // namespace llm
