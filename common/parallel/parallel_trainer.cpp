#include "common/parallel/parallel_trainer.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>

#include "common/core/error.h"
#include "common/parallel/agreement.h"
#include "common/parallel/tensor_parallel_group.h"

namespace llm {

void validate(const ParallelOptions& o, const GptConfig& config, const TrainerOptions& run) {
  validate(o.layout, o.layout.ranks());
  validate(config);
  if (o.zero < 0 || o.zero > 3) fail_usage("there are ZeRO stages 0 (none), 1, 2 and 3, but no {}", o.zero);
  if (o.zero >= 2 && o.layout.pp > 1)
    fail_usage(
        "ZeRO {} reduces gradients after every pass, which a pipeline does not have the time for; use ZeRO 0 "
        "or "
        "1 with {} pipeline stages",
        o.zero, o.layout.pp);
  if (run.accumulate % o.layout.dp != 0)
    fail_usage("a step of {} micro-batches cannot be shared out over {} data-parallel ranks; use a multiple",
               run.accumulate, o.layout.dp);
  if (!(run.clip >= 0)) fail_usage("the clipping norm must be 0 (none) or positive, got {}", run.clip);
  if (config.layers < o.layout.pp * o.chunks)
    fail_usage("a model of {} layers cannot be cut into {} stages of at least one", config.layers,
               o.layout.pp * o.chunks);
  if (o.sequence_parallel && run.samples == SampleKind::documents && o.layout.tp > 1)
    fail_usage("sequence parallelism shares out rows of one length; sample windows with it");
  check_shares(config, o.layout.tp);
  validate(run.schedule);
  validate(run.adamw);
}

namespace {

const ParallelOptions& validated(const ParallelOptions& o, const GptConfig& config,
                                 const TrainerOptions& run) {
  validate(o, config, run);
  return o;
}

/// Before there is a grid: a rank with another layout would look for its neighbours elsewhere.
Communicator& agreed(Communicator& world, const std::map<std::string, std::string>& asked) {
  check_agreement(world, asked);
  return world;
}

}  // namespace

ParallelTrainer::ParallelTrainer(Communicator& world, const GptConfig& config, const Placement& placement,
                                 const TokenView& tokens, std::int32_t separator, const TrainerOptions& run,
                                 const ParallelOptions& options)
    : config_(config),
      run_(run),
      options_(validated(options, config, run)),
      placement_(placement),
      grid_(agreed(world, arguments(tokens)), options.layout),
      sampler_(tokens, run.samples, separator, config.context, run.batch, run.accumulate, run.seed) {
  const int pp = options.layout.pp;
  PipelineSchedule schedule = make_schedule(
      options.schedule, pp, static_cast<int>(run.accumulate) / options.layout.dp, options.chunks);
  std::vector<LayerRange> layers = options.stages;
  if (layers.empty()) {
    // The head's product, V C, in units of a layer's, 12 C^2.
    const double head =
        static_cast<double>(config.vocab_size) / (12.0 * static_cast<double>(config.channels));
    layers = split_layers(config.layers, schedule.stages(), 0, head);
  }
  check(static_cast<int>(layers.size()) == schedule.stages() && layers.front().first == 0 &&
            layers.back().last == config.layers,
        "the layers of {} stages were given, but there are {}", layers.size(), schedule.stages());

  StageOptions stage_options;
  if (options.layout.tp > 1) stage_options.tensor_group = std::make_shared<CommunicatorGroup>(*grid_.tp);
  stage_options.sequence_parallel = options.sequence_parallel;
  stage_options.recompute = options.recompute;
  Placement at = placement;
  at.buffers = ShardedStage::stage_buffers(options.zero);
  std::vector<ShardedStage*> chunks;
  for (int chunk = 0; chunk < schedule.chunks; ++chunk) {
    const LayerRange range = layers[static_cast<std::size_t>(schedule.stage(grid_.pp_rank, chunk))];
    layers_.push_back(range);
    stages_.push_back(
        std::make_unique<ShardedStage>(GptStage(config, range.first, range.last, at, stage_options),
                                       *grid_.dp, options.zero, options.optimizer, run.adamw));
    chunks.push_back(stages_.back().get());
  }
  runner_ = std::make_unique<PipelineRunner>(chunks, std::move(schedule), *grid_.pp);
}

std::map<std::string, std::string> ParallelTrainer::arguments(const TokenView& tokens) const {
  const auto text = [](auto value) { return fmt::format("{}", value); };
  std::map<std::string, std::string> all = settings();
  all.insert({{"layout", to_string(options_.layout)},
              {"ZeRO stage", text(options_.zero)},
              {"pipeline schedule", std::string(pipeline_kind_name(options_.schedule))},
              {"chunks", text(options_.chunks)},
              {"sequence parallel", text(options_.sequence_parallel)},
              {"recompute", text(options_.recompute)},
              {"training tokens", text(tokens.size())}});
  return all;
}

void ParallelTrainer::initialize(std::uint64_t seed) {
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    // A stage like this one without room for values; it gets a unit's at a time.
    GptStage plan(config_, layers_[i].first, layers_[i].last,
                  {.buffers = {.values = false, .gradients = false}}, stages_[i]->stage().options());
    stages_[i]->initialize([&](const ParameterUnit& unit, const Tensor& flat) {
      plan.parameters().attach_values(unit.first, unit.last, flat);
      plan.initialize(seed);
      plan.parameters().attach_values(unit.first, unit.last, {});
    });
  }
}

void ParallelTrainer::initialize(const GptStage& whole) {
  for (const auto& s : stages_) {
    const ParameterStore& store = s->stage().parameters();
    s->initialize([&](const ParameterUnit& unit, const Tensor& flat) {
      for (std::size_t i = unit.first; i < unit.last; ++i) {
        const Parameter& p = store[i];
        const Parameter* source = whole.parameters().find(p.name);
        check(source != nullptr, "the given model has no {}", p.name);
        copy_from_whole(p, flat.range(p.offset - store[unit.first].offset, p.shape), source->value);
      }
    });
  }
}

// ---- the step ----------------------------------------------------------------------------------

StepReport ParallelTrainer::step() {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const auto start = Clock::now();
  const std::int64_t step = steps_done();
  StepReport report;
  report.step = step + 1;
  report.learning_rate = learning_rate(run_.schedule, step);
  report.tokens = sampler_.target_count(step);

  const int mine = runner_->schedule().micro_batches;
  const std::int64_t first =
      grid_.dp_rank * mine;  // of this pipeline's micro-batches among those of the step
  StepInput input;
  input.gradient_scale = 1.0F / static_cast<float>(report.tokens);
  input.batch = [&](int micro) { return sampler_.get(step, first + micro); };
  input.options = [&](int micro) {
    ForwardOptions options;
    options.training = true;
    options.seed = run_.seed;
    options.step = static_cast<std::uint64_t>(step);
    options.first_row = static_cast<std::uint64_t>((first + micro) * run_.batch);
    return options;
  };
  for (const auto& s : stages_) s->zero_gradients();
  const std::vector<double> losses = runner_->step(input);
  for (const auto& s : stages_) s->finish_gradients();
  const double passes = seconds_since(start);

  const auto update_start = Clock::now();
  std::vector<double> contributions(static_cast<std::size_t>(run_.accumulate), 0);
  if (grid_.tp_rank == 0)  // on the other ranks of the group stand the same losses
    std::copy(losses.begin(), losses.end(), contributions.begin() + first);
  ExactSquares squares;
  if (run_.clip > 0)
    for (const auto& s : stages_) s->add_squares(squares);
  const Totals totals = exchange(contributions, squares);
  double sum = 0;
  for (const double loss : totals.losses) sum += loss;
  report.loss = sum / static_cast<double>(report.tokens);
  report.gradient_norm = std::sqrt(totals.squares);
  check(
      std::isfinite(report.loss) && std::isfinite(report.gradient_norm),
      "training diverged: at step {} the loss is {} and the norm of its gradient {}; a smaller learning rate "
      "or a longer warm-up may help",
      report.step, report.loss, report.gradient_norm);
  const double scale = clip_scale(report.gradient_norm, run_.clip);
  for (const auto& s : stages_) s->update(report.learning_rate, scale);
  report.forward_s = runner_->busy_seconds();
  report.prepare_s = passes - report.forward_s;
  report.update_s = seconds_since(update_start);
  return report;
}

/// One message of a few hundred numbers. A double travels as two i32; only one rank has it, the others have
/// zeros, so that the sum of the bits is the bits.
ParallelTrainer::Totals ParallelTrainer::exchange(const std::vector<double>& losses,
                                                  const ExactSquares& squares) {
  const std::size_t n = losses.size();
  std::vector<std::int32_t> words(2 * n + ExactSquares::kDigits);
  for (std::size_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<std::uint64_t>(losses[i]);
    words[2 * i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(bits));
    words[2 * i + 1] = static_cast<std::int32_t>(static_cast<std::uint32_t>(bits >> 32));
  }
  const ExactSquares::Digits digits = squares.digits();
  std::copy(digits.begin(), digits.end(), words.begin() + static_cast<std::ptrdiff_t>(2 * n));
  const Tensor all = Tensor::from(words, {static_cast<std::int64_t>(words.size())});
  if (grid_.control->size() > 1) grid_.control->all_reduce(all).wait();
  const auto sums = all.span<std::int32_t>();
  Totals totals;
  for (std::size_t i = 0; i < n; ++i) {
    const auto low = static_cast<std::uint32_t>(sums[2 * i]),
               high = static_cast<std::uint32_t>(sums[2 * i + 1]);
    totals.losses.push_back(std::bit_cast<double>((std::uint64_t{high} << 32) | low));
  }
  totals.squares = ExactSquares::value(std::span<const std::int32_t>(sums).last<ExactSquares::kDigits>());
  return totals;
}

double ParallelTrainer::evaluate(const std::vector<Batch>& batches) {
  std::vector<double> sums(batches.size(), 0);
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    for (const std::int32_t target : batches[i].targets.span<std::int32_t>()) tokens += target >= 0;
    if (static_cast<int>(i) % grid_.layout.dp != grid_.dp_rank) continue;
    const double sum = runner_->evaluate(batches[i]);
    if (grid_.tp_rank == 0) sums[i] = sum;
  }
  // ZeRO 3 gathers together, so every rank takes as many batches: the ranks without one take the last again.
  if (options_.zero == 3)
    if (const std::size_t rest = batches.size() % static_cast<std::size_t>(grid_.layout.dp);
        rest != 0 && static_cast<std::size_t>(grid_.dp_rank) >= rest)
      runner_->evaluate(batches.back());
  const Totals totals = exchange(sums, {});
  double sum = 0;
  for (const double loss : totals.losses) sum += loss;
  return sum / static_cast<double>(tokens);
}

}  // namespace llm
