// How one description of the grammar both tells stories and understands them. Chapter 1.
//
// The plot (story_grammar.cpp) is a procedure that speaks through a Voice: `voice.tell(beat)` says one of the
// beat's sentences and returns which turn the plot takes. A Narrator draws the sentence and the words in it.
// A Reader finds out, from a given text, what a narrator must have drawn. Both follow the same plot and ask
// the same World what is possible, so they cannot disagree.
//
// A sentence is text with roles in braces: "{Friend.he} gave {hero} the {thing}." A dot names a form of the
// word, a capital letter capitalises it.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/core/philox.h"
#include "common/text/story.h"
#include "common/text/story_world.h"

namespace llm {

/// A mention of a role in a sentence, and the text around it.
struct Slot {
  std::string before;  ///< The literal text before the mention.
  Role role;
  std::size_t column;  ///< Which form of the word.
  /// The distinct surface texts of that form, longest first, each with the words it may stand for.
  std::vector<std::pair<std::string, Words>> surfaces;

  const std::string& surface_of(int word) const;
};

struct Pattern {
  Pattern(const char* text);  // NOLINT(google-explicit-constructor): a pattern is written as a string
  std::vector<Slot> slots;
  std::string after;  ///< The literal text after the last mention.
};

struct Sentence {
  int weight;  ///< How likely, relative to the beat's other sentences.
  Pattern pattern;
  int turn = 0;  ///< What the plot is told when this sentence is taken.
};

/// A step of the plot: the ways to say it, of which one is taken.
struct Beat {
  std::string_view about;  ///< "how {hero} gets to the {there}": completes "expected a sentence about ...".
  std::vector<Sentence> sentences;
  /// What to say when a role is mentioned with another word than it must be, where the role's own words
  /// (story_world.cpp) would not do.
  std::vector<std::pair<Role, std::string_view>> broken = {};
};

class Voice {
 public:
  virtual ~Voice() = default;
  /// Says one sentence of the beat, binds the roles it mentions, and returns the sentence's turn.
  virtual int tell(const Beat& beat) = 0;

  World world;
  double log_probability = 0;      ///< Of the choices so far.
  std::vector<std::size_t> beats;  ///< Where each beat told so far starts in the text.
};

/// Where a story mentions a role that an earlier sentence bound: a fact that can be broken.
struct Mention {
  std::size_t offset = 0;
  std::size_t beat = 0;
  Role role{};
  const Slot* slot = nullptr;
  int word = 0;
};

/// Draws a story.
class Narrator : public Voice {
 public:
  explicit Narrator(PhiloxSequence random) : random_(random) {}
  int tell(const Beat& beat) override;

  std::string text;
  std::vector<Mention> mentions;

 private:
  PhiloxSequence random_;
};

/// What a Reader throws when the text is not a story.
struct BrokenStory {
  std::string reason;
  std::size_t offset;
};

/// Understands a story. `tell` throws BrokenStory where the text cannot go on as it does.
class Reader : public Voice {
 public:
  explicit Reader(std::string_view text) : text_(text) {}
  int tell(const Beat& beat) override;
  /// After the last beat: throws unless the text ends here.
  void end() const;

 private:
  [[noreturn]] void lost(const Beat& beat, std::size_t furthest) const;

  std::string_view text_;
  std::size_t position_ = 0;
};

/// Writes `text` with its roles in braces filled in from the world, and {found} with the given word.
std::string explain(std::string_view text, const World& world, std::string_view found = {},
                    std::string_view found_at = {});

}  // namespace llm
