#include "common/cli/svg_canvas.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "common/cli/format.h"
#include "common/cli/svg.h"

namespace llm {

std::string escape_xml(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    switch (c) {
      case '&':
        out += "&amp;";
        continue;
      case '<':
        out += "&lt;";
        continue;
      case '>':
        out += "&gt;";
        continue;
      case '"':
        out += "&quot;";
        continue;
      case '\'':
        out += "&#39;";
        continue;
      case '\n':
        out += "↵";
        continue;
      case '\t':
        out += "→";
        continue;
      default:
        break;
    }
    if (c < 0x20 || c == 0x7f) {
      out += "·";
    } else if (c < 0x80) {
      out += static_cast<char>(c);
    } else {
      const std::size_t length = c >= 0xf0 && c < 0xf5 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 1;
      bool whole = length > 1 && c < 0xf5 && i + length <= text.size();
      for (std::size_t j = 1; whole && j < length; ++j)
        whole = (static_cast<unsigned char>(text[i + j]) & 0xc0u) == 0x80u;
      // XML takes neither surrogates (ED A0..BF) nor overlong forms.
      if (whole && ((c == 0xe0 && static_cast<unsigned char>(text[i + 1]) < 0xa0) ||
                    (c == 0xed && static_cast<unsigned char>(text[i + 1]) > 0x9f) ||
                    (c == 0xf0 && static_cast<unsigned char>(text[i + 1]) < 0x90) ||
                    (c == 0xf4 && static_cast<unsigned char>(text[i + 1]) > 0x8f) ||
                    (c == 0xef && text.substr(i + 1, 2) >= "\xbf\xbe")))
        whole = false;
      if (whole) {
        out += text.substr(i, length);
        i += length - 1;
      } else {
        out += "\xef\xbf\xbd";  // the replacement character
      }
    }
  }
  return out;
}

std::vector<double> nice_ticks(double low, double high, int count) {
  if (!std::isfinite(low) || !std::isfinite(high) || !(high > low) || count < 1) return {low};
  const double rough = (high - low) / count;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double candidate : {1.0, 2.0, 2.5, 5.0})
    if (candidate * power >= rough * 0.999) {
      step = candidate * power;
      break;
    }
  std::vector<double> ticks;
  const double first = std::ceil(low / step - 1e-9);
  for (double i = first; i * step <= high + step * 1e-9 && ticks.size() < 100; ++i) ticks.push_back(i * step);
  return ticks;
}

namespace svg_detail {

std::string_view series_color(std::size_t i) {
  static constexpr std::array<std::string_view, 7> kColors = {"#0b62b0", "#d55e00", "#00825a", "#a8488a",
                                                              "#c98a00", "#2f9fd8", "#555555"};
  return kColors[i % kColors.size()];
}

std::string shade(double t) {
  static constexpr std::array<std::array<double, 3>, 5> kStops = {
      {{247, 250, 253}, {190, 215, 238}, {93, 159, 208}, {21, 91, 165}, {6, 33, 78}}};
  const double at = std::clamp(t, 0.0, 1.0) * 4;
  const auto i = std::min<std::size_t>(static_cast<std::size_t>(at), 3);
  const double f = at - static_cast<double>(i);
  const auto mix = [&](std::size_t c) {
    return static_cast<int>(std::lround(kStops[i][c] * (1 - f) + kStops[i + 1][c] * f));
  };
  return fmt::format("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2));
}

std::string_view ink_on(double t) {
  return t > 0.45 ? "#ffffff" : kInk;
}

double text_width(std::string_view text, double size) {
  return 0.56 * size * display_width(text);
}

std::string tick_text(double value, double step) {
  if (std::abs(value) < step * 1e-6) return "0";
  const double magnitude = std::max(std::abs(value), step);
  if (magnitude < 1e-3 || magnitude >= 1e12) return fmt::format("{:.3g}", value);
  for (const auto& [size, letter] : {std::pair{1e9, "G"}, {1e6, "M"}, {1e4, "k"}})
    if (magnitude >= size) {
      const double unit = size == 1e4 ? 1e3 : size;
      const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step / unit) - 1e-9)), 0, 3);
      return fmt::format("{:.{}f}{}", value / unit, decimals, letter);
    }
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 6);
  std::string text = fmt::format("{:.{}f}", value, decimals);
  // Steps of 2.5 need one digit more.
  if (std::abs(std::strtod(text.c_str(), nullptr) - value) > step * 1e-3)
    text = fmt::format("{:.{}f}", value, decimals + 1);
  return text;
}

Canvas::Canvas(double width, double height) : width_(width), height_(height) {}

void Canvas::rect(double x, double y, double w, double h, std::string_view fill, std::string_view tooltip) {
  body_ += fmt::format(R"(<rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}" fill="{}")", x, y, w, h,
                       fill);
  body_ += tooltip.empty() ? "/>\n" : fmt::format("><title>{}</title></rect>\n", escape_xml(tooltip));
}

void Canvas::line(double x1, double y1, double x2, double y2, std::string_view color, double width,
                  std::string_view dashes) {
  body_ +=
      fmt::format(R"(<line x1="{:.2f}" y1="{:.2f}" x2="{:.2f}" y2="{:.2f}" stroke="{}" stroke-width="{}")",
                  x1, y1, x2, y2, color, width);
  if (!dashes.empty()) body_ += fmt::format(R"( stroke-dasharray="{}")", dashes);
  body_ += "/>\n";
}

void Canvas::polyline(const std::vector<std::pair<double, double>>& points, std::string_view color,
                      double width, double opacity) {
  body_ += R"(<polyline fill="none" stroke-linejoin="round" stroke-linecap="round")";
  body_ +=
      fmt::format(R"( stroke="{}" stroke-width="{}" stroke-opacity="{}" points=")", color, width, opacity);
  for (const auto& [x, y] : points) body_ += fmt::format("{:.1f},{:.1f} ", x, y);
  body_ += "\"/>\n";
}

void Canvas::dot(double x, double y, double radius, std::string_view color) {
  body_ += fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="{}" fill="{}"/>)", x, y, radius, color) + "\n";
}

void Canvas::text(double x, double y, std::string_view content, const TextStyle& style) {
  body_ += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" font-size="{}" fill="{}" text-anchor="{}")", x, y,
                       style.size, style.color, style.anchor);
  if (style.bold) body_ += R"( font-weight="600")";
  if (style.rotate != 0)
    body_ += fmt::format(R"x( transform="rotate({} {:.1f} {:.1f})")x", style.rotate, x, y);
  if (style.halo)
    body_ += R"( stroke="#ffffff" stroke-width="4" stroke-linejoin="round" paint-order="stroke")";
  body_ += fmt::format(R"( xml:space="preserve">{}</text>)", escape_xml(content)) + "\n";
}

std::string Canvas::finish() const {
  return fmt::format(
             R"(<svg xmlns="http://www.w3.org/2000/svg" width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}" font-family="Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif">
<rect x="0.5" y="0.5" width="{2:.0f}" height="{3:.0f}" rx="8" fill="#ffffff" stroke="#d1d5db"/>
)",
             width_, height_, width_ - 1, height_ - 1) +
         body_ + "</svg>\n";
}

Axis Axis::make(double low, double high, bool log, int count, double from, double to) {
  Axis axis;
  axis.from = from, axis.to = to, axis.log = log;
  if (!std::isfinite(low) || !std::isfinite(high) || (log && !(low > 0)) || high < low) {
    low = log ? 1 : 0;
    high = log ? 10 : 1;
  }
  if (high == low) {
    const double around = log ? 0 : std::max(std::abs(low) * 0.1, 0.5);
    low = log ? low / 2 : low - around;
    high = log ? high * 2 : high + around;
  }
  axis.low = low, axis.high = high;
  if (!log) {
    axis.ticks = nice_ticks(low, high, count);
    axis.step = axis.ticks.size() > 1 ? axis.ticks[1] - axis.ticks[0] : high - low;
    return axis;
  }
  // Powers of ten, with 2 and 5 between where few powers are in sight.
  const double decades = std::log10(high / low);
  const auto every = std::max(1, static_cast<int>(std::ceil(decades / count)));
  for (double e = std::floor(std::log10(low)); e <= std::ceil(std::log10(high)) && axis.ticks.size() < 100;
       e += every)
    for (const double m : {1.0, 2.0, 5.0}) {
      const double tick = m * std::pow(10.0, e);
      if ((m == 1 || decades < 2.2) && tick >= low * 0.9999 && tick <= high * 1.0001)
        axis.ticks.push_back(tick);
    }
  if (axis.ticks.size() < 2) axis.ticks = nice_ticks(low, high, count);
  return axis;
}

bool Axis::shows(double value) const {
  return std::isfinite(value) && (!log || value > 0);
}

double Axis::pixel(double value) const {
  const double t = log ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
  // Far outside is as good as just outside, and keeps the numbers in the file short.
  return from + std::clamp(t, -2.0, 3.0) * (to - from);
}

std::string Axis::label(double tick) const {
  return tick_text(tick, log ? tick : step);
}

void Range::include(double value, bool log) {
  if (!std::isfinite(value) || (log && value <= 0)) return;
  low = std::min(low, value);
  high = std::max(high, value);
}

Counts count(const Histogram& plot) {
  Range range;
  for (const double v : plot.values) range.include(v);
  Counts result;
  result.low = plot.low.value_or(std::isfinite(range.low) ? range.low : 0);
  result.high = plot.high.value_or(std::isfinite(range.high) ? range.high : 1);
  if (!(result.high > result.low)) result.high = result.low + 1;
  const auto bins = static_cast<std::size_t>(std::clamp(plot.bins, 1, 1000));
  result.counts.assign(bins, 0);
  for (const double v : plot.values) {
    if (!(v >= result.low && v <= result.high)) continue;
    const double t = (v - result.low) / (result.high - result.low) * static_cast<double>(bins);
    ++result.counts[std::min(static_cast<std::size_t>(t), bins - 1)];
  }
  return result;
}

}  // namespace svg_detail
}  // namespace llm
