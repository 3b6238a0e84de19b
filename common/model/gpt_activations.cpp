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

/// The sizes of what one rank keeps. `rows_of` ranks share out the rows of the residual stream.
struct Sizes {
  std::int64_t batch, tokens, rows_of;
  std::int64_t channels, heads, head_channels, mlp;  // C, H / t, C / t, M / t
  bool head, recompute;
  Shape stream() const { return {batch, tokens / rows_of, channels}; }
  std::int64_t rows() const { return batch * tokens / rows_of; }
};

/// All of a block but its input.
void lay_out(Layout& layout, BlockActivations& a, const Sizes& s) {
  const std::int64_t B = s.batch, T = s.tokens;
  layout.place(a.norm1, s.stream());
  layout.place_statistics(a.mean1, {s.rows()});
  layout.place_statistics(a.rstd1, {s.rows()});
  layout.place(a.qkv, {B, T, 3 * s.head_channels});
  layout.place(a.attention, {B, T, s.head_channels});
  layout.place_statistics(a.lse, {B, s.heads, T});
  layout.place(a.middle, s.stream());
  layout.place(a.norm2, s.stream());
  layout.place_statistics(a.mean2, {s.rows()});
  layout.place_statistics(a.rstd2, {s.rows()});
  layout.place(a.up, {B, T, s.mlp});
  layout.place(a.gelu, {B, T, s.mlp});
}

void lay_out(Layout& layout, StageActivations& a, const Sizes& s) {
  for (BlockActivations& block : a.blocks) {
    layout.place(block.input, s.stream());
    if (!s.recompute) lay_out(layout, block, s);
  }
  layout.place(a.output, s.stream());
  if (!s.head) return;
  layout.place(a.final_norm, s.stream());
  layout.place_statistics(a.final_mean, {s.rows()});
  layout.place_statistics(a.final_rstd, {s.rows()});
  layout.place_statistics(a.losses, {s.batch, s.tokens});
}

void lay_out(Layout& layout, StageWorkspace& w, const Sizes& s) {
  if (s.rows_of > 1) layout.place(w.all_rows, {s.batch, s.tokens, s.channels});
  if (s.recompute) lay_out(layout, w.block, s);
}

void lay_out(Layout& layout, StageScratch& d, const Sizes& s) {
  const std::int64_t B = s.batch, T = s.tokens;
  layout.place(d.dstream, s.stream());
  layout.place(d.dnorm, s.stream());
  layout.place(d.dattention, {B, T, s.head_channels});
  layout.place(d.dqkv, {B, T, 3 * s.head_channels});
  layout.place(d.dup, {B, T, s.mlp});
  if (s.rows_of == 1) return;
  layout.place(d.all_rows, {B, T, s.channels});
  layout.place(d.all_norm_rows, {B, T, s.channels});
}

/// Drops all views and the buffer.
void forget(StageActivations& s) {
  StageActivations empty;
  empty.blocks.resize(s.blocks.size());
  empty.workspace = std::move(s.workspace);
  s = std::move(empty);
}
void forget(StageScratch& s) {
  s = {};
}
void forget(StageWorkspace& s) {
  s = {};
}

template <typename Buffers>
void prepare_buffers(Buffers& s, const Sizes& sizes, const Placement& placement) {
  if (s.batch == sizes.batch && s.tokens == sizes.tokens) return;
  Layout counting(nullptr);
  lay_out(counting, s, sizes);
  if (counting.values() > s.memory.values.numel() || counting.statistics() > s.memory.statistics.numel()) {
    forget(s);  // before the new memory is taken: both need not fit at once
    s.memory.values = Tensor({counting.values()}, placement.dtype, placement.device);
    s.memory.statistics = Tensor({counting.statistics()}, DType::f32, placement.device);
  }
  Layout placing(&s.memory);
  lay_out(placing, s, sizes);
  s.batch = sizes.batch;
  s.tokens = sizes.tokens;
}

Sizes sizes_of(const GptConfig& c, std::int64_t B, std::int64_t T, bool head, int ranks,
               const StageOptions& options) {
  return {.batch = B,
          .tokens = T,
          .rows_of = options.sequence_parallel ? ranks : 1,
          .channels = c.channels,
          .heads = c.heads / ranks,
          .head_channels = c.channels / ranks,
          .mlp = c.mlp_width() / ranks,
          .head = head,
          .recompute = options.recompute};
}

}  // namespace

void GptStage::prepare(StageActivations& saved, std::int64_t batch, std::int64_t tokens) const {
  check(saved.blocks.empty() || saved.blocks.size() == blocks_.size(),
        "activations of {} blocks were given to a stage of {}", saved.blocks.size(), blocks_.size());
  saved.blocks.resize(blocks_.size());
  const Sizes sizes = sizes_of(config_, batch, tokens, has_head(), ranks_, options_);
  if (!saved.workspace) saved.workspace = std::make_shared<StageWorkspace>();
  prepare_buffers(*saved.workspace, sizes, placement_);
  prepare_buffers(saved, sizes, placement_);
  if (!options_.recompute) return;
  for (BlockActivations& a : saved.blocks) {
    const Tensor input = a.input;
    a = saved.workspace->block;
    a.input = input;
  }
}

void GptStage::prepare(StageScratch& scratch, std::int64_t batch, std::int64_t tokens) const {
  prepare_buffers(scratch, sizes_of(config_, batch, tokens, has_head(), ranks_, options_), placement_);
}

std::int64_t activation_bytes(const GptConfig& config, std::int64_t batch, std::int64_t tokens, DType dtype) {
  StageActivations saved;
  saved.blocks.resize(static_cast<std::size_t>(config.layers));
  StageScratch scratch;
  Layout counting(nullptr);
  const Sizes sizes = sizes_of(config, batch, tokens, true, 1, {});
  lay_out(counting, saved, sizes);
  lay_out(counting, scratch, sizes);
  return counting.values() * static_cast<std::int64_t>(size_of(dtype)) +
         counting.statistics() * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace llm
