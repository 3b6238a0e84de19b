// GPT-2's splitting rule as a small state machine. See split.h.
#include "common/tokenizer/split.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

namespace llm {
namespace {

// Classes of bytes: of ASCII characters, and "look at the whole character" for the rest.
constexpr std::uint8_t kNotAscii = 4;

constexpr std::array<std::uint8_t, 256> make_byte_classes() {
  std::array<std::uint8_t, 256> classes{};
  for (int b = 0; b < 256; ++b) {
    CharacterClass c = CharacterClass::kOther;
    if ((b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z')) c = CharacterClass::kLetter;
    if (b >= '0' && b <= '9') c = CharacterClass::kNumber;
    if (b == ' ' || (b >= '\t' && b <= '\r')) c = CharacterClass::kSpace;
    classes[static_cast<std::size_t>(b)] = b < 128 ? static_cast<std::uint8_t>(c) : kNotAscii;
  }
  return classes;
}
constexpr std::array<std::uint8_t, 256> kByteClass = make_byte_classes();

std::uint8_t byte_class(char c) {
  return kByteClass[static_cast<unsigned char>(c)];
}

struct Classified {
  CharacterClass character_class;
  std::uint32_t length;
};

Classified classify(std::string_view text, std::size_t at) {
  const std::uint8_t c = byte_class(text[at]);
  if (c != kNotAscii) return {static_cast<CharacterClass>(c), 1};
  const Character character = character_at(text, at);
  return {character_class(character.code_point), character.length};
}

// The first position from `at` on whose character is not of class `c`.
std::size_t run_end(std::string_view text, std::size_t at, CharacterClass c) {
  while (at < text.size()) {
    const std::uint8_t b = byte_class(text[at]);
    if (b == static_cast<std::uint8_t>(c)) {
      ++at;
    } else if (b == kNotAscii) {
      const Classified next = classify(text, at);
      if (next.character_class != c) break;
      at += next.length;
    } else {
      break;
    }
  }
  return at;
}

// Bytes of a contraction ('s 't 're 've 'm 'll 'd) at text[at], which is an apostrophe; 0 if there is none.
std::size_t contraction_length(std::string_view text, std::size_t at) {
  const std::string_view rest = text.substr(at + 1, 2);
  if (rest.empty()) return 0;
  if (rest[0] == 's' || rest[0] == 't' || rest[0] == 'm' || rest[0] == 'd') return 2;
  return rest == "re" || rest == "ve" || rest == "ll" ? 3 : 0;
}

}  // namespace

Character character_at(std::string_view text, std::size_t begin) {
  utf8proc_int32_t code_point = -1;
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + begin,
                                       static_cast<utf8proc_ssize_t>(text.size() - begin), &code_point);
  if (length <= 0) return {};
  return {code_point, static_cast<std::uint32_t>(length)};
}

CharacterClass character_class(std::int32_t code_point) {
  if (code_point < 0) return CharacterClass::kOther;
  switch (utf8proc_category(code_point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharacterClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharacterClass::kNumber;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharacterClass::kSpace;
    default:
      // White_Space is the separators above and six control characters: TAB to CR, and NEXT LINE.
      return (code_point >= 9 && code_point <= 13) || code_point == 0x85 ? CharacterClass::kSpace
                                                                         : CharacterClass::kOther;
  }
}

std::size_t piece_end(std::string_view text, std::size_t begin) {
  const Classified first = classify(text, begin);
  if (first.character_class != CharacterClass::kSpace) {
    if (text[begin] == '\'') {
      if (const std::size_t length = contraction_length(text, begin)) return begin + length;
    }
    return run_end(text, begin + first.length, first.character_class);
  }
  // A space and what it precedes.
  const std::size_t second = begin + first.length;
  if (second == text.size()) return second;
  if (text[begin] == ' ') {
    const Classified next = classify(text, second);
    if (next.character_class != CharacterClass::kSpace)
      return run_end(text, second + next.length, next.character_class);
  }
  // White space: all of it at the end of the text, else all but its last character, but at least one.
  std::size_t last = begin, end = begin;
  while (end < text.size()) {
    const Classified next = classify(text, end);
    if (next.character_class != CharacterClass::kSpace) return last > begin ? last : end;
    last = end;
    end += next.length;
  }
  return end;
}

std::vector<std::string_view> split_pieces(std::string_view text) {
  std::vector<std::string_view> pieces;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = piece_end(text, begin);
    pieces.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return pieces;
}

std::vector<std::string_view> split_parts(std::string_view text, std::size_t part_bytes) {
  std::vector<std::string_view> parts;
  std::size_t begin = 0;
  while (begin < text.size()) {
    // Between an ASCII letter and a space there is always a border: no piece has white space after anything
    // else.
    std::size_t end = std::min(begin + std::max<std::size_t>(part_bytes, 1), text.size());
    while (end < text.size() && !(text[end] == ' ' && byte_class(text[end - 1]) ==
                                                          static_cast<std::uint8_t>(CharacterClass::kLetter)))
      ++end;
    parts.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return parts;
}

}  // namespace llm
