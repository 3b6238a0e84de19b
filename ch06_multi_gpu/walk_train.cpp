// `train`: chapter 5's run on a grid of ranks.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "ch06_multi_gpu/training.h"
#include "common/cli/format.h"
#include "common/cli/interrupt.h"
#include "common/cli/metrics.h"
#include "common/cli/progress.h"
#include "common/core/error.h"
#include "common/model/huggingface.h"
#include "common/parallel/agreement.h"
#include "common/parallel/launch.h"
#include "common/parallel/planner/plan.h"
#include "common/parallel/sharded_checkpoint.h"
#include "common/parallel/wrappers.h"

namespace llm::ch06 {

namespace {

/// `count` validation batches, 0: all, spread evenly over the text: windows, or whole documents.
std::vector<Batch> validation_batches(const TrainingData& folder, SampleKind kind, std::int64_t context,
                                      std::int64_t rows, std::int64_t count) {
  const TokenView tokens = folder.val.tokens();
  std::vector<Batch> batches;
  if (kind == SampleKind::windows) {
    const auto starts = sliding_starts(tokens.size(), context, context);
    const std::int64_t all = batch_count(static_cast<std::int64_t>(starts.size()), rows, false);
    const std::int64_t taken = count > 0 ? std::min(count, all) : all;
    for (std::int64_t i = 0; i < taken; ++i)
      batches.push_back(make_batch(tokens, batch_starts(starts, rows, i * all / taken), context));
    return batches;
  }
  const auto documents = document_ranges(tokens, *folder.end_of_text);
  const auto n = static_cast<std::int64_t>(documents.size());
  const std::int64_t all = (n + rows - 1) / rows;
  const std::int64_t taken = count > 0 ? std::min(count, all) : all;
  for (std::int64_t i = 0; i < taken; ++i) {
    const std::int64_t first = i * all / taken * rows;
    batches.push_back(
        make_document_batch(tokens,
                            std::span(documents).subspan(static_cast<std::size_t>(first),
                                                         static_cast<std::size_t>(std::min(rows, n - first))),
                            *folder.end_of_text, context));
  }
  return batches;
}

/// Whether some rank was asked to stop: all must leave the loop after the same step.
bool asked_to_stop(Communicator& control) {
  const Tensor flag = Tensor::from(std::vector<std::int32_t>{interrupted ? 1 : 0}, {1});
  control.all_reduce(flag, ReduceOp::max).wait();
  return flag.data<std::int32_t>()[0] != 0;
}

/// One rank's run. Only rank 0 prints and writes metrics.
class Run {
 public:
  Run(const TrainCommand& command, const TrainingData& folder, Communicator& world)
      : command_(command), folder_(folder), world_(world), leads_(world.rank() == 0) {}

  void run() {
    // What the trainer does not know of, and ranks would part ways over.
    check_agreement(world_, {{"--data", folder_.identity()},
                             {"--out", command_.out.string()},
                             {"--init-from", command_.init_from.string()},
                             {"--resume", command_.resume ? "yes" : "no"},
                             {"--save-every", fmt::format("{}", command_.save_every)},
                             {"--eval-every", fmt::format("{}", command_.eval_every)},
                             {"--eval-batches", fmt::format("{}", command_.eval_batches)}});
    std::optional<GptStage> given;
    if (!command_.init_from.empty()) given.emplace(load_huggingface(command_.init_from));
    const std::int64_t vocabulary = folder_.tokenizer->vocab_size();
    if (given)
      check(given->config().vocab_size == vocabulary,
            "{} has a vocabulary of {}, the tokenizer of {} has {}; they must be the same",
            command_.init_from.string(), given->config().vocab_size, command_.data.string(), vocabulary);
    GptConfig config = given ? given->config() : config_of(command_, vocabulary);
    TrainerOptions run = command_.trainer;
    run.samples = choose_samples(command_.samples, folder_, config.context);
    ParallelTrainer trainer(world_, config, command_.placement, folder_.train.tokens(),
                            folder_.end_of_text.value_or(0), run, command_.parallel);
    if (leads_) describe(trainer);
    const std::map<std::string, std::string> identity = {{"data", folder_.identity()}};
    const fs::path checkpoint = command_.out / "checkpoint";
    const bool resumes = command_.resume && has_sharded_checkpoint(checkpoint);
    if (resumes)
      trainer.resume(checkpoint, identity);
    else if (given)
      trainer.initialize(*given);
    else
      trainer.initialize(run.seed);
    given.reset();
    if (leads_ && command_.resume)
      say(resumes ? fmt::format("Going on after step {} of {}", trainer.steps_done(), checkpoint.string())
                  : fmt::format("{} holds no checkpoint yet: starting anew", checkpoint.string()));
    loop(trainer, checkpoint, identity, resumes);

    const auto model = trainer.gather_model();
    if (!model) return;
    folder_.tokenizer->save(command_.out);
    save_huggingface(*model, command_.out);
    say(fmt::format("Wrote {} (the model, its tokenizer, metrics.jsonl, checkpoint)", command_.out.string()));
  }

 private:
  static void say(const std::string& line) { fmt::print("{}\n", line); }

  void describe(const ParallelTrainer& trainer) const {
    const GptConfig& c = trainer.config();
    const ParallelOptions& o = trainer.options();
    fmt::print("Model: {} layers, {} heads, {} channels, context {}, vocabulary {}: {} parameters\n",
               c.layers, c.heads, c.channels, c.context, with_commas(c.vocab_size),
               with_commas(parameter_count(c)));
    fmt::print("Layout: {} ranks = {}{}{}{}{}\n", o.layout.ranks(), to_string(o.layout),
               o.zero > 0 ? fmt::format(", ZeRO {}{}", o.zero, o.no_sync ? " without sync" : "") : "",
               o.layout.pp > 1 ? fmt::format(", schedule {}", pipeline_kind_name(o.schedule)) : "",
               o.sequence_parallel ? ", sequence parallel" : "", o.recompute ? ", recomputation" : "");
    fmt::print("Run: {} steps of {} micro-batches of {} rows, {} on each of {} data-parallel ranks\n",
               with_commas(trainer.steps_total()), trainer.run().accumulate, trainer.run().batch,
               trainer.run().accumulate / o.layout.dp, o.layout.dp);
  }

  void loop(ParallelTrainer& trainer, const fs::path& checkpoint,
            const std::map<std::string, std::string>& identity, bool resumed) {
    const std::int64_t steps = trainer.steps_total();
    const auto every = [&](std::int64_t given, std::int64_t times) {
      return given > 0 ? given : std::max<std::int64_t>(1, steps / times);
    };
    const std::int64_t eval_every = every(command_.eval_every, 10),
                       save_every = every(command_.save_every, 10),
                       log_every = every(command_.log_every, 2000);
    const auto validation =
        validation_batches(folder_, trainer.run().samples, trainer.config().context,
                           std::max<std::int64_t>(trainer.run().batch, 16), command_.eval_batches);
    MetricsWriter metrics, copy;
    std::optional<Progress> progress;
    if (leads_) {
      metrics = MetricsWriter(command_.out / "metrics.jsonl", resumed);
      if (!command_.metrics.empty()) copy = MetricsWriter(command_.metrics, resumed);
      progress.emplace("training", steps, "steps");
      progress->start_at(trainer.steps_done());
    }
    const auto record = [&](const MetricRecord& r) {
      metrics.write(r);
      copy.write(r);
    };
    double loss_sum = 0, seconds = 0;
    std::int64_t tokens = 0, records = 0;
    while (trainer.steps_done() < steps) {
      const StepReport r = trainer.step();
      loss_sum += r.loss;
      seconds += r.seconds();
      tokens += r.tokens;
      ++records;
      if (leads_ && (r.step % log_every == 0 || r.step == steps)) {
        const double rate = static_cast<double>(tokens) / seconds,
                     loss = loss_sum / static_cast<double>(records);
        record({{"step", r.step},
                {"loss", loss},
                {"lr", r.learning_rate},
                {"grad_norm", r.gradient_norm},
                {"tokens_per_s", rate},
                {"waiting", r.prepare_s / r.seconds()}});
        progress->update(r.step, fmt::format("loss {:.4f}, {} tokens/s", loss, short_count(rate)));
        loss_sum = seconds = 0;
        tokens = records = 0;
      }
      if (r.step % eval_every == 0 || r.step == steps) {
        const double loss = trainer.evaluate(validation);
        if (leads_) {
          record({{"step", r.step}, {"val_loss", loss}});
          progress->say(fmt::format("step {:>6}  validation {:.4f}", r.step, loss));
        }
      }
      const bool stop = asked_to_stop(*trainer.grid().control) && r.step < steps;
      if (r.step % save_every == 0 || r.step == steps || stop) trainer.save(checkpoint, identity);
      check(!stop, "stopped after step {} of {}; its checkpoint is saved, go on with --resume", r.step,
            steps);
    }
    if (progress) progress->finish();
  }

  const TrainCommand& command_;
  const TrainingData& folder_;
  Communicator& world_;
  bool leads_;
};

/// --layout auto: of all grids of so many ranks, the one that the planner holds for the fastest and that this
/// run's micro-batches allow.
void choose_layout(ParallelOptions& o, const GptConfig& config, const TrainerOptions& run, int ranks,
                   const std::string& device) {
  planner::PlanOptions options;
  options.devices = ranks;
  options.batch = run.batch * run.accumulate;
  options.max_micro_batch = static_cast<int>(run.batch);
  const planner::Plan plan = planner::make_plan(planner::model_shape(config), planner::hardware(device),
                                                planner::calibration("formulas"), options);
  for (const planner::Candidate& candidate : plan.best) {
    const planner::Layout& l = candidate.layout;
    ParallelOptions chosen = o;
    chosen.layout = {.pp = l.pp, .dp = l.dp, .tp = l.tp};
    chosen.zero = l.zero;
    chosen.schedule = l.schedule;
    chosen.chunks = l.chunks;
    try {
      validate(chosen, config, run);
      make_schedule(chosen.schedule, l.pp, static_cast<int>(run.accumulate) / l.dp, chosen.chunks);
    } catch (const UsageError&) {
      continue;  // its micro-batches are others
    }
    o = chosen;
    return;
  }
  fail_usage("the planner knows no layout of {} ranks for this model and {} micro-batches; say --pp and --tp",
             ranks, run.accumulate);
}

}  // namespace

void train(const TrainCommand& asked) {
  TrainCommand command = asked;
  const int started = ranks_started_by_mpirun();
  if (command.ranks == 0) command.ranks = started > 0 ? started : 2;
  ParallelOptions& o = command.parallel;
  o.schedule = parse_pipeline_kind(command.schedule);
  const TrainingData folder = open_training_data(command.data);
  if (command.layout == "auto") {
    const GptConfig config = command.init_from.empty() ? config_of(command, folder.tokenizer->vocab_size())
                                                       : read_huggingface_config(command.init_from);
    choose_layout(o, config, command.trainer, command.ranks, command.plan_device);
  } else if (!command.layout.empty()) {
    fail_usage("--layout is auto, or left out with --pp and --tp instead; it is '{}'", command.layout);
  } else {
    o.layout = fill_layout(o.layout, command.ranks);
  }
  const InterruptGuard guard;
  WorldOptions options;
  options.ranks = command.ranks;
  options.nccl = command.nccl;
  if (command.deadline > 0) options.communicator.deadline = command.deadline;
  run_world(options, [&](Communicator& world) {
    if (command.trace.empty()) return Run(command, folder, world).run();
    const auto trace = std::make_shared<Trace>(true);
    const auto traced = make_tracing_communicator(world.split(0, world.rank(), "world"), trace);
    Run(command, folder, *traced).run();
    write_chrome_trace(world, *trace, command.trace);
    if (world.rank() == 0)
      fmt::print("Wrote {}: open it in chrome://tracing or ui.perfetto.dev\n", command.trace.string());
  });
}

}  // namespace llm::ch06
