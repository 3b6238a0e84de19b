// The memory of a step: all activations are views of one block of memory, all scratch of another.
//
// It is allocated once, aligned, on a CPU in huge pages; asking for memory in every step would cost more than
// many of the operations (first-touch page faults). Chapter 4 counts it.
#include "common/core/error.h"
#include "common/model/gpt.h"

namespace llm {

namespace {

/// Hands out consecutive ranges of a memory, each beginning at a multiple of 16 elements. Without one it only
/// counts.
class Layout {
 public:
  explicit Layout(const ActivationMemory* memory) : memory_(memory) {}
  void place(Tensor& view, const Shape& shape) {
    take(view, shape, values_, memory_ ? &memory_->values : nullptr);
  }
  void place_statistics(Tensor& view, const Shape& shape) {
    take(view, shape, statistics_, memory_ ? &memory_->statistics : nullptr);
  }
  std::int64_t values() const { return values_; }
  std::int64_t statistics() const { return statistics_; }

 private:
  static void take(Tensor& view, const Shape& shape, std::int64_t& used, const Tensor* buffer) {
    if (buffer) view = buffer->range(used, shape);
    used += (element_count(shape) + 15) / 16 * 16;
  }

  const ActivationMemory* memory_;
  std::int64_t values_ = 0, statistics_ = 0;
};

void lay_out(Layout& layout, StageActivations& s, const GptConfig& c, bool head, std::int64_t B,
             std::int64_t T) {
  const std::int64_t C = c.channels;
  for (BlockActivations& a : s.blocks) {
    layout.place(a.input, {B, T, C});
    layout.place(a.norm1, {B, T, C});
    layout.place_statistics(a.mean1, {B * T});
    layout.place_statistics(a.rstd1, {B * T});
    layout.place(a.qkv, {B, T, 3 * C});
    layout.place(a.attention, {B, T, C});
    layout.place_statistics(a.lse, {B, c.heads, T});
    layout.place(a.middle, {B, T, C});
    layout.place(a.norm2, {B, T, C});
    layout.place_statistics(a.mean2, {B * T});
    layout.place_statistics(a.rstd2, {B * T});
    layout.place(a.up, {B, T, c.mlp_width()});
    layout.place(a.gelu, {B, T, c.mlp_width()});
  }
  layout.place(s.output, {B, T, C});
  if (!head) return;
  layout.place(s.final_norm, {B, T, C});
  layout.place_statistics(s.final_mean, {B * T});
  layout.place_statistics(s.final_rstd, {B * T});
  layout.place_statistics(s.losses, {B, T});
}

void lay_out(Layout& layout, StageScratch& s, const GptConfig& c, bool, std::int64_t B, std::int64_t T) {
  layout.place(s.dstream, {B, T, c.channels});
  layout.place(s.dnorm, {B, T, c.channels});
  layout.place(s.dattention, {B, T, c.channels});
  layout.place(s.dqkv, {B, T, 3 * c.channels});
  layout.place(s.dup, {B, T, c.mlp_width()});
}

/// Drops all views and the buffer.
void forget(StageActivations& s) {
  const std::size_t blocks = s.blocks.size();
  s = {};
  s.blocks.resize(blocks);
}
void forget(StageScratch& s) {
  s = {};
}

template <typename Buffers>
void prepare_buffers(Buffers& s, const GptConfig& c, bool head, std::int64_t B, std::int64_t T,
                     const Placement& placement) {
  if (s.batch == B && s.tokens == T) return;
  Layout counting(nullptr);
  lay_out(counting, s, c, head, B, T);
  if (counting.values() > s.memory.values.numel() || counting.statistics() > s.memory.statistics.numel()) {
    forget(s);  // before the new memory is taken: both need not fit at once
    s.memory.values = Tensor({counting.values()}, placement.dtype, placement.device);
    s.memory.statistics = Tensor({counting.statistics()}, DType::f32, placement.device);
  }
  Layout placing(&s.memory);
  lay_out(placing, s, c, head, B, T);
  s.batch = B;
  s.tokens = T;
}

}  // namespace

void GptStage::prepare(StageActivations& saved, std::int64_t batch, std::int64_t tokens) const {
  check(saved.blocks.empty() || saved.blocks.size() == blocks_.size(),
        "activations of {} blocks were given to a stage of {}", saved.blocks.size(), blocks_.size());
  saved.blocks.resize(blocks_.size());
  prepare_buffers(saved, config_, has_head(), batch, tokens, placement_);
}

void GptStage::prepare(StageScratch& scratch, std::int64_t batch, std::int64_t tokens) const {
  prepare_buffers(scratch, config_, has_head(), batch, tokens, placement_);
}

std::int64_t activation_bytes(const GptConfig& config, std::int64_t batch, std::int64_t tokens, DType dtype) {
  StageActivations saved;
  saved.blocks.resize(static_cast<std::size_t>(config.layers));
  StageScratch scratch;
  Layout counting(nullptr);
  lay_out(counting, saved, config, true, batch, tokens);
  lay_out(counting, scratch, config, true, batch, tokens);
  return counting.values() * static_cast<std::int64_t>(size_of(dtype)) +
         counting.statistics() * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace llm
