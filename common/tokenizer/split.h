// Cutting text into pieces before BPE: GPT-2's rule, written by hand.
//
// BPE merges never cross the border of a piece, so "dog." and "dog!" share the token for "dog". GPT-2
// (Radford et al. 2019) gives the rule as a regular expression,
//
//     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//
// which reads: English contractions; a run of letters, of numbers or of anything else, with one space before
// it if there is one; white space, of which the last character is left for the next piece. \p{L} and \p{N}
// are the Unicode categories Letter and Number, \s the property White_Space. Chapter 2 explains it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace llm {

enum class CharacterClass : std::uint8_t { kOther, kLetter, kNumber, kSpace };

struct Character {
  std::int32_t code_point = -1;  // -1: the byte begins no valid UTF-8 character
  std::uint32_t length = 1;      // in bytes
};

/// The UTF-8 character at text[begin] (begin < text.size()). Overlong forms, surrogates and truncated
/// characters are not valid: each byte of them is a character of its own with code point -1.
Character character_at(std::string_view text, std::size_t begin);

/// The class of a Unicode character; code point -1 (an invalid byte) is kOther.
CharacterClass character_class(std::int32_t code_point);

/// The end of the piece that begins at text[begin], where begin < text.size() is 0 or the end of another
/// piece.
std::size_t piece_end(std::string_view text, std::size_t begin);

/// The pieces of a text; together they are the text.
std::vector<std::string_view> split_pieces(std::string_view text);

/// Cuts a text into parts of about `part_bytes` such that the pieces of the parts are the pieces of the text,
/// so that parts can be worked on in parallel. A part is longer where no safe place to cut comes sooner.
std::vector<std::string_view> split_parts(std::string_view text, std::size_t part_bytes);

}  // namespace llm
