// Holding back incomplete UTF-8. See stream_text.h; the ranges are those of RFC 3629, section 4.
#include "common/tokenizer/stream_text.h"

#include <cstdint>

namespace llm {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Scan {
  enum { complete, incomplete, invalid } kind;
  std::size_t length;  // bytes of the character, or of the bad prefix to replace
};

/// Looks at the character that `text` (not empty) begins with.
Scan scan(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t first = byte(0);
  if (first < 0x80) return {Scan::complete, 1};
  std::size_t length = 0;
  std::uint8_t low = 0x80, high = 0xBF;  // what the second byte may be
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) low = 0xA0;   // shorter forms exist for what is below
    if (first == 0xED) high = 0x9F;  // surrogates are not characters
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;  // U+10FFFF is the last
  } else {
    return {Scan::invalid, 1};
  }
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Scan::incomplete, i};
    if (byte(i) < low || byte(i) > high) return {Scan::invalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Scan::complete, length};
}

}  // namespace

std::string StreamText::push(std::string_view bytes) {
  held_ += bytes;
  std::string ready;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Scan next = scan(rest);
    if (next.kind == Scan::incomplete) break;
    ready += next.kind == Scan::complete ? rest.substr(0, next.length) : kReplacement;
    rest.remove_prefix(next.length);
  }
  held_ = std::string(rest);
  return ready;
}

std::string StreamText::finish() {
  std::string ready;
  if (!held_.empty()) ready = kReplacement;
  held_.clear();
  return ready;
}

}  // namespace llm
