// What the pictures of svg.h are drawn with: a white card, text, axes. Internal to common/cli.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/cli/svg.h"

namespace llm::svg_detail {

inline constexpr std::string_view kInk = "#1f2937";    // titles
inline constexpr std::string_view kLabel = "#4b5563";  // labels and ticks
inline constexpr std::string_view kGrid = "#e5e7eb";
inline constexpr std::string_view kAxis = "#9ca3af";
inline constexpr std::string_view kAccent = "#b91c1c";  // reference lines

/// The colour of series `i`; told apart also by people who see few colours (Okabe and Ito's order, darker).
std::string_view series_color(std::size_t i);
/// A colour from nearly white over blue to nearly black for t from 0 to 1.
std::string shade(double t);
/// White or black, whichever is readable on shade(t).
std::string_view ink_on(double t);

/// About how many pixels a text takes at a font size.
double text_width(std::string_view text, double size);

/// A number on an axis: 0.25, 1500 -> "1.5k", 1e-05. `step` is the distance of the ticks.
std::string tick_text(double value, double step);

struct TextStyle {
  double size = 12;
  std::string_view anchor = "start";  // start, middle, end
  std::string_view color = kLabel;
  bool bold = false;
  double rotate = 0;  // degrees, around the position
  bool halo = false;  // a white rim, over lines
};

class Canvas {
 public:
  Canvas(double width, double height);
  void rect(double x, double y, double w, double h, std::string_view fill, std::string_view tooltip = "");
  void line(double x1, double y1, double x2, double y2, std::string_view color, double width = 1,
            std::string_view dashes = "");
  void polyline(const std::vector<std::pair<double, double>>& points, std::string_view color, double width,
                double opacity = 1);
  void dot(double x, double y, double radius, std::string_view color);
  void text(double x, double y, std::string_view content, const TextStyle& style = {});
  /// The finished file. The drawing can go on to be larger than planned: see `resize`.
  std::string finish() const;
  void resize(double width, double height) { width_ = width, height_ = height; }

 private:
  double width_, height_;
  std::string body_;
};

/// A linear or logarithmic axis: data values to pixels, and its ticks.
struct Axis {
  double low = 0, high = 1;  // data
  double from = 0, to = 1;   // pixels
  bool log = false;
  std::vector<double> ticks;
  double step = 1;

  /// The axis that shows low..high with some `count` ticks. An empty or degenerate range is widened.
  static Axis make(double low, double high, bool log, int count, double from, double to);
  bool shows(double value) const;
  double pixel(double value) const;
  std::string label(double tick) const;
};

/// The smallest and the largest of finite numbers (positive ones only, for a logarithmic axis).
struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void include(double value, bool log = false);
};

/// How many of a histogram's values fall into each bin of [low, high].
struct Counts {
  double low = 0, high = 1;
  std::vector<double> counts;
};
Counts count(const Histogram& plot);

}  // namespace llm::svg_detail
