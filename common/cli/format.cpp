#include "common/cli/format.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

namespace llm {
namespace {

// Decodes the code point at `at` and moves past it; a byte that is no UTF-8 stands for itself.
std::uint32_t next_code_point(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  const int length = first < 0x80         ? 1
                     : (first >> 5) == 6  ? 2
                     : (first >> 4) == 14 ? 3
                     : (first >> 3) == 30 ? 4
                                          : 1;
  if (length == 1 || at + static_cast<std::size_t>(length) > text.size()) return byte(at++);
  std::uint32_t code = first & (0x7fu >> length);
  for (std::size_t i = 1; i < static_cast<std::size_t>(length); ++i) {
    if ((byte(at + i) & 0xc0u) != 0x80u) return byte(at++);
    code = (code << 6) | (byte(at + i) & 0x3fu);
  }
  at += static_cast<std::size_t>(length);
  return code;
}

int width_of(std::uint32_t c) {
  const auto in = [c](std::uint32_t low, std::uint32_t high) { return c >= low && c <= high; };
  if (c < 0x20 || in(0x7f, 0x9f)) return 0;
  if (in(0x300, 0x36f) || in(0x200b, 0x200f) || in(0xfe00, 0xfe0f) || in(0x20d0, 0x20ff)) return 0;
  if (in(0x1100, 0x115f) || in(0x2e80, 0xa4cf) || in(0xac00, 0xd7a3) || in(0xf900, 0xfaff) ||
      in(0xfe30, 0xfe6f) || in(0xff00, 0xff60) || in(0xffe0, 0xffe6) || in(0x1f300, 0x1faff) ||
      in(0x20000, 0x3fffd))
    return 2;
  return 1;
}

std::string three_digits(double n) {
  return fmt::format("{:.{}f}", n, n < 9.995 ? 2 : n < 99.95 ? 1 : 0);
}

std::string scaled(double n, std::string_view unit) {
  constexpr std::array<std::string_view, 6> kPrefixes = {"", "k", "M", "G", "T", "P"};
  double size = std::abs(n);
  std::size_t i = 0;
  while (size >= 999.5 && i + 1 < kPrefixes.size()) size /= 1000, ++i;
  std::string number = i == 0 && size == std::floor(size) ? fmt::format("{:.0f}", size) : three_digits(size);
  if (n < 0) number.insert(0, "-");
  const std::string suffix = fmt::format("{}{}", kPrefixes[i], unit);
  return suffix.empty() ? number : number + " " + suffix;
}

}  // namespace

std::string with_commas(std::int64_t n) {
  std::string digits = fmt::format("{}", n);
  const std::size_t first = n < 0 ? 1 : 0;
  for (std::size_t i = digits.size(); i > first + 3;) digits.insert(i -= 3, ",");
  return digits;
}

std::string short_count(double n) {
  return std::isfinite(n) ? scaled(n, "") : "?";
}
std::string byte_text(double bytes) {
  return std::isfinite(bytes) ? scaled(bytes, "B") : "?";
}

std::string duration_text(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  const auto total = static_cast<std::int64_t>(std::llround(seconds));
  if (total < 60) return fmt::format("{} s", total);
  if (total < 3600) return fmt::format("{}:{:02}", total / 60, total % 60);
  return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
}

int display_width(std::string_view text) {
  int width = 0;
  for (std::size_t at = 0; at < text.size();) width += width_of(next_code_point(text, at));
  return width;
}

std::string pad(std::string_view text, int width, bool right_aligned) {
  const int missing = width - display_width(text);
  if (missing <= 0) return std::string(text);
  const std::string space(static_cast<std::size_t>(missing), ' ');
  return right_aligned ? space + std::string(text) : std::string(text) + space;
}

std::string shorten(std::string_view text, int width) {
  std::string flat(text);
  for (char& c : flat)
    if (c == '\n' || c == '\t' || c == '\r') c = ' ';
  if (display_width(flat) <= width) return flat;
  std::size_t at = 0;
  int used = 0;
  while (at < flat.size()) {
    std::size_t next = at;
    const int more = width_of(next_code_point(flat, next));
    if (used + more > width - 1) break;
    used += more;
    at = next;
  }
  return flat.substr(0, at) + "…";
}

}  // namespace llm
