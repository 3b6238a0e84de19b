// Cleaning a text without changing what it says: one form for what looks the same.
//
// A model cannot know that "é" typed as one code point and as "e" with an accent are one letter, or that a
// line ends alike on all systems; to it they are different bytes. Normalising settles such questions once,
// before anything is counted or learned. Chapter 1 explains it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace llm {

struct NormaliseOptions {
  bool compose = true;          ///< Unicode normal form C ("e" + accent -> "é")
  bool trim_lines = true;       ///< no spaces and tabs at the ends of lines
  bool collapse_lines = false;  ///< at most one empty line in a row, none at either end
};

/// What was changed, over all texts.
struct NormaliseReport {
  std::int64_t byte_order_marks = 0;
  std::int64_t line_endings = 0;        ///< "\r\n" or "\r" -> "\n"
  std::int64_t control_characters = 0;  ///< dropped: U+0000 to U+001F but \n and \t, U+007F to U+009F
  std::int64_t trimmed_lines = 0;
  std::int64_t composed_texts = 0;  ///< texts that normal form C changed
  std::int64_t changed_texts = 0;
};

/// The cleaned text: byte order marks (files put behind one another leave them within, too) and control
/// characters dropped, line endings "\n", and what the options say. Applying it twice is the same as once.
/// Error naming the byte if `text` is not UTF-8.
std::string normalise(std::string_view text, const NormaliseOptions& options = {},
                      NormaliseReport* report = nullptr);

}  // namespace llm
