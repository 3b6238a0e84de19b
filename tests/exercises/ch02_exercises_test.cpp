// Checks the exercises of chapter 2.
#include "ch02_tokenizer/exercises.h"

#include "common/core/error.h"
#include "common/core/philox.h"
#include "tests/exercises/exercise_test.h"

namespace llm::exercises {
namespace {

using Ids = std::vector<std::int32_t>;
using ch02::Pair;

void expect_pair(Pair got, Pair expected, std::string_view hint) {
  expect_equal(Ids{got.left, got.right}, Ids{expected.left, expected.right}, hint, "id");
}

// ---- 2.1 ----

TEST(Exercise_2_1, FindsTheClearWinner) {
  // "banana": an and na stand there twice, but here a further an follows.
  expect_pair(ch02::most_frequent_pair(Ids{98, 97, 110, 97, 110, 97, 110}), {97, 110},
              "the pairs are (98 97) (97 110) (110 97) (97 110) (110 97) (97 110)");
}

TEST(Exercise_2_1, TakesTheSmallerOfEquals) {
  expect_pair(ch02::most_frequent_pair(Ids{5, 4, 3}), {4, 3},
              "both pairs occur once; the smaller left id wins");
  expect_pair(ch02::most_frequent_pair(Ids{2, 9, 2, 3}), {2, 3},
              "all pairs occur once, and two have the left id 2; the smaller right id wins");
  expect_pair(ch02::most_frequent_pair(Ids{8, 1, 8, 1, 0}), {8, 1},
              "(8 1) occurs twice, which beats a smaller id");
}

TEST(Exercise_2_1, CountsEveryPosition) {
  expect_pair(ch02::most_frequent_pair(Ids{7, 7, 7, 1, 2, 1, 2, 1}), {1, 2},
              "(7 7), (1 2) and (2 1) all occur twice: in 7 7 7 the pair stands at two positions");
  expect_pair(ch02::most_frequent_pair(Ids{9, 9, 9, 9, 1, 2, 0, 1, 2}), {9, 9},
              "in 9 9 9 9 the pair (9 9) stands at three positions");
}

TEST(Exercise_2_1, LooksAtTheFirstAndTheLastPair) {
  expect_pair(ch02::most_frequent_pair(Ids{3, 6}), {3, 6}, "two ids have one pair");
  expect_pair(ch02::most_frequent_pair(Ids{1, 2, 5, 4, 1, 2}), {1, 2}, "the last pair is at position n - 2");
  expect_pair(ch02::most_frequent_pair(Ids{70000, 1000000, 70000, 1000000}), {70000, 1000000},
              "ids may be large");
}

// ---- 2.2 ----

TEST(Exercise_2_2, ReplacesEveryOccurrence) {
  expect_equal(ch02::merge_pair(Ids{1, 2, 3, 1, 2}, {1, 2}, 256), {256, 3, 256},
               "both occurrences become one id");
  expect_equal(ch02::merge_pair(Ids{2, 1, 1, 3}, {1, 2}, 256), {2, 1, 1, 3},
               "the order matters: (2 1) is not (1 2)");
}

TEST(Exercise_2_2, UsesAnIdOnlyOnce) {
  expect_equal(ch02::merge_pair(Ids{7, 7, 7}, {7, 7}, 9), {9, 7},
               "from left to right: the first two merge, one is left");
  expect_equal(ch02::merge_pair(Ids{7, 7, 7, 7}, {7, 7}, 9), {9, 9}, "four are two pairs");
  expect_equal(ch02::merge_pair(Ids{1, 1, 2}, {1, 2}, 9), {1, 9}, "a 1 that is not followed by 2 stays");
}

TEST(Exercise_2_2, DoesNotMergeWhatItMade) {
  expect_equal(ch02::merge_pair(Ids{1, 2, 2}, {1, 2}, 1), {1, 2},
               "here the new id is also the left one; what was made in this pass is not merged again");
}

TEST(Exercise_2_2, TakesShortSequences) {
  expect_equal(ch02::merge_pair(Ids{}, {1, 2}, 9), Ids{}, "nothing stays nothing");
  expect_equal(ch02::merge_pair(Ids{1}, {1, 2}, 9), {1}, "one id has no neighbour");
  expect_equal(ch02::merge_pair(Ids{3, 1}, {1, 2}, 9), {3, 1},
               "the last id has no right neighbour, but it must stay");
}

// ---- 2.3 ----

TEST(Exercise_2_3, BytesWithoutMerges) {
  expect_equal(ch02::encode_bytes("abc", {}), {97, 98, 99}, "without merges the tokens are the bytes");
  expect_equal(ch02::encode_bytes("\xc3\xa9", {}), {195, 169},
               "bytes are 0 to 255, also where char is signed");
  expect_equal(ch02::encode_bytes("", {}), Ids{}, "nothing stays nothing");
}

TEST(Exercise_2_3, AppliesMergesUponMerges) {
  const std::vector<Pair> merges = {{'t', 'h'}, {256, 'e'}, {' ', 257}};  // th, the, " the"
  expect_equal(ch02::encode_bytes(" the", merges), {258}, "t h -> th, th e -> the, ' ' the -> ' the'");
  expect_equal(ch02::encode_bytes("then thh", merges), {257, 'n', ' ', 256, 'h'}, "wherever the pair occurs");
}

TEST(Exercise_2_3, RankDecidesAndNotPosition) {
  // "abc": ab stands first, but bc was learned first.
  expect_equal(ch02::encode_bytes("abc", std::vector<Pair>{{'b', 'c'}, {'a', 'b'}}), {'a', 256},
               "(a b) stands further left, but (b c) has the smaller rank");
  // In "abab", ab merges twice before anything else happens; then ab ab may merge.
  expect_equal(ch02::encode_bytes("ababb", std::vector<Pair>{{'a', 'b'}, {'b', 'b'}, {256, 256}}), {258, 'b'},
               "(a b) comes before (b b), everywhere");
}

TEST(Exercise_2_3, HandlesRuns) {
  const std::vector<Pair> merges = {{'a', 'a'}, {256, 256}};
  expect_equal(ch02::encode_bytes("aaaaaaa", merges), {257, 256, 'a'}, "7 = 4 + 2 + 1");
  expect_equal(ch02::encode_bytes("aaa", merges), {256, 'a'}, "from left to right");
}

// ---- 2.4 ----

TEST(Exercise_2_4, AddsTokenAndPosition) {
  const std::vector<float> tokens = {0, 1, 10, 11, 20, 21};         // (3, 2)
  const std::vector<float> positions = {100, 200, 300, 400, 7, 7};  // (3, 2), one more than needed
  expect_close(ch02::embed(Ids{2, 0}, 2, tokens, positions, 2), std::vector<float>{120, 221, 300, 401},
               Shape{1, 2, 2}, "x[0, 0, :] is row 2 of the token table plus row 0 of the position table");
}

TEST(Exercise_2_4, PositionsBeginAgainInEachRow) {
  const std::vector<float> tokens = {0, 1, 10, 11, 20, 21};
  const std::vector<float> positions = {100, 200, 300, 400, 500, 600, 700, 800};
  expect_close(ch02::embed(Ids{1, 1, 1, 2}, 2, tokens, positions, 2),
               std::vector<float>{110, 211, 310, 411, 110, 211, 320, 421}, Shape{2, 2, 2},
               "the second row of the batch begins at position 0 again");
}

TEST(Exercise_2_4, AgreesOnOddSizes) {
  const std::int64_t B = 3, T = 5, V = 7, C = 4;
  const Philox random{24, stream_id("exercise 2.4")};
  std::vector<float> tokens(V * C), positions(T * C);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = random.normal(i);
  for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = random.normal(1000 + i);
  Ids ids;
  std::vector<float> expected;
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t t = 0; t < T; ++t) {
      ids.push_back(static_cast<std::int32_t>((3 * b + 2 * t) % V));
      for (std::int64_t c = 0; c < C; ++c)
        expected.push_back(tokens[static_cast<std::size_t>(ids.back() * C + c)] +
                           positions[static_cast<std::size_t>(t * C + c)]);
    }
  expect_close(ch02::embed(ids, T, tokens, positions, C), expected, Shape{B, T, C},
               "T = 5 and C = 4 differ here");
}

TEST(Exercise_2_4, RefusesUnknownTokens) {
  const std::vector<float> tokens(6), positions(6);
  const auto embed = [&](Ids ids) { return ch02::embed(ids, 1, tokens, positions, 2); };
  EXPECT_THROW(embed(Ids{3}), Error)
      << "the table has rows 0 to 2; reading row 3 reads memory that is not the table's";
  EXPECT_THROW(embed(Ids{-1}), Error) << "a negative id is not in the table either";
  EXPECT_NO_THROW(embed(Ids{2})) << "id 2 is the last row and must work";
}

}  // namespace
}  // namespace llm::exercises
