// UTF-8: where a text stops being UTF-8, and how to go on. Chapter 1 explains it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace llm {

/// Offset of the first byte at which `text` is not well-formed UTF-8 (Unicode standard, table 3-7: no
/// overlong forms, no surrogates, nothing above U+10FFFF), or npos.
std::size_t find_invalid_utf8(std::string_view text);

/// Every ill-formed sequence becomes one U+FFFD (the standard's "maximal subpart" practice, as in Python's
/// errors="replace"). Adds their number to `replaced`.
std::string replace_invalid_utf8(std::string_view text, std::int64_t& replaced);

/// "byte 0xE9 at offset 17 is not UTF-8", with a guess at what the text is instead (UTF-16, Latin-1, binary).
std::string describe_invalid_utf8(std::string_view text, std::size_t offset, std::uint64_t offset_in_file);

/// Number of code points of a well-formed text.
std::int64_t count_characters(std::string_view text);

/// Byte offset at which character `n` begins; text.size() if there are no more than n characters.
std::size_t character_offset(std::string_view text, std::int64_t n);

/// True at the first byte of a character (of well-formed text), false within one.
inline bool is_character_start(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0u) != 0x80u;
}

}  // namespace llm
