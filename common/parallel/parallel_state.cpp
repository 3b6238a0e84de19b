// Checkpoints of a parallel run, and its model in one piece. See parallel_trainer.h and parallel_model.h.
#include <cstring>

#include "common/core/error.h"
#include "common/parallel/parallel_trainer.h"
#include "common/parallel/sharded_checkpoint.h"

namespace llm {

std::map<std::string, std::string> ParallelTrainer::settings(
    const std::map<std::string, std::string>& extra) const {
  std::map<std::string, std::string> all = run_settings(config_, run_, placement_.dtype);
  all.emplace("optimizer", options_.optimizer == OptimizerKind::adamw ? "adamw" : "sgd");
  all.insert(extra.begin(), extra.end());
  return all;
}

void ParallelTrainer::save(const std::filesystem::path& folder,
                           const std::map<std::string, std::string>& extra) const {
  std::vector<ShardedStage::StatePiece> pieces;
  for (const auto& s : stages_)
    for (ShardedStage::StatePiece& piece : s->state_to_save()) pieces.push_back(std::move(piece));
  const std::string layout = fmt::format("{}, zero {}", to_string(options_.layout), options_.zero);
  save_sharded_checkpoint(folder, {steps_done(), settings(extra)}, layout, pieces, *grid_.control);
}

void ParallelTrainer::resume(const std::filesystem::path& folder,
                             const std::map<std::string, std::string>& extra) {
  const CheckpointInfo info = read_sharded_info(folder);
  check_same_settings(folder, info.settings, settings(extra));
  check(info.step <= steps_total(), "{} says {} steps are done, of {}", folder.string(), info.step,
        steps_total());
  std::vector<ShardedStage::StatePiece> pieces;
  for (const auto& s : stages_)
    for (ShardedStage::StatePiece& piece : s->state()) pieces.push_back(std::move(piece));
  load_sharded_checkpoint(folder, pieces);
  for (const auto& s : stages_) {
    s->refresh_values();
    s->steps_taken = info.step;
  }
}

// Each parameter is put together by a sum in which every element has one rank that knows it; the others add
// zeros. The sum is one of bits (i32), so that it is exact and a negative zero stays one. Of the ranks that
// hold the same elements one has a `part` with its value, f32 on the CPU; nullptr: nothing here.
Tensor ParallelModel::gather_values(const Shape& whole, const Parameter* part) {
  const Tensor bits({element_count(whole)}, DType::i32), values(whole);
  if (part != nullptr) {
    copy_into_whole(*part, values, part->value);
    std::memcpy(bits.raw(), values.raw(), values.bytes());
  }
  if (grid_.control->size() > 1) grid_.control->all_reduce(bits).wait();
  std::memcpy(values.raw(), bits.raw(), bits.bytes());
  return values;
}

std::unique_ptr<GptStage> ParallelModel::gather_model() {
  std::map<std::string, Parameter> mine;  // parts of whole tensors, by one of the data-parallel ranks
  for (const auto& s : stages_)
    s->visit_values([&](const Parameter& p) {
      if (grid_.dp_rank != 0 || !p.owner) return;
      Parameter& part = mine[p.name] = p;
      part.value = p.value.clone();
    });
  const bool keeps = grid_.world.rank() == 0;
  auto whole =
      std::make_unique<GptStage>(config_, Placement{.buffers = {.values = keeps, .gradients = false}});
  for (const Parameter& p : whole->parameters().all()) {
    const auto found = mine.find(p.name);
    const Tensor values = gather_values(p.shape, found == mine.end() ? nullptr : &found->second);
    if (keeps) p.value.copy_from(values);
  }
  return keeps ? std::move(whole) : nullptr;
}

void ParallelModel::gather(const ParameterStore& whole, const std::vector<const ParameterStore*>& parts) {
  for (const Parameter& p : whole.all()) {
    const Parameter* found = nullptr;
    for (const ParameterStore* store : parts)
      if (const Parameter* here = store->find(p.name)) found = here;
    Parameter part;
    const bool tells = found != nullptr && grid_.dp_rank == 0 && found->owner;
    if (tells) {
      part = *found;
      part.value = found->value.to(Device::cpu);
    }
    const Tensor values = gather_values(p.shape, tells ? &part : nullptr);
    if (grid_.world.rank() == 0) p.value.copy_from(values);
  }
  if (grid_.world.rank() == 0) whole.round_values();
}

}  // namespace llm
