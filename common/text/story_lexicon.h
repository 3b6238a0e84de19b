// The words of the story world: one table per kind of word, one row per word, one column per form of it.
//
// Chapter 1. The first column is the word itself and names the row; the other columns are what goes with the
// word
// ("kite" is "a kite"; "Mia" is a "girl", so "she"). They are facts that a model has to learn by heart.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace llm {

enum class Kind : std::uint8_t {
  kName,
  kTrait,
  kWeather,
  kDaytime,
  kPlace,
  kMove,
  kColour,
  kThing,
  kUse,
  kDeed,
  kJunk,
  kSpot,
  kTool,
  kGlad,
  kSad,
  kCount
};

struct Table {
  std::string_view what;                            ///< "a place": how a person would call an entry.
  std::vector<std::string_view> columns;            ///< columns[0] is empty: the word itself.
  std::vector<std::vector<std::string_view>> rows;  ///< rows[word][column]; at most 64 rows.
};

const Table& lexicon(Kind kind);

/// A set of words of one kind: bit i stands for row i.
using Words = std::uint64_t;

constexpr Words only(int word) {
  return Words{1} << word;
}
inline Words every(Kind kind) {
  return ~Words{0} >> (64 - lexicon(kind).rows.size());
}

/// The children among the names; the others are animals.
constexpr Words kChildren = 0xff;

/// The places where stories begin; all others are away from home.
constexpr Words kHomes = 0xff;

/// Where somebody lives, and who lives there: one child and one animal.
constexpr int place_of(int name) {
  return 8 + name % 8;
}
constexpr Words living_at(int place) {
  return only(place - 8) | only(place);
}

/// The things one can do with thing number `thing`: rows of Kind::kUse.
constexpr int kUsesPerThing = 2;
constexpr Words uses_of(int thing) {
  return Words{3} << (kUsesPerThing * thing);
}

}  // namespace llm
