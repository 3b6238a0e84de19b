#include "common/text/normalise.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <utility>

#include "common/core/error.h"
#include "common/text/utf8.h"

namespace llm {

namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// Line endings, control characters and byte order marks, in one pass.
std::string clean_controls(std::string_view text, NormaliseReport& report) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '\r') {
      if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
      result += '\n';
      ++report.line_endings;
    } else if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F) {
      ++report.control_characters;
    } else if (c == 0xEF && text.substr(i).starts_with(kByteOrderMark)) {
      i += kByteOrderMark.size() - 1;
      ++report.byte_order_marks;
    } else if (c == 0xC2 &&
               static_cast<unsigned char>(text[i + 1]) < 0xA0) {  // U+0080 to U+009F; valid, so [i + 1] is
      ++i;
      ++report.control_characters;
    } else {
      result += text[i];
    }
  }
  return result;
}

/// Appends `text` in normal form C.
void append_composed(std::string& result, std::string_view text) {
  utf8proc_uint8_t* raw = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
      &raw, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(raw, &std::free);
  check(size >= 0, "a text cannot be brought to Unicode normal form C: {}", utf8proc_errmsg(size));
  result.append(reinterpret_cast<const char*>(raw), static_cast<std::size_t>(size));
}

/// Normal form C. Nearly all text is in it already, and what is can be told quickly: below U+0300, the first
/// combining accent, nothing is ever joined, and an ASCII character is never joined to what stands before it.
/// So only runs of other characters that hold one from U+0300 on (a byte of 0xCC or more) are looked at, each
/// with the ASCII character before it, which may take an accent.
std::string compose(const std::string& text, NormaliseReport& report) {
  std::string result;
  result.reserve(text.size());
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  std::size_t copied = 0;
  for (std::size_t i = 0; i < text.size();) {
    if (byte(i) < 0x80) {
      ++i;
      continue;
    }
    const std::size_t begin = i == 0 ? 0 : i - 1;
    bool above = false;
    for (; i < text.size() && byte(i) >= 0x80; ++i) above = above || byte(i) >= 0xCC;
    if (!above) continue;
    result.append(text, copied, begin - copied);
    append_composed(result, std::string_view(text).substr(begin, i - begin));
    copied = i;
  }
  result.append(text, copied);
  if (result != text) ++report.composed_texts;
  return result;
}

/// Calls body(line) for each line without its "\n", also the empty one behind a last "\n".
template <typename Body>
void for_each_line(std::string_view text, const Body& body) {
  for (std::size_t begin = 0;;) {
    const std::size_t end = text.find('\n', begin);
    body(text.substr(begin, end == std::string_view::npos ? end : end - begin));
    if (end == std::string_view::npos) return;
    begin = end + 1;
  }
}

std::string trim_lines(std::string_view text, NormaliseReport& report) {
  std::string result;
  result.reserve(text.size());
  for_each_line(text, [&](std::string_view line) {
    const std::size_t last = line.find_last_not_of(" \t");
    const std::size_t kept = last == std::string_view::npos ? 0 : last + 1;
    if (kept < line.size()) ++report.trimmed_lines;
    result.append(line.substr(0, kept)) += '\n';
  });
  result.pop_back();  // the last line has no line break of its own
  return result;
}

std::string collapse_lines(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  int empty = 0;
  for_each_line(text, [&](std::string_view line) {
    if (line.empty()) {
      ++empty;
      return;
    }
    if (!result.empty()) result.append(empty > 0 ? "\n\n" : "\n");
    result.append(line);
    empty = 0;
  });
  return result;
}

}  // namespace

std::string normalise(std::string_view text, const NormaliseOptions& options, NormaliseReport* report) {
  NormaliseReport own;
  NormaliseReport& counts = report != nullptr ? *report : own;
  const std::size_t bad = find_invalid_utf8(text);
  if (bad != std::string_view::npos) fail("{}", describe_invalid_utf8(text, bad, bad));

  std::string result = clean_controls(text, counts);
  if (options.compose) result = compose(result, counts);
  if (options.trim_lines) result = trim_lines(result, counts);
  if (options.collapse_lines) result = collapse_lines(result);
  if (result != text) ++counts.changed_texts;
  return result;
}

}  // namespace llm
