#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/cli/format.h"
#include "common/cli/svg.h"
#include "common/cli/svg_canvas.h"
#include "common/core/error.h"

namespace llm {

using namespace svg_detail;  // NOLINT(google-build-using-namespace): the drawing vocabulary of this folder

std::string svg(const HeatMap& plot) {
  const std::size_t rows = plot.values.size();
  const std::size_t columns = rows > 0 ? plot.values[0].size() : 0;
  for (const auto& row : plot.values)
    check(row.size() == columns, "a heat map's rows have {} and {} values; they must be equally many",
          columns, row.size());
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const auto& row : plot.values)
    for (const double v : row)
      if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
  low = plot.low.value_or(std::isfinite(low) ? low : 0);
  high = plot.high.value_or(std::isfinite(high) ? high : 1);
  if (!(high > low)) high = low + 1;

  const auto largest = static_cast<double>(std::max<std::size_t>({rows, columns, 1}));
  const double cell = std::clamp(560.0 / largest, 3.0, plot.numbers ? 46.0 : 34.0);
  const double font = std::clamp(cell * 0.62, 6.0, 13.0);
  const bool labels_fit = cell >= 7;
  double row_label_width = 0, column_label_width = 0;
  for (const std::string& label : plot.row_labels)
    row_label_width = std::max(row_label_width, text_width(label, font));
  for (const std::string& label : plot.column_labels)
    column_label_width = std::max(column_label_width, text_width(label, font));
  if (!labels_fit) row_label_width = column_label_width = 0;

  const double left = 22 + (plot.row_title.empty() ? 0 : 22) + row_label_width + 8;
  const double top =
      (plot.title.empty() ? 20 : 50) + (plot.column_title.empty() ? 0 : 22) + column_label_width * 0.71 + 10;
  const double grid_width = cell * static_cast<double>(columns),
               grid_height = cell * static_cast<double>(rows);
  const double scale_height = std::clamp(grid_height, 60.0, 200.0);
  const double overhang = column_label_width * 0.71;  // the last slanted label
  const double scale_left = left + grid_width + std::max(22.0, overhang - cell / 2 + 6);
  const double width = std::max(scale_left + 14 + 52, text_width(plot.title, 16) + 60);
  Canvas canvas(width, top + std::max(grid_height, scale_height + 4) + 22);

  if (!plot.title.empty()) canvas.text(22, 30, plot.title, {.size = 16, .color = kInk, .bold = true});
  if (!plot.column_title.empty())
    canvas.text(left + grid_width / 2, plot.title.empty() ? 24 : 54, plot.column_title,
                {.size = 13, .anchor = "middle"});
  if (!plot.row_title.empty())
    canvas.text(28, top + grid_height / 2, plot.row_title, {.size = 13, .anchor = "middle", .rotate = -90});

  const double gap = cell >= 10 ? 1 : 0;
  const auto name_of = [](const std::vector<std::string>& labels, std::size_t i) {
    return i < labels.size() ? labels[i] : fmt::format("{}", i);
  };
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c) {
      const double v = plot.values[r][c];
      const double x = left + cell * static_cast<double>(c), y = top + cell * static_cast<double>(r);
      if (!std::isfinite(v)) continue;
      const double t = (v - low) / (high - low);
      canvas.rect(
          x, y, cell - gap, cell - gap, shade(t),
          fmt::format("{} → {}: {:.4g}", name_of(plot.row_labels, r), name_of(plot.column_labels, c), v));
      if (plot.numbers && cell >= 22)
        canvas.text(x + cell / 2, y + cell / 2 + 4, fmt::format("{:.2f}", v),
                    {.size = std::min(11.0, cell * 0.32), .anchor = "middle", .color = ink_on(t)});
    }
  if (labels_fit) {
    for (std::size_t r = 0; r < std::min(rows, plot.row_labels.size()); ++r)
      canvas.text(left - 8, top + cell * (static_cast<double>(r) + 0.5) + font * 0.35, plot.row_labels[r],
                  {.size = font, .anchor = "end", .color = kInk});
    for (std::size_t c = 0; c < std::min(columns, plot.column_labels.size()); ++c)
      canvas.text(left + cell * (static_cast<double>(c) + 0.5) + font * 0.2, top - 7, plot.column_labels[c],
                  {.size = font, .color = kInk, .rotate = -45});
  }

  constexpr int kSteps = 40;  // the colour scale
  for (int i = 0; i < kSteps; ++i)
    canvas.rect(scale_left, top + scale_height * i / kSteps, 14, scale_height / kSteps + 0.5,
                shade(1 - (i + 0.5) / kSteps));
  for (const double tick : nice_ticks(low, high, 4)) {
    const double y = top + scale_height * (1 - (tick - low) / (high - low));
    canvas.text(scale_left + 20, y + 4, tick_text(tick, (high - low) / 4), {.size = 11});
  }
  return canvas.finish();
}

}  // namespace llm
