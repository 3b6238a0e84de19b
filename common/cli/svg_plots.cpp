// Line plots, histograms and bar charts.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/cli/format.h"
#include "common/cli/svg.h"
#include "common/cli/svg_canvas.h"

namespace llm {
namespace {

using namespace svg_detail;  // NOLINT(google-build-using-namespace): the drawing vocabulary of this folder

// The area inside of the axes.
struct Frame {
  double left = 0, top = 0, right = 0, bottom = 0;
};

// Title, axis names, grid and tick labels; leaves the frame to draw the data in. `make_x` and `make_y` build
// the axes once the margins are known (the width of the tick labels decides the left one).
template <typename MakeX, typename MakeY>
Frame draw_frame(Canvas& canvas, double width, double height, double top, const std::string& title,
                 const std::string& x_label, const std::string& y_label, MakeX make_x, MakeY make_y, Axis& x,
                 Axis& y) {
  Frame frame{0, top, width - 26, height - (x_label.empty() ? 36 : 56)};
  y = make_y(frame.bottom, frame.top);
  double widest = 0;
  for (const double tick : y.ticks) widest = std::max(widest, text_width(y.label(tick), 12));
  frame.left = (y_label.empty() ? 18 : 42) + widest + 8;
  x = make_x(frame.left, frame.right);

  if (!title.empty()) canvas.text(frame.left, 30, title, {.size = 16, .color = kInk, .bold = true});
  for (const double tick : y.ticks) {
    const double at = y.pixel(tick);
    canvas.line(frame.left, at, frame.right, at, kGrid);
    canvas.text(frame.left - 8, at + 4, y.label(tick), {.anchor = "end"});
  }
  for (const double tick : x.ticks) {
    const double at = x.pixel(tick);
    canvas.line(at, frame.bottom, at, frame.bottom + 5, kAxis);
    canvas.text(at, frame.bottom + 20, x.label(tick), {.anchor = "middle"});
  }
  canvas.line(frame.left, frame.bottom, frame.right, frame.bottom, kAxis);
  if (!x_label.empty())
    canvas.text((frame.left + frame.right) / 2, height - 14, x_label, {.size = 13, .anchor = "middle"});
  if (!y_label.empty())
    canvas.text(24, (frame.top + frame.bottom) / 2, y_label, {.size = 13, .anchor = "middle", .rotate = -90});
  return frame;
}

// Swatches and names in rows below the title. Returns the height they take; draws only if `canvas` is given.
double legend(Canvas* canvas, const LinePlot& plot, double left, double top, double right) {
  double x = left, y = top;
  bool any = false;
  for (std::size_t i = 0; i < plot.series.size(); ++i) {
    const Series& series = plot.series[i];
    if (series.label.empty()) continue;
    const double wide = 30 + text_width(series.label, 12.5) + 18;
    if (any && x + wide > right) x = left, y += 20;
    if (canvas) {
      canvas->polyline({{x, y - 4}, {x + 22, y - 4}}, series_color(i), series.faint ? 1.5 : 3,
                       series.faint ? 0.45 : 1);
      if (series.points) canvas->dot(x + 11, y - 4, 3.5, series_color(i));
      canvas->text(x + 30, y, series.label, {.size = 12.5, .color = kInk});
    }
    x += wide;
    any = true;
  }
  return any ? y - top + 20 : 0;
}

// At most this many points per curve: more than pixels cannot be seen. Each bucket keeps its extremes.
constexpr std::size_t kMaxPoints = 3000;

void draw_curve(Canvas& canvas, const Series& series, std::size_t index, const Axis& x, const Axis& y) {
  const std::size_t n = std::min(series.x.size(), series.y.size());
  std::vector<std::size_t> kept;
  if (n <= kMaxPoints) {
    for (std::size_t i = 0; i < n; ++i) kept.push_back(i);
  } else {
    const std::size_t buckets = kMaxPoints / 2;
    for (std::size_t b = 0; b < buckets; ++b) {
      const std::size_t begin = b * n / buckets, end = (b + 1) * n / buckets;
      std::size_t low = begin, high = begin;
      for (std::size_t i = begin; i < end; ++i) {
        if (series.y[i] < series.y[low]) low = i;
        if (series.y[i] > series.y[high]) high = i;
      }
      kept.push_back(std::min(low, high));
      if (low != high) kept.push_back(std::max(low, high));
    }
  }
  const std::string_view color = series_color(index);
  std::vector<std::pair<double, double>> piece;
  const auto draw_piece = [&] {
    if (piece.size() == 1) canvas.dot(piece[0].first, piece[0].second, 2.5, color);
    if (piece.size() > 1) canvas.polyline(piece, color, series.faint ? 1 : 2.2, series.faint ? 0.35 : 1);
    piece.clear();
  };
  for (const std::size_t i : kept) {
    if (x.shows(series.x[i]) && y.shows(series.y[i]))
      piece.emplace_back(x.pixel(series.x[i]), std::clamp(y.pixel(series.y[i]), y.to - 2, y.from + 2));
    else
      draw_piece();
  }
  draw_piece();
  if (series.points)
    for (const std::size_t i : kept)
      if (x.shows(series.x[i]) && y.shows(series.y[i]))
        canvas.dot(x.pixel(series.x[i]), y.pixel(series.y[i]), 3.5, color);
}

}  // namespace

std::string svg(const LinePlot& plot) {
  Range xs, ys;
  for (const Series& series : plot.series) {
    for (const double v : series.x) xs.include(v, plot.log_x);
    for (const double v : series.y) ys.include(v, plot.log_y);
  }
  for (const ReferenceLine& line : plot.references) ys.include(line.y, plot.log_y);
  if (ys.high >
      ys.low) {  // a little air above and below, so much that a name fits below the lowest reference line
    const double share = plot.references.empty() ? 0.05 : 0.09;
    const double below = plot.log_y ? std::pow(ys.high / ys.low, share) : (ys.high - ys.low) * share;
    const double above = plot.log_y ? std::pow(ys.high / ys.low, 0.05) : (ys.high - ys.low) * 0.05;
    const bool from_zero = !plot.log_y && plot.references.empty() && ys.low >= 0 && ys.low - below < 0;
    ys.low = from_zero ? 0 : plot.log_y ? ys.low / below : ys.low - below;
    ys.high = plot.log_y ? ys.high * above : ys.high + above;
  }
  if (plot.y_low) ys.low = *plot.y_low;
  if (plot.y_high) ys.high = *plot.y_high;

  Canvas canvas(plot.width, plot.height);
  const double below_title = plot.title.empty() ? 30 : 54;
  const double legend_height = legend(nullptr, plot, 70, below_title, plot.width - 26);
  Axis x, y;
  const Frame frame = draw_frame(
      canvas, plot.width, plot.height, below_title - 8 + legend_height, plot.title, plot.x_label,
      plot.y_label,
      [&](double from, double to) {
        return Axis::make(xs.low, xs.high, plot.log_x, plot.width / 95, from, to);
      },
      [&](double from, double to) {
        return Axis::make(ys.low, ys.high, plot.log_y, plot.height / 65, from, to);
      },
      x, y);
  legend(&canvas, plot, frame.left, below_title, plot.width - 26);
  // Pale curves first, so that none hides a strong one.
  for (const bool faint : {true, false})
    for (std::size_t i = 0; i < plot.series.size(); ++i)
      if (plot.series[i].faint == faint) draw_curve(canvas, plot.series[i], i, x, y);
  for (const ReferenceLine& line : plot.references) {
    if (!y.shows(line.y)) continue;
    const double at = y.pixel(line.y);
    if (at < frame.top - 1 || at > frame.bottom + 1) continue;
    canvas.line(frame.left, at, frame.right, at, kAccent, 1.5, "6 4");
    // Below the line if a curve could come down to it from above, unless the axis is there.
    const double text_at = frame.bottom - at > 17 ? at + 15 : at - 6;
    canvas.text(frame.right - 4, text_at, line.label, {.anchor = "end", .color = kAccent, .halo = true});
  }
  return canvas.finish();
}

std::string svg(const Histogram& plot) {
  const Counts data = count(plot);
  const double most = std::max(1.0, *std::max_element(data.counts.begin(), data.counts.end()));
  Canvas canvas(plot.width, plot.height);
  Axis x, y;
  draw_frame(
      canvas, plot.width, plot.height, plot.title.empty() ? 24 : 50, plot.title, plot.x_label, plot.y_label,
      [&](double from, double to) {
        return Axis::make(data.low, data.high, false, plot.width / 95, from, to);
      },
      [&](double from, double to) {
        return plot.log_y ? Axis::make(0.5, most * 1.5, true, plot.height / 65, from, to)
                          : Axis::make(0, most * 1.05, false, plot.height / 65, from, to);
      },
      x, y);
  const auto bins = static_cast<double>(data.counts.size());
  for (std::size_t i = 0; i < data.counts.size(); ++i) {
    if (data.counts[i] == 0) continue;
    const double begin = data.low + (data.high - data.low) * static_cast<double>(i) / bins;
    const double end = data.low + (data.high - data.low) * static_cast<double>(i + 1) / bins;
    const double left = x.pixel(begin), right = x.pixel(end), top = y.pixel(data.counts[i]);
    const double gap = right - left > 4 ? 1 : 0;
    canvas.rect(left, top, right - left - gap, y.from - top, series_color(0),
                fmt::format("{:.4g} to {:.4g}: {}", begin, end,
                            with_commas(static_cast<std::int64_t>(data.counts[i]))));
  }
  return canvas.finish();
}

std::string svg(const BarChart& plot) {
  const std::size_t n = std::min(plot.labels.size(), plot.values.size());
  constexpr double kRow = 24;
  double most = 0, label_width = 0, value_width = 0;
  std::vector<std::string> numbers;
  for (std::size_t i = 0; i < n; ++i) {
    const double v = plot.values[i];
    most = std::isfinite(v) ? std::max(most, v) : most;
    label_width = std::max(label_width, text_width(plot.labels[i], 12.5));
    numbers.push_back(v == std::floor(v) && std::abs(v) < 1e15 ? with_commas(static_cast<std::int64_t>(v))
                                                               : fmt::format("{:.4g}", v));
    value_width = std::max(value_width, text_width(numbers.back(), 12));
  }
  label_width = std::min(label_width, plot.width * 0.45);
  const double top = plot.title.empty() ? 18 : 48;
  const double left = 20 + label_width + 10, right = plot.width - 24 - value_width - 8;
  Canvas canvas(plot.width, top + kRow * static_cast<double>(n) + (plot.x_label.empty() ? 16 : 40));
  if (!plot.title.empty()) canvas.text(20, 30, plot.title, {.size = 16, .color = kInk, .bold = true});
  for (std::size_t i = 0; i < n; ++i) {
    const double y = top + kRow * static_cast<double>(i);
    const double share = most > 0 && std::isfinite(plot.values[i]) ? std::max(0.0, plot.values[i] / most) : 0;
    const std::string label = shorten(plot.labels[i], static_cast<int>(label_width / (0.56 * 12.5)) + 1);
    canvas.text(left - 10, y + 16, label, {.size = 12.5, .anchor = "end", .color = kInk});
    canvas.rect(left, y + 3, std::max(share * (right - left), 1.0), kRow - 6, series_color(0));
    canvas.text(left + share * (right - left) + 8, y + 16, numbers[i], {});
  }
  if (!plot.x_label.empty())
    canvas.text((left + right) / 2, top + kRow * static_cast<double>(n) + 22, plot.x_label,
                {.size = 13, .anchor = "middle"});
  return canvas.finish();
}

}  // namespace llm
