// UTF-8 that arrives in pieces.
#include "common/tokenizer/stream_text.h"

#include <gtest/gtest.h>

#include <string>

namespace llm {
namespace {

TEST(StreamText, HoldsBackIncompleteCharacters) {
  StreamText stream;
  EXPECT_EQ(stream.push("a\xC3"), "a");
  EXPECT_EQ(stream.push("\xA9"), "\xC3\xA9");
  EXPECT_EQ(stream.push("\xF0\x9F"), "");
  EXPECT_EQ(stream.push("\x91"), "");
  EXPECT_EQ(stream.push("\x8D!"), "\xF0\x9F\x91\x8D!");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.push("\xE6\x9D"), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
}

TEST(StreamText, EveryWayToCutATextGivesTheText) {
  const std::string text = "z\xC3\xA9\xE6\x9D\xB1\xF0\x9F\x91\x8D\xE2\x82\xAC.";
  for (std::size_t a = 0; a <= text.size(); ++a)
    for (std::size_t b = a; b <= text.size(); ++b) {
      StreamText stream;
      std::string out = stream.push(text.substr(0, a));
      out += stream.push(text.substr(a, b - a));
      out += stream.push(text.substr(b));
      out += stream.finish();
      EXPECT_EQ(out, text);
    }
}

TEST(StreamText, ReplacesWhatIsNotUtf8) {
  const std::string r = "\xEF\xBF\xBD";
  StreamText stream;
  EXPECT_EQ(stream.push("a\xFFz"), "a" + r + "z");
  EXPECT_EQ(stream.push("\xC3("), r + "(");
  EXPECT_EQ(stream.push("\xE6\x9Dx"), r + "x");       // a truncated character becomes one sign
  EXPECT_EQ(stream.push("\xC0\xAF"), r + r);          // overlong
  EXPECT_EQ(stream.push("\xED\xA0\x80"), r + r + r);  // a surrogate
  EXPECT_EQ(stream.push("\xF4\x90\x80\x80"), r + r + r + r);
}

}  // namespace
}  // namespace llm
