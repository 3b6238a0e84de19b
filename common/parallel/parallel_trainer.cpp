#include "common/parallel/parallel_trainer.h"

#include "common/core/error.h"
#include "common/parallel/agreement.h"

namespace llm {

void validate(const ParallelOptions& o, const GptConfig& config, const TrainerOptions& run) {
  validate(o, config, run.accumulate);
  if (!(run.clip >= 0)) fail_usage("the clipping norm must be 0 (none) or positive, got {}", run.clip);
  if (o.sequence_parallel && run.samples == SampleKind::documents && o.layout.tp > 1)
    fail_usage("sequence parallelism shares out rows of one length; sample windows with it");
  validate(run.schedule);
  validate(run.adamw);
}

namespace {

const ParallelOptions& validated(const ParallelOptions& o, const GptConfig& config,
                                 const TrainerOptions& run) {
  validate(o, config, run);
  return o;
}

}  // namespace

ParallelTrainer::ParallelTrainer(Communicator& world, const GptConfig& config, const Placement& placement,
                                 const TokenView& tokens, std::int32_t separator, const TrainerOptions& run,
                                 const ParallelOptions& options)
    : ParallelModel(world, config, placement, validated(options, config, run), run.adamw, run.accumulate),
      run_(run),
      sampler_(tokens, run.samples, separator, config.context, run.batch, run.accumulate, run.seed) {
  std::map<std::string, std::string> asked = settings();
  asked["training tokens"] = fmt::format("{}", tokens.size());
  check_agreement(world, asked);
}

StepReport ParallelTrainer::step() {
  const std::int64_t step = steps_done();
  StepReport report;
  report.step = step + 1;
  report.learning_rate = learning_rate(run_.schedule, step);
  report.tokens = sampler_.target_count(step);
  ModelStep wanted{.divisor = static_cast<double>(report.tokens),
                   .learning_rate = report.learning_rate,
                   .clip = run_.clip};
  wanted.passes.gradient_scale = 1.0F / static_cast<float>(report.tokens);
  wanted.passes.batch = [&](int micro) { return sampler_.get(step, micro); };
  wanted.passes.options = [&](int micro) {
    ForwardOptions options;
    options.training = true;
    options.seed = run_.seed;
    options.step = static_cast<std::uint64_t>(step);
    options.first_row = static_cast<std::uint64_t>(micro * run_.batch);
    return options;
  };
  const ModelStepReport done = ParallelModel::step(wanted);
  report.loss = done.loss;
  report.gradient_norm = done.gradient_norm;
  report.prepare_s = done.waiting_s;
  report.forward_s = done.passes_s;
  report.update_s = done.update_s;
  return report;
}

double ParallelTrainer::evaluate(const std::vector<Batch>& batches) {
  std::int64_t tokens = 0;
  for (const Batch& batch : batches)
    for (const std::int32_t target : batch.targets.span<std::int32_t>()) tokens += target >= 0;
  double sum = 0;
  for (const double loss : ParallelModel::evaluate(batches, std::vector<int>(batches.size(), 1))) sum += loss;
  return sum / static_cast<double>(tokens);
}

}  // namespace llm
