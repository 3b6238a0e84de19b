// Checks the exercises of chapter 1, the learner's and the book's answers alike.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "ch01_data/exercises.h"
#include "common/core/error.h"
#include "common/core/philox.h"
#include "tests/exercises/exercise_test.h"

namespace llm::exercises {
namespace {

// ---- 1.1 -------------------------------------------------------------------------------------------------

TEST(Exercise_1_1, LineBreaksBecomeOneCharacter) {
  expect_equal(ch01::clean_lines("one\r\ntwo"), "one\ntwo", "\"\\r\\n\" is one line break, not two");
  expect_equal(ch01::clean_lines("one\rtwo"), "one\ntwo", "a lone \"\\r\" ends a line, too");
  expect_equal(ch01::clean_lines("one\r"), "one\n", "nothing needs to stand behind a \"\\r\"");
  expect_equal(ch01::clean_lines("one\ntwo\n"), "one\ntwo\n", "what is in order stays as it is");
}

TEST(Exercise_1_1, SpacesGoAtTheEndsOfLinesOnly) {
  expect_equal(ch01::clean_lines("  a  b \t \nc"), "  a  b\nc", "spaces before and between words stay");
  expect_equal(ch01::clean_lines("a \r\nb"), "a\nb", "the line also ends before \"\\r\\n\"");
  expect_equal(ch01::clean_lines("the end  "), "the end", "the last line has an end, too");
}

TEST(Exercise_1_1, OneEmptyLineIsEnough) {
  expect_equal(ch01::clean_lines("a\n\nb"), "a\n\nb", "one empty line stays");
  expect_equal(ch01::clean_lines("a\n\n\n\nb"), "a\n\nb");
  expect_equal(ch01::clean_lines("a\n \n\t\nb"), "a\n\nb", "a line of spaces is empty once they are removed");
  expect_equal(ch01::clean_lines("\n\n\na"), "\na", "empty lines before the first count as well");
  expect_equal(ch01::clean_lines("a\n\n\n"), "a\n\n", "and those behind the last");
  expect_equal(ch01::clean_lines(""), "");
}

TEST(Exercise_1_1, AnyText) {
  // The rules one after the other.
  const auto replace_all = [](std::string text, std::string_view from, std::string_view to) {
    for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
    return text;
  };
  const auto expected = [&](std::string text) {
    text = replace_all(replace_all(text, "\r\n", "\n"), "\r", "\n") + "\n";
    for (int i = 0; i < 20; ++i) text = replace_all(replace_all(text, " \n", "\n"), "\t\n", "\n");
    text.pop_back();
    for (int i = 0; i < 20; ++i) text = replace_all(text, "\n\n\n", "\n\n");
    if (text.starts_with("\n\n")) text.erase(0, 1);
    return text;
  };
  const std::string alphabet = "ab \t\n\n\r";
  PhiloxSequence random(1, stream_id("exercise 1.1"));
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (std::uint64_t n = random.below(14); n > 0; --n) text += alphabet[random.below(alphabet.size())];
    expect_equal(ch01::clean_lines(text), expected(text), "the text was " + exercises::quoted(text));
    if (testing::Test::HasFailure()) return;
  }
}

// ---- 1.2 -------------------------------------------------------------------------------------------------

using Ids = std::vector<std::int32_t>;

TEST(Exercise_1_2, TargetsAreOneTokenAhead) {
  const auto windows = ch01::sliding_windows(Ids{10, 11, 12, 13, 14, 15, 16}, 3, 3);
  expect_equal(windows.size(), 2, "windows begin at tokens 0 and 3", "the number of windows");
  ASSERT_EQ(windows.size(), 2U);
  expect_equal(windows[0].inputs, Ids{10, 11, 12});
  expect_equal(windows[0].targets, Ids{11, 12, 13},
               "the target is the token behind the input, at each place");
  expect_equal(windows[1].inputs, Ids{13, 14, 15},
               "the second window begins `stride` tokens behind the first");
  expect_equal(windows[1].targets, Ids{14, 15, 16});
}

TEST(Exercise_1_2, TheLastTargetMustBeThere) {
  expect_equal(ch01::sliding_windows(Ids{1, 2, 3, 4}, 3, 1).size(), 1, "a window of 3 needs 4 tokens");
  expect_equal(ch01::sliding_windows(Ids{1, 2, 3}, 3, 1).size(), 0,
               "its last target would lie behind the text");
  expect_equal(ch01::sliding_windows(Ids{}, 3, 1).size(), 0,
               "beware of tokens.size() - length: it is unsigned");
}

TEST(Exercise_1_2, AnyLengthAndStride) {
  Ids tokens(40);
  std::iota(tokens.begin(), tokens.end(), 100);
  for (std::size_t n = 0; n <= tokens.size(); n += 3)
    for (std::size_t length = 1; length < 12; ++length)
      for (std::size_t stride = 1; stride < 14; ++stride) {
        const auto windows = ch01::sliding_windows(std::span(tokens).first(n), length, stride);
        std::size_t count = 0;
        while (count * stride + length + 1 <= n) ++count;
        expect_equal(windows.size(), count,
                     fmt::format("{} tokens, length {}, stride {}; all windows that fit", n, length, stride),
                     "the number of windows");
        if (testing::Test::HasFailure()) return;
        for (std::size_t k = 0; k < count; ++k) {
          Ids inputs(length);
          std::iota(inputs.begin(), inputs.end(), 100 + static_cast<std::int32_t>(k * stride));
          expect_equal(windows[k].inputs, inputs, fmt::format("window {} begins at token {}", k, k * stride));
          for (std::int32_t& id : inputs) ++id;
          expect_equal(windows[k].targets, inputs, fmt::format("targets of window {}", k));
          if (testing::Test::HasFailure()) return;
        }
      }
}

TEST(Exercise_1_2, BatchesKeepOrHaveNoSmallLastOne) {
  const auto sizes = [](std::size_t windows, std::size_t batch_size, bool drop_last) {
    std::vector<ch01::Window> all(windows);
    for (std::size_t i = 0; i < windows; ++i) all[i].inputs = {static_cast<std::int32_t>(i)};
    std::vector<std::size_t> result;
    std::int32_t next = 0;
    for (const auto& batch : ch01::in_batches(all, batch_size, drop_last)) {
      result.push_back(batch.size());
      for (const ch01::Window& window : batch) {
        if (window.inputs != Ids{next++}) {
          ADD_FAILURE() << "the windows must stay in order";
          return result;
        }
      }
    }
    return result;
  };
  expect_equal(sizes(7, 3, false), std::vector<std::size_t>{3, 3, 1}, "the last batch may be smaller",
               "batch");
  expect_equal(sizes(7, 3, true), std::vector<std::size_t>{3, 3}, "drop_last leaves the smaller one out",
               "batch");
  expect_equal(sizes(6, 3, true), std::vector<std::size_t>{3, 3}, "a last batch that is full stays", "batch");
  expect_equal(sizes(6, 3, false), std::vector<std::size_t>{3, 3}, "there is no empty batch", "batch");
  expect_equal(sizes(2, 3, true), std::vector<std::size_t>{}, "", "batch");
  expect_equal(sizes(0, 3, false), std::vector<std::size_t>{}, "", "batch");
}

// ---- 1.3 -------------------------------------------------------------------------------------------------

constexpr int kDocuments = 4000;

std::string document(int i) {
  return fmt::format("Story {}: once there was a {}.", i, i % 2 == 0 ? "hen" : "frog of 100 years");
}

/// Which of the documents are held out.
std::vector<bool> held_out(double fraction, std::uint64_t seed, bool backwards = false) {
  std::vector<bool> result(kDocuments);
  for (int k = 0; k < kDocuments; ++k) {
    const int i = backwards ? kDocuments - 1 - k : k;
    result[static_cast<std::size_t>(i)] = ch01::is_held_out(document(i), fraction, seed);
  }
  return result;
}

double share(const std::vector<bool>& flags) {
  return static_cast<double>(std::count(flags.begin(), flags.end(), true)) /
         static_cast<double>(flags.size());
}

TEST(Exercise_1_3, TheShareIsTheFraction) {
  expect_equal(share(held_out(0, 42)), 0, "a fraction of 0 holds out nothing", "the share held out");
  expect_equal(share(held_out(1, 42)), 1, "a fraction of 1 holds out everything", "the share held out");
  // 4000 documents: the standard deviation of the share is 0.005 at 0.1 and 0.008 at 0.5. Five of them.
  expect_close(share(held_out(0.1, 42)), 0.1, "", {0, 0.025}, "the share held out");
  expect_close(share(held_out(0.5, 42)), 0.5, "", {0, 0.04}, "the share held out");
}

TEST(Exercise_1_3, NothingButTheArgumentsCounts) {
  expect_equal(held_out(0.3, 7), held_out(0.3, 7), "asked a second time, the answer is another", "document");
  expect_equal(held_out(0.3, 7, true), held_out(0.3, 7), "asked in another order, the answers are others",
               "document");
}

TEST(Exercise_1_3, AnotherSeedIsAnotherSplit) {
  const auto a = held_out(0.5, 1);
  const auto b = held_out(0.5, 2);
  int both = 0;
  for (std::size_t i = 0; i < a.size(); ++i) both += a[i] && b[i] ? 1 : 0;
  // Independent: a quarter of all in both. Standard deviation 0.007.
  expect_close(both / double{kDocuments}, 0.25, "with two seeds, chosen independently", {0, 0.035},
               "the share held out by both seeds");
}

TEST(Exercise_1_3, EveryPartOfTheTextCounts) {
  // Documents of one length, alike at front and end: only a hash of all of the text tells them apart.
  int count = 0;
  for (int i = 0; i < 1000; ++i)
    count += ch01::is_held_out(fmt::format("once there was number {:04} and no other", i), 0.5, 3) ? 1 : 0;
  expect_close(count / 1000.0, 0.5, "these differ in four digits only", {0, 0.08}, "the share held out");
}

TEST(Exercise_1_3, MoreHoldsOutWhatLessDoes) {
  const auto less = held_out(0.1, 42);
  const auto more = held_out(0.2, 42);
  for (std::size_t i = 0; i < less.size(); ++i) {
    if (less[i] && !more[i]) {
      FAIL() << "document " << i << " is held out at 0.1, but not at 0.2";
    }
  }
}

// ---- 1.4 -------------------------------------------------------------------------------------------------

std::vector<std::byte> shard(std::int32_t magic, std::int32_t version, std::int32_t count,
                             const std::vector<std::uint16_t>& tokens) {
  std::vector<std::byte> file(1024 + 2 * tokens.size());
  const std::int32_t header[3] = {magic, version, count};
  std::memcpy(file.data(), header, sizeof header);
  if (!tokens.empty()) std::memcpy(file.data() + 1024, tokens.data(), 2 * tokens.size());
  return file;
}

TEST(Exercise_1_4, ReadsTheTokens) {
  const std::vector<std::uint16_t> tokens = {5, 0, 258, 65535};
  expect_equal(ch01::read_shard(shard(20240520, 1, 4, tokens)), tokens,
               "tokens begin behind 256 * 4 bytes, two bytes each");
  expect_equal(ch01::read_shard(shard(20240520, 1, 0, {})), std::vector<std::uint16_t>{},
               "a shard may be empty");
}

TEST(Exercise_1_4, RefusesWhatIsNoShard) {
  EXPECT_THROW((void)ch01::read_shard({}), Error) << "an empty file has no header";
  auto cut = shard(20240520, 1, 0, {});
  cut.pop_back();
  EXPECT_THROW((void)ch01::read_shard(cut), Error) << "1023 bytes are no header";
  EXPECT_THROW((void)ch01::read_shard(shard(20240521, 1, 2, {1, 2})), Error)
      << "the first number is not 20240520";
  EXPECT_THROW((void)ch01::read_shard(shard(20240520, 2, 2, {1, 2})), Error) << "version 2 may mean anything";
}

TEST(Exercise_1_4, RefusesAWrongCount) {
  EXPECT_THROW((void)ch01::read_shard(shard(20240520, 1, 3, {1, 2})), Error)
      << "3 tokens are counted, 2 follow";
  EXPECT_THROW((void)ch01::read_shard(shard(20240520, 1, 1, {1, 2})), Error)
      << "1 token is counted, 2 follow";
  EXPECT_THROW((void)ch01::read_shard(shard(20240520, 1, -2, {1, 2})), Error) << "the count is negative";
  auto odd = shard(20240520, 1, 2, {1, 2});
  odd.push_back(std::byte{7});
  EXPECT_THROW((void)ch01::read_shard(odd), Error) << "5 bytes are no whole number of tokens";
  EXPECT_THROW((void)ch01::read_shard(shard(20240520, 1, 2147483647, {1, 2})), Error)
      << "look whether the tokens are there before making room for them";
}

}  // namespace
}  // namespace llm::exercises
