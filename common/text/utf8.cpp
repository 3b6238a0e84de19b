#include "common/text/utf8.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace llm {

namespace {

/// Length of the well-formed character at `i`, or 0; then `bad` says how many bytes make the ill-formed
/// piece.
std::size_t character_length(std::string_view text, std::size_t i, std::size_t& bad) {
  const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned char lead = byte(i);
  bad = 1;
  if (lead < 0x80) return 1;
  std::size_t length = 0;
  // The second byte's range excludes overlong forms (E0, F0), surrogates (ED) and what is above U+10FFFF
  // (F4).
  unsigned char low = 0x80, high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return 0;
  }
  for (std::size_t k = 1; k < length; ++k) {
    if (i + k >= text.size() || byte(i + k) < low || byte(i + k) > high) {
      bad = k;
      return 0;
    }
    low = 0x80;
    high = 0xBF;
  }
  return length;
}

/// Skips ASCII eight bytes at a time.
std::size_t skip_ascii(std::string_view text, std::size_t i) {
  while (i + 8 <= text.size()) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + i, 8);
    if ((word & 0x8080808080808080u) != 0) break;
    i += 8;
  }
  while (i < text.size() && static_cast<unsigned char>(text[i]) < 0x80) ++i;
  return i;
}

}  // namespace

std::size_t find_invalid_utf8(std::string_view text) {
  std::size_t bad = 0;
  for (std::size_t i = skip_ascii(text, 0); i < text.size(); i = skip_ascii(text, i)) {
    const std::size_t length = character_length(text, i, bad);
    if (length == 0) return i;
    i += length;
  }
  return std::string_view::npos;
}

std::string replace_invalid_utf8(std::string_view text, std::int64_t& replaced) {
  std::string result;
  result.reserve(text.size());
  std::size_t good = 0;  // start of what is not copied yet
  std::size_t bad = 0;
  for (std::size_t i = skip_ascii(text, 0); i < text.size(); i = skip_ascii(text, i)) {
    const std::size_t length = character_length(text, i, bad);
    if (length > 0) {
      i += length;
      continue;
    }
    result.append(text.substr(good, i - good)).append("\xEF\xBF\xBD");
    i += bad;
    good = i;
    ++replaced;
  }
  return result.append(text.substr(good));
}

std::string describe_invalid_utf8(std::string_view text, std::size_t offset, std::uint64_t offset_in_file) {
  const auto byte = static_cast<unsigned char>(text[offset]);
  std::string_view guess = "is it in another encoding?";
  const bool has_zero = text.substr(0, 4096).find('\0') != std::string_view::npos;
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF"))
    guess = "it looks like UTF-16; convert it, for example with iconv";
  else if (has_zero)
    guess = "it looks like a binary file";
  else if (byte >= 0xA0)
    guess = "it may be Latin-1; convert it, for example with iconv";
  return fmt::format("byte 0x{:02X} at offset {} is not UTF-8 ({})", byte, offset_in_file, guess);
}

std::int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), is_character_start);
}

std::size_t character_offset(std::string_view text, std::int64_t n) {
  for (std::size_t i = 0; i < text.size(); ++i)
    if (is_character_start(text[i]) && n-- == 0) return i;
  return text.size();
}

}  // namespace llm
