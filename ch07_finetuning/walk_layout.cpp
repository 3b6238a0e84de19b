// The layouts of chapter 6 under the commands that train: threads, or processes under mpirun.
#include <fmt/format.h>

#include "ch07_finetuning/finetuning.h"
#include "common/core/error.h"
#include "common/model/huggingface.h"
#include "common/parallel/launch.h"

namespace llm::ch07 {

bool leads() {
  return rank_under_mpirun() == 0;
}

TuneOptions with_layout(TuneOptions o, const GptConfig& config) {
  Layout& layout = o.parallel.layout;
  if (o.ranks == 0) o.ranks = ranks_started_by_mpirun();
  if (o.ranks == 0) o.ranks = layout.pp * layout.tp;
  layout = fill_layout(layout, o.ranks);
  if (o.accumulate == 0) o.accumulate = layout.dp * layout.pp;
  if (o.batch % o.accumulate != 0)
    fail_usage(
        "a step of {} examples does not fall into {} micro-batches of one size; --batch must be a multiple",
        o.batch, o.accumulate);
  validate(o.parallel, config, o.accumulate);
  if (o.lora) validate(*o.lora, layout.tp);
  return o;
}

ParallelTunerOptions TuneOptions::parallel_tuner() const {
  ParallelTunerOptions o;
  o.tuner = tuner();
  o.parallel = parallel;
  o.micro_batches = accumulate;
  o.lora = lora;
  o.seed = seed;
  return o;
}

std::unique_ptr<ClassifierHead> train_on_ranks(OpenModel& open, const TuneOptions& options,
                                               const ParallelTunerOptions& tuner_options,
                                               const std::function<void(ParallelTuner&, bool)>& body) {
  // The configuration stays, the weights are read again where they train.
  open.model = GptStage(open.model.config(), Placement{.buffers = {.values = false, .gradients = false}});
  WorldOptions world_options;
  world_options.ranks = options.ranks;
  world_options.nccl = options.nccl;
  if (options.deadline > 0) world_options.communicator.deadline = options.deadline;
  ParallelTuner::Result made;
  run_world(world_options, [&](Communicator& world) {
    ParallelTuner tuner(world, load_huggingface(options.model), options.placement, tuner_options);
    if (world.rank() == 0 && options.ranks > 1)
      fmt::print("Layout: {} ranks = {}{}, {} micro-batches a step\n", options.ranks,
                 to_string(options.parallel.layout),
                 options.parallel.zero > 0 ? fmt::format(", ZeRO {}", options.parallel.zero) : "",
                 options.accumulate);
    body(tuner, world.rank() == 0);
    ParallelTuner::Result result = tuner.gather();
    if (world.rank() == 0) made = std::move(result);
  });
  if (!leads()) return nullptr;
  if (made.adapters) {
    made.adapters->merge(*made.model);
    if (!options.out.empty()) made.adapters->save_peft(options.out / "adapter", options.model.string());
  }
  if (made.head) made.head->merge();
  const Placement& at = options.placement;
  open.model = at.device == Device::cpu ? std::move(*made.model) : made.model->placed(at);
  return std::move(made.head);
}

std::vector<std::size_t> micro_batch(const std::vector<std::size_t>& step, std::int64_t i, std::int64_t n) {
  const auto size = static_cast<std::int64_t>(step.size()) / n;
  return {step.begin() + i * size, step.begin() + (i + 1) * size};
}

}  // namespace llm::ch07
