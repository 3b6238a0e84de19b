// `schedule`: a pipeline as it goes by, in a terminal.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ch06_multi_gpu/multi_gpu.h"
#include "common/cli/format.h"
#include "common/cli/metrics.h"
#include "common/core/file.h"
#include "common/parallel/schedule_check.h"

namespace llm::ch06 {

namespace {

/// "F3", "B3", and with chunks "F3b".
std::string pass_name(const Instruction& i, int chunks) {
  std::string name = fmt::format("{}{}", i.kind == Instruction::Kind::forward ? 'F' : 'B', i.micro_batch);
  if (chunks > 1) name += static_cast<char>('a' + i.chunk % 26);
  return name;
}

/// One line per rank, `width` columns per unit of time, cut into blocks that fit into a terminal.
void print_timeline(const PipelineSchedule& schedule, const Timeline& timeline, int columns) {
  const int width =
      static_cast<int>(fmt::to_string(schedule.micro_batches - 1).size()) + 2 + (schedule.chunks > 1);
  std::vector<std::string> lines(
      timeline.ranks.size(),
      std::string(static_cast<std::size_t>(timeline.total) * static_cast<std::size_t>(width), ' '));
  for (std::size_t rank = 0; rank < lines.size(); ++rank)
    for (const TimedInstruction& timed : timeline.ranks[rank]) {
      if (!timed.instruction.computes()) continue;
      const auto from = static_cast<std::size_t>(timed.start) * static_cast<std::size_t>(width);
      const auto to = static_cast<std::size_t>(timed.end) * static_cast<std::size_t>(width);
      std::string cell = pass_name(timed.instruction, schedule.chunks);
      cell.resize(std::max(cell.size(), to - from - 1), '-');
      lines[rank].replace(from, cell.size(), cell);
    }
  const std::size_t label = 6 + fmt::to_string(schedule.ranks - 1).size();
  const std::size_t units = std::max<std::size_t>(
      1, (static_cast<std::size_t>(columns) - label - 2) / static_cast<std::size_t>(width));
  const std::size_t step = units * static_cast<std::size_t>(width);
  for (std::size_t from = 0; from < lines[0].size(); from += step) {
    for (std::size_t rank = 0; rank < lines.size(); ++rank) {
      std::string part = lines[rank].substr(from, step);
      part.erase(part.find_last_not_of(' ') + 1);
      if (part.empty()) continue;  // it is done already
      fmt::print("{} {}\n", pad(fmt::format("rank {}", rank), static_cast<int>(label)), part);
    }
    fmt::print("\n");
  }
}

}  // namespace

void schedule(const ScheduleCommand& command) {
  const PipelineKind kind = parse_pipeline_kind(command.kind);
  const int chunks = command.chunks > 0 ? command.chunks : kind == PipelineKind::interleaved ? 2 : 1;
  const PipelineSchedule made = make_schedule(kind, command.stages, command.micro_batches, chunks);
  check_schedule(made);
  PipelineCosts costs = PipelineCosts::uniform(made.stages(), 1, command.backward);
  const Timeline timeline = simulate(made, costs);
  print_timeline(made, timeline, command.columns);
  if (command.instructions)
    for (std::size_t rank = 0; rank < made.instructions.size(); ++rank) {
      fmt::print("rank {}:\n", rank);
      for (const Instruction& i : made.instructions[rank]) fmt::print("  {}\n", to_string(i));
    }
  const double formula = double(command.stages - 1) / (double(chunks) * command.micro_batches);
  std::vector<double> held;
  for (const int peak : peak_in_flight(made)) held.push_back(double(peak) / chunks);
  fmt::print("Time {} forward passes, of which {} without a bubble\n", timeline.total, timeline.busy[0]);
  fmt::print("Bubble {:.4f}; formula (p-1)/(v m) = {}/{} = {:.4f}\n", timeline.bubble(), command.stages - 1,
             chunks * command.micro_batches, formula);
  fmt::print("Micro-batches held at once, by rank: {:.4g}\n", fmt::join(held, ", "));
  fmt::print("No deadlock, even if every send blocks\n");
  if (!command.metrics.empty()) {
    MetricsWriter metrics(command.metrics);
    for (std::size_t rank = 0; rank < held.size(); ++rank)
      metrics.write({{"kind", "rank"}, {"rank", rank}, {"held", held[rank]}, {"busy", timeline.busy[rank]}});
    metrics.write({{"kind", "schedule"},
                   {"schedule", command.kind},
                   {"stages", command.stages},
                   {"micro_batches", command.micro_batches},
                   {"chunks", chunks},
                   {"total", timeline.total},
                   {"bubble", timeline.bubble()},
                   {"formula", formula}});
  }
  if (!command.svg.empty()) {
    const std::string title =
        fmt::format("{}: {} ranks, {} micro-batches{}", command.kind, command.stages, command.micro_batches,
                    chunks > 1 ? fmt::format(", {} chunks", chunks) : "");
    write_file(command.svg, schedule_svg(made, timeline, title));
    fmt::print("Drawn in {}\n", command.svg.string());
  }
}

}  // namespace llm::ch06
