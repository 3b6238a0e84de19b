// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace llm {

/// 338025 -> "338,025".
std::string with_commas(std::int64_t n);
/// 1234 -> "1.23 k", 124439808 -> "124 M"; below 1000 as it is. Three significant digits.
std::string short_count(double n);
/// Bytes in powers of 1000: "512 B", "20.0 MB".
std::string byte_text(double bytes);
/// "0.8 s", "12 s", "3:05", "2:07:30".
std::string duration_text(double seconds);

/// Columns a UTF-8 text takes on a terminal: wide characters count two, combining ones none.
int display_width(std::string_view text);
/// Pads with spaces to `width` columns, on the right, or on the left if `right_aligned`. Never cuts.
std::string pad(std::string_view text, int width, bool right_aligned = false);
/// The text, cut to `width` columns with "…" where it is longer; line breaks and tabs become spaces.
std::string shorten(std::string_view text, int width);

}  // namespace llm
