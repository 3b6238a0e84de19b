// The picture of a schedule: a line of boxes per rank, time from left to right.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "ch06_multi_gpu/multi_gpu.h"
#include "common/cli/svg_canvas.h"

namespace llm::ch06 {

namespace {

/// Forward passes are blue, backward passes green; later chunks are paler.
std::string_view colour(const Instruction& i) {
  static constexpr std::array<std::string_view, 4> kForward = {"#2563eb", "#60a5fa", "#93c5fd", "#bfdbfe"};
  static constexpr std::array<std::string_view, 4> kBackward = {"#15803d", "#4ade80", "#86efac", "#bbf7d0"};
  const auto chunk = static_cast<std::size_t>(std::min(i.chunk, 3));
  return i.kind == Instruction::Kind::forward ? kForward[chunk] : kBackward[chunk];
}

}  // namespace

std::string schedule_svg(const PipelineSchedule& schedule, const Timeline& timeline,
                         const std::string& title) {
  using namespace svg_detail;
  const double row = 30, left = 70, top = 48,
               width = std::clamp(
                   timeline.total / timeline.busy[0] * 26 * 2 * schedule.micro_batches * schedule.chunks,
                   600.0, 1500.0);
  const double bottom = top + row * schedule.ranks;
  Canvas canvas(left + width + 20, bottom + 40);
  canvas.text(left, 24, title, {.size = 14, .color = kInk, .bold = true});
  const double scale = width / timeline.total;
  for (std::size_t rank = 0; rank < timeline.ranks.size(); ++rank) {
    const double y = top + row * static_cast<double>(rank);
    canvas.text(left - 8, y + 18, fmt::format("rank {}", rank), {.anchor = "end"});
    canvas.rect(left, y + 2, width, row - 4, kGrid);
    for (const TimedInstruction& timed : timeline.ranks[rank]) {
      const Instruction& i = timed.instruction;
      if (!i.computes()) continue;
      const double x = left + timed.start * scale, w = (timed.end - timed.start) * scale;
      canvas.rect(x + 0.5, y + 2, std::max(0.5, w - 1), row - 4, colour(i), to_string(i));
      const std::string name = fmt::to_string(i.micro_batch);
      if (text_width(name, 11) < w - 2)
        canvas.text(x + w / 2, y + 19, name,
                    {.size = 11, .anchor = "middle", .color = i.chunk == 0 ? "#ffffff" : kInk});
    }
  }
  canvas.rect(left, bottom + 14, 12, 12, "#2563eb");
  canvas.text(left + 18, bottom + 24, "forward");
  canvas.rect(left + 80, bottom + 14, 12, 12, "#15803d");
  canvas.text(left + 98, bottom + 24,
              schedule.chunks > 1 ? "backward; paler: the rank's other chunks" : "backward");
  canvas.text(left + width, bottom + 24, fmt::format("bubble {:.1f}% of the work", 100 * timeline.bubble()),
              {.anchor = "end"});
  return canvas.finish();
}

}  // namespace llm::ch06
