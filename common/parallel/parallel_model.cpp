// The step on a grid of ranks. See parallel_model.h; putting parts together is in parallel_state.cpp.
#include "common/parallel/parallel_model.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <numeric>

#include "common/core/error.h"
#include "common/parallel/agreement.h"
#include "common/parallel/tensor_parallel_group.h"

namespace llm {

void validate(const ParallelOptions& o, const GptConfig& config, std::int64_t micro_batches) {
  validate(o.layout, o.layout.ranks());
  validate(config);
  if (o.zero < 0 || o.zero > 3) fail_usage("there are ZeRO stages 0 (none), 1, 2 and 3, but no {}", o.zero);
  if (o.zero >= 2 && o.layout.pp > 1)
    fail_usage(
        "ZeRO {} reduces gradients after every pass, which a pipeline does not have the time for; use ZeRO 0 "
        "or 1 with {} pipeline stages",
        o.zero, o.layout.pp);
  if (micro_batches % o.layout.dp != 0)
    fail_usage("a step of {} micro-batches cannot be shared out over {} data-parallel ranks; use a multiple",
               micro_batches, o.layout.dp);
  if (config.layers < o.layout.pp * o.chunks)
    fail_usage("a model of {} layers cannot be cut into {} stages of at least one", config.layers,
               o.layout.pp * o.chunks);
  check_shares(config, o.layout.tp);
}

namespace {

const ParallelOptions& validated(const ParallelOptions& o, const GptConfig& config,
                                 std::int64_t micro_batches) {
  validate(o, config, micro_batches);
  return o;
}

/// Before there is a grid: a rank with another layout would look for its neighbours elsewhere.
Communicator& agreed(Communicator& world, const ParallelOptions& o, std::int64_t micro_batches) {
  const auto text = [](auto value) { return fmt::format("{}", value); };
  check_agreement(world, {{"layout", to_string(o.layout)},
                          {"ZeRO stage", text(o.zero)},
                          {"no-sync", text(o.no_sync)},
                          {"pipeline schedule", std::string(pipeline_kind_name(o.schedule))},
                          {"chunks", text(o.chunks)},
                          {"sequence parallel", text(o.sequence_parallel)},
                          {"recompute", text(o.recompute)},
                          {"micro-batches", text(micro_batches)}});
  return world;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

ParallelModel::ParallelModel(Communicator& world, const GptConfig& config, const Placement& placement,
                             const ParallelOptions& options, const AdamWOptions& adamw,
                             std::int64_t micro_batches, const std::function<bool(const Parameter&)>& trains)
    : config_(config),
      placement_(placement),
      options_(validated(options, config, micro_batches)),
      grid_(agreed(world, options, micro_batches), options.layout) {
  const int pp = options.layout.pp;
  PipelineSchedule schedule = make_schedule(
      options.schedule, pp, static_cast<int>(micro_batches) / options.layout.dp, options.chunks);
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
    GptStage stage(config, range.first, range.last, at, stage_options);
    if (trains) stage.set_trainable(trains);
    stages_.push_back(std::make_unique<ShardedStage>(std::move(stage), *grid_.dp, options.zero,
                                                     options.optimizer, adamw, options.no_sync));
    chunks.push_back(stages_.back().get());
  }
  runner_ = std::make_unique<PipelineRunner>(chunks, std::move(schedule), *grid_.pp);
}

ShardedStage* ParallelModel::last_stage() const {
  return stages_.back()->stage().has_head() ? stages_.back().get() : nullptr;
}

void ParallelModel::initialize(std::uint64_t seed) {
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

void ParallelModel::initialize(const GptStage& whole) {
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

ModelStepReport ParallelModel::step(const ModelStep& step) {
  const auto start = std::chrono::steady_clock::now();
  const int mine = runner_->schedule().micro_batches;
  const int first = grid_.dp_rank * mine;  // of this pipeline's micro-batches among those of the step
  StepInput input = step.passes;
  input.batch = [&](int micro) { return step.passes.batch(first + micro); };
  input.options = [&](int micro) { return step.passes.options(first + micro); };
  if (step.passes.head)
    input.head = [&](int micro, GptStage& last, StageActivations& saved, StageScratch& scratch,
                     std::span<double> numbers) {
      step.passes.head(first + micro, last, saved, scratch, numbers);
    };
  for (const auto& s : stages_) s->zero_gradients();
  const std::vector<double> here = runner_->step(input);
  for (const auto& s : stages_) s->finish_gradients();
  ModelStepReport report;
  report.passes_s = runner_->busy_seconds();
  report.waiting_s = seconds_since(start) - report.passes_s;

  const auto update_start = std::chrono::steady_clock::now();
  const auto count = static_cast<std::size_t>(input.numbers);
  std::vector<double> contributions(here.size() * static_cast<std::size_t>(grid_.layout.dp), 0);
  if (grid_.tp_rank == 0)  // on the other ranks of the group stand the same numbers
    std::copy(here.begin(), here.end(),
              contributions.begin() + static_cast<std::ptrdiff_t>(here.size()) * grid_.dp_rank);
  // Gradients of one rank on a device are added up there, rather than brought here.
  const bool alone = grid_.world.size() == 1 && placement_.device != Device::cpu;
  ExactSquares squares;
  double squares_alone = 0;
  if (step.clip > 0)
    for (const auto& s : stages_) alone ? void(squares_alone += s->squares_alone()) : s->add_squares(squares);
  const Totals totals = exchange(contributions, squares);
  report.sums.assign(count, 0);
  for (std::size_t i = 0; i < totals.numbers.size(); ++i) report.sums[i % count] += totals.numbers[i];
  report.loss = report.sums[0] / step.divisor;
  report.gradient_norm = std::sqrt(alone ? squares_alone : totals.squares);
  check(
      std::isfinite(report.loss) && std::isfinite(report.gradient_norm),
      "training diverged: at step {} the loss is {} and the norm of its gradient {}; a smaller learning rate "
      "or a longer warm-up may help",
      steps_done() + 1, report.loss, report.gradient_norm);
  const double scale = clip_scale(report.gradient_norm, step.clip);
  for (const auto& s : stages_) s->update(step.learning_rate, scale);
  report.update_s = seconds_since(update_start);
  return report;
}

/// One message of a few hundred numbers. A double travels as two i32; only one rank has it, the others have
/// zeros, so that the sum of the bits is the bits.
ParallelModel::Totals ParallelModel::exchange(const std::vector<double>& numbers,
                                              const ExactSquares& squares) {
  const std::size_t n = numbers.size();
  std::vector<std::int32_t> words(2 * n + ExactSquares::kDigits);
  for (std::size_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<std::uint64_t>(numbers[i]);
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
    totals.numbers.push_back(std::bit_cast<double>((std::uint64_t{high} << 32) | low));
  }
  totals.squares = ExactSquares::value(std::span<const std::int32_t>(sums).last<ExactSquares::kDigits>());
  return totals;
}

// ---- without backward --------------------------------------------------------------------------

std::vector<double> ParallelModel::evaluate(const std::vector<Batch>& batches, const std::vector<int>& counts,
                                            const HeadPass& head) {
  check(batches.size() == counts.size(), "{} batches and counts of {} were given", batches.size(),
        counts.size());
  std::vector<double> numbers(static_cast<std::size_t>(std::accumulate(counts.begin(), counts.end(), 0)), 0);
  std::size_t next = 0;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    const auto theirs = std::span(numbers).subspan(next, static_cast<std::size_t>(counts[i]));
    next += theirs.size();
    if (static_cast<int>(i) % grid_.layout.dp != grid_.dp_rank) continue;
    runner_->evaluate(static_cast<int>(i), batches[i], theirs, head);
    if (grid_.tp_rank != 0) std::fill(theirs.begin(), theirs.end(), 0);
  }
  // ZeRO 3 gathers together, so every rank takes as many batches: the ranks without one take the last again.
  if (options_.zero == 3)
    if (const std::size_t rest = batches.size() % static_cast<std::size_t>(grid_.layout.dp);
        rest != 0 && static_cast<std::size_t>(grid_.dp_rank) >= rest) {
      std::vector<double> again(static_cast<std::size_t>(counts.back()));
      runner_->evaluate(static_cast<int>(batches.size()) - 1, batches.back(), again, head);
    }
  return exchange(numbers, {}).numbers;
}

std::int64_t ParallelModel::trained_count() {
  std::int64_t count = 0;
  for (const auto& s : stages_) count += s->trained_count();
  // One rank of each data-parallel group says what its stages have.
  std::vector<double> counts(static_cast<std::size_t>(grid_.layout.pp * grid_.layout.tp), 0);
  if (grid_.dp_rank == 0)
    counts[static_cast<std::size_t>(grid_.pp_rank * grid_.layout.tp + grid_.tp_rank)] =
        static_cast<double>(count);
  double sum = 0;
  for (const double each : exchange(counts, {}).numbers) sum += each;
  return static_cast<std::int64_t>(sum);
}

}  // namespace llm
