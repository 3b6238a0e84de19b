// Checkpoints of a parallel run, and its model in one piece. See parallel_trainer.h.
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
// zeros. The sum is one of bits (i32), so that it is exact and a negative zero stays one.
std::unique_ptr<GptStage> ParallelTrainer::gather_model() {
  std::map<std::string, Tensor> mine;  // parts of whole tensors, by one of the data-parallel ranks
  std::map<std::string, Parameter> described;
  for (const auto& s : stages_)
    s->visit_values([&](const Parameter& p) {
      if (grid_.dp_rank != 0 || !p.owner) return;
      mine[p.name] = p.value.clone();
      described[p.name] = p;
    });
  const bool keeps = grid_.world.rank() == 0;
  auto whole =
      std::make_unique<GptStage>(config_, Placement{.buffers = {.values = keeps, .gradients = false}});
  for (const Parameter& p : whole->parameters().all()) {
    const std::int64_t count = element_count(p.shape);
    const Tensor bits({count}, DType::i32);
    if (const auto found = mine.find(p.name); found != mine.end()) {
      const Tensor values(p.shape);
      copy_into_whole(described.at(p.name), values, found->second);
      std::memcpy(bits.raw(), values.raw(), values.bytes());
    }
    if (grid_.control->size() > 1) grid_.control->all_reduce(bits).wait();
    if (keeps) std::memcpy(p.value.raw(), bits.raw(), bits.bytes());
  }
  return keeps ? std::move(whole) : nullptr;
}

}  // namespace llm
