// Text that arrives in pieces: a token may end in the middle of a UTF-8 character.
//
// A byte-level tokenizer can spread one character over several tokens. A program that prints while it
// generates must hold the first bytes back until the rest is there. Chapters 3 to 7 use it.
#pragma once

#include <string>
#include <string_view>

namespace llm {

class StreamText {
 public:
  /// Takes the bytes of one more token; returns what can be printed now. Bytes that cannot begin or continue
  /// a character come out as U+FFFD, the replacement character.
  std::string push(std::string_view bytes);
  /// At the end of the text: an incomplete character comes out as U+FFFD.
  std::string finish();

 private:
  std::string held_;  // the beginning of a character, at most 3 bytes
};

}  // namespace llm
