#include "common/cli/text_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "common/cli/format.h"
#include "common/cli/svg_canvas.h"
#include "common/core/error.h"

namespace llm {
namespace {

// A bar in steps of an eighth of a column.
std::string bar(double share, int width) {
  static constexpr std::array<const char*, 8> kEighths = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int eighths =
      std::isfinite(share) ? static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * width * 8)) : 0;
  std::string text;
  for (int i = 0; i < eighths / 8; ++i) text += "█";
  return text + kEighths[static_cast<std::size_t>(eighths % 8)];
}

std::string number_text(double v) {
  if (v == std::floor(v) && std::abs(v) < 1e15) return with_commas(static_cast<std::int64_t>(v));
  return fmt::format("{:.4g}", v);
}

}  // namespace

std::string text_plot(const BarChart& plot, int bar_width) {
  const std::size_t n = std::min(plot.labels.size(), plot.values.size());
  int label_width = 0;
  double most = 0;
  for (std::size_t i = 0; i < n; ++i) {
    label_width = std::max(label_width, display_width(plot.labels[i]));
    if (std::isfinite(plot.values[i])) most = std::max(most, plot.values[i]);
  }
  std::string out = plot.title.empty() ? "" : plot.title + "\n";
  for (std::size_t i = 0; i < n; ++i)
    out += fmt::format("{}  {} {}\n", pad(plot.labels[i], label_width, true),
                       bar(most > 0 ? plot.values[i] / most : 0, bar_width), number_text(plot.values[i]));
  return out;
}

std::string text_plot(const Histogram& plot, int bar_width) {
  const svg_detail::Counts data = svg_detail::count(plot);
  BarChart chart{.title = plot.title, .labels = {}, .values = data.counts};
  const double width = (data.high - data.low) / static_cast<double>(data.counts.size());
  for (std::size_t i = 0; i < data.counts.size(); ++i)
    chart.labels.push_back(svg_detail::tick_text(data.low + width * static_cast<double>(i), width) + " …");
  return text_plot(chart, bar_width);
}

std::string text_plot(const HeatMap& plot) {
  static constexpr std::array<const char*, 5> kShades = {"· ", "░░", "▒▒", "▓▓", "██"};
  const std::size_t rows = plot.values.size();
  const std::size_t columns = rows > 0 ? plot.values[0].size() : 0;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const auto& row : plot.values)
    for (const double v : row)
      if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
  low = plot.low.value_or(std::isfinite(low) ? low : 0);
  high = plot.high.value_or(std::isfinite(high) ? high : 1);
  if (!(high > low)) high = low + 1;

  const auto visible = [](const std::string& label) {
    std::string text;
    for (const char c : label)
      if (c == '\n')
        text += "↵";
      else
        text += c;
    return text;
  };
  int label_width = 0;
  for (const std::string& label : plot.row_labels)
    label_width = std::max(label_width, display_width(visible(label)));
  label_width = std::min(label_width, 24);
  std::string out = plot.title.empty() ? "" : plot.title + "\n";
  for (std::size_t r = 0; r < rows; ++r) {
    const std::string label =
        r < plot.row_labels.size() ? shorten(visible(plot.row_labels[r]), label_width) : "";
    std::string line = pad(label, label_width, true) + "  ";
    check(plot.values[r].size() == columns,
          "a heat map's rows have {} and {} values; they must be equally many", columns,
          plot.values[r].size());
    for (const double v : plot.values[r]) {
      if (!std::isfinite(v)) {
        line += "  ";
        continue;
      }
      const double t = std::clamp((v - low) / (high - low), 0.0, 1.0);
      line += kShades[std::min<std::size_t>(static_cast<std::size_t>(t * 5), 4)];
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    out += line + "\n";
  }
  // Column labels, written downwards, if they are short; two columns of the terminal each.
  int tallest = 0;
  for (const std::string& label : plot.column_labels)
    tallest = std::max(tallest, display_width(visible(label)));
  tallest = std::min(tallest, 8);
  for (int line = 0; line < tallest && !plot.column_labels.empty(); ++line) {
    std::string text(static_cast<std::size_t>(label_width) + 2, ' ');
    for (std::size_t c = 0; c < std::min(columns, plot.column_labels.size()); ++c) {
      const std::string label = visible(plot.column_labels[c]);
      std::size_t at = 0;
      std::string letter;
      for (int i = 0; i <= line && at < label.size(); ++i) {  // the line-th character, however many bytes
        std::size_t end = at + 1;
        while (end < label.size() && (static_cast<unsigned char>(label[end]) & 0xc0u) == 0x80u) ++end;
        letter = i == line ? label.substr(at, end - at) : "";
        at = end;
      }
      text += pad(letter, 2);
    }
    while (!text.empty() && text.back() == ' ') text.pop_back();
    out += text + "\n";
  }
  return out + fmt::format("{}  {:.3g} ·  ░░ ▒▒ ▓▓ ██ {:.3g}\n",
                           std::string(static_cast<std::size_t>(label_width), ' '), low, high);
}

std::string text_plot(const LinePlot& plot, int columns, int rows) {
  columns = std::clamp(columns, 10, 400);
  rows = std::clamp(rows, 3, 200);
  double x_low = std::numeric_limits<double>::infinity(), x_high = -x_low, y_low = x_low, y_high = -x_low;
  const auto use_x = [&](double v) { return std::isfinite(v) && (!plot.log_x || v > 0); };
  const auto use_y = [&](double v) { return std::isfinite(v) && (!plot.log_y || v > 0); };
  for (const Series& series : plot.series)
    for (std::size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i)
      if (use_x(series.x[i]) && use_y(series.y[i])) {
        x_low = std::min(x_low, series.x[i]), x_high = std::max(x_high, series.x[i]);
        y_low = std::min(y_low, series.y[i]), y_high = std::max(y_high, series.y[i]);
      }
  for (const ReferenceLine& line : plot.references)
    if (use_y(line.y)) y_low = std::min(y_low, line.y), y_high = std::max(y_high, line.y);
  y_low = plot.y_low.value_or(y_low), y_high = plot.y_high.value_or(y_high);
  const auto x = svg_detail::Axis::make(x_low, x_high, plot.log_x, 5, 0, columns * 2 - 1);
  const auto y = svg_detail::Axis::make(y_low, y_high, plot.log_y, 4, rows * 4 - 1, 0);

  // Braille: bit of dot (column 0..1, row 0..3) of a character.
  static constexpr std::array<std::array<unsigned, 4>, 2> kDots = {
      {{0x01, 0x02, 0x04, 0x40}, {0x08, 0x10, 0x20, 0x80}}};
  std::vector<unsigned> cells(static_cast<std::size_t>(columns) * static_cast<std::size_t>(rows), 0);
  const auto set = [&](double px, double py) {
    const auto cx = static_cast<int>(std::lround(px)), cy = static_cast<int>(std::lround(py));
    if (cx < 0 || cy < 0 || cx >= columns * 2 || cy >= rows * 4) return;
    cells[static_cast<std::size_t>(cy / 4 * columns + cx / 2)] |=
        kDots[static_cast<std::size_t>(cx % 2)][static_cast<std::size_t>(cy % 4)];
  };
  for (const Series& series : plot.series) {
    bool connected = false;
    double last_x = 0, last_y = 0;
    for (std::size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i) {
      if (!use_x(series.x[i]) || !use_y(series.y[i])) {
        connected = false;
        continue;
      }
      const double px = x.pixel(series.x[i]), py = y.pixel(series.y[i]);
      const int steps =
          connected ? static_cast<int>(std::max(std::abs(px - last_x), std::abs(py - last_y))) + 1 : 1;
      for (int s = 1; s <= steps; ++s) {
        const double f = connected ? static_cast<double>(s) / steps : 1;
        set(last_x + (px - last_x) * f, last_y + (py - last_y) * f);
        if (!connected) set(px, py);
      }
      last_x = px, last_y = py, connected = true;
    }
  }
  for (const ReferenceLine& line : plot.references)
    if (use_y(line.y))
      for (int px = 0; px < columns * 2; px += 4) set(px, y.pixel(line.y));

  std::vector<std::string> margin(static_cast<std::size_t>(rows));
  for (const double tick : y.ticks) {
    const auto row = static_cast<int>(std::lround(y.pixel(tick))) / 4;
    if (row >= 0 && row < rows) margin[static_cast<std::size_t>(row)] = y.label(tick);
  }
  int margin_width = 0;
  for (const std::string& label : margin) margin_width = std::max(margin_width, display_width(label));
  std::string out = plot.title.empty() ? "" : plot.title + "\n";
  for (int r = 0; r < rows; ++r) {
    const std::string& label = margin[static_cast<std::size_t>(r)];
    std::string line = pad(label, margin_width, true) + (label.empty() ? " │" : " ┤");
    for (int c = 0; c < columns; ++c) {
      const unsigned dots = cells[static_cast<std::size_t>(r * columns + c)];
      const unsigned code = 0x2800 + dots;
      if (dots == 0)
        line += " ";
      else
        line += {static_cast<char>(0xe0 | (code >> 12)), static_cast<char>(0x80 | ((code >> 6) & 0x3f)),
                 static_cast<char>(0x80 | (code & 0x3f))};
    }
    while (line.back() == ' ') line.pop_back();
    for (const ReferenceLine& reference : plot.references)
      if (use_y(reference.y) && static_cast<int>(std::lround(y.pixel(reference.y))) / 4 == r)
        line += "  " + reference.label;
    out += line + "\n";
  }
  out += std::string(static_cast<std::size_t>(margin_width), ' ') + " └";
  for (int c = 0; c < columns; ++c) out += "─";
  const std::string left = x.label(x.low), right = svg_detail::tick_text(x.high, (x.high - x.low) / 5);
  const std::string middle = plot.x_label;
  const int room = columns - display_width(left) - display_width(right) - display_width(middle);
  out += "\n" + std::string(static_cast<std::size_t>(margin_width) + 2, ' ') +
         svg_detail::tick_text(x.low, (x.high - x.low) / 5) +
         std::string(static_cast<std::size_t>(std::max(1, room / 2)), ' ') + middle +
         std::string(static_cast<std::size_t>(std::max(1, room - room / 2)), ' ') + right + "\n";
  return out;
}

std::string sparkline(const std::vector<double>& values) {
  static constexpr std::array<const char*, 8> kLevels = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double v : values)
    if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
  std::string out;
  for (const double v : values) {
    if (!std::isfinite(v))
      out += " ";
    else
      out += kLevels[high > low
                         ? std::min<std::size_t>(static_cast<std::size_t>((v - low) / (high - low) * 8), 7)
                         : 3];
  }
  return out;
}

}  // namespace llm
