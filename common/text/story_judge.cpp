// The Reader: finds the choices that made a text, or the first place where no choice could have made it.
// Chapter 1.
//
// Sentences are matched in two steps. First by their words alone: a mention may be any word of its kind. Then
// by the facts: is it a word that the state of the story allows there? So a text that says something
// grammatical but untrue gets told what is untrue, and only a text that says nothing the grammar knows gets
// told what was expected.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>

#include "common/core/error.h"
#include "common/text/story_grammar.h"
#include "common/text/story_voice.h"

namespace llm {
namespace {

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// Some bytes of the text for a person to look at: to the end of the sentence, at most 60.
std::string excerpt(std::string_view text) {
  constexpr std::size_t kMost = 60;
  const std::string_view head = text.substr(0, kMost);
  const std::size_t stop = head.find_first_of(".!?");
  std::string out;
  for (const char c : head.substr(0, stop == std::string_view::npos ? kMost : stop + 1))
    out += (c >= ' ' && c <= '~') ? c : '?';
  if (stop == std::string_view::npos && text.size() > kMost) out += "...";
  return out;
}

/// What a sentence's mentions are in a text, by words alone.
struct Match {
  bool complete = false;
  std::size_t end = 0;  ///< Behind the last byte that fits.
  struct Found {
    std::size_t offset;
    std::string_view surface;
    Words words;
  };
  std::vector<Found> found;  ///< One per slot of the sentence.
};

/// Moves `position` over as much of `literal` as the text has there; whether it has all of it.
bool match_literal(std::string_view text, std::size_t& position, std::string_view literal) {
  const std::string_view rest = text.substr(position, literal.size());
  const auto same =
      std::mismatch(literal.begin(), literal.end(), rest.begin(), rest.end()).first - literal.begin();
  position += static_cast<std::size_t>(same);
  return static_cast<std::size_t>(same) == literal.size();
}

void match_pattern(std::string_view text, std::size_t position, const Pattern& pattern, Match& match) {
  match.found.clear();
  match.complete = false;
  match.end = position;
  for (const Slot& slot : pattern.slots) {
    if (!match_literal(text, match.end, slot.before)) return;
    const std::string_view rest = text.substr(match.end);
    const auto surface = std::find_if(slot.surfaces.begin(), slot.surfaces.end(), [&](const auto& candidate) {
      const std::size_t size = candidate.first.size();
      return rest.starts_with(candidate.first) && (rest.size() == size || !is_letter(rest[size]));
    });
    if (surface == slot.surfaces.end()) {
      // A word that the end of the text cuts off fits as far as it goes.
      const bool cut = std::any_of(slot.surfaces.begin(), slot.surfaces.end(),
                                   [&](const auto& candidate) { return candidate.first.starts_with(rest); });
      if (cut) match.end = text.size();
      return;
    }
    match.found.push_back({match.end, rest.substr(0, surface->first.size()), surface->second});
    match.end += surface->first.size();
  }
  match.complete = match_literal(text, match.end, pattern.after);
}

/// What a matched sentence means in the world: the world after it and the story's probability so far, or its
/// first untrue mention.
struct Meaning {
  World world;
  double log_probability = 0;
  std::optional<std::size_t> untrue;  ///< Index of a slot.
};

Meaning understand(const Pattern& pattern, const Match& match, const World& before, double log_probability) {
  Meaning meaning{before, log_probability, std::nullopt};
  std::vector<bool> seen(pattern.slots.size(), false);
  for (std::size_t i = 0; i < pattern.slots.size(); ++i) {
    if (seen[i]) continue;
    const Role role = pattern.slots[i].role;
    const bool bind = role_info(role).bind;
    const Words possible = meaning.world.possible(role);
    Words words = possible;
    for (std::size_t j = i; j < pattern.slots.size(); ++j) {
      if (pattern.slots[j].role != role || (!bind && j != i)) continue;
      seen[j] = true;
      words &= match.found[j].words;
      if (words != 0) continue;
      meaning.untrue = j;
      // Of two mentions that contradict each other ("a cat named Rufus"), the word itself tells who is meant.
      for (std::size_t k = i; k <= j && !meaning.world.knows(role); ++k) {
        if (pattern.slots[k].role != role || pattern.slots[k].column != 0 ||
            (match.found[k].words & possible) == 0)
          continue;
        meaning.world.word[role] = static_cast<std::int8_t>(std::countr_zero(match.found[k].words));
        if (k == j) meaning.untrue = i;
      }
      return meaning;
    }
    if (!meaning.world.knows(role)) {
      check(std::has_single_bit(words), "the story world's sentences do not tell which word {{{}}} is",
            role_info(role).name);
      meaning.log_probability += std::log(1.0 / std::popcount(possible));
      if (bind) meaning.world.word[role] = static_cast<std::int8_t>(std::countr_zero(words));
    }
  }
  return meaning;
}

std::string untrue_reason(const Beat& beat, const Slot& slot, const Match::Found& found,
                          const Meaning& meaning) {
  const RoleInfo& info = role_info(slot.role);
  const Table& table = lexicon(info.kind);
  const bool single = std::has_single_bit(found.words);
  const auto& row = table.rows[static_cast<std::size_t>(std::countr_zero(found.words))];
  const World& world = meaning.world;
  if (slot.column != 0 && world.knows(slot.role) && info.kind == Kind::kName)
    return fmt::format("{} is a {}, but the story says '{}'", world.form(slot.role), world.form(slot.role, 1),
                       found.surface);
  std::string_view words = world.knows(slot.role) ? info.not_bound_so : info.impossible;
  for (const auto& [role, sentence] : beat.broken)
    if (role == slot.role) words = sentence;
  if (words.empty()) return fmt::format("'{}' cannot stand here", found.surface);
  return explain(words, world, single ? row[0] : found.surface, row[row.size() > 1 ? 1 : 0]);
}

}  // namespace

int Reader::tell(const Beat& beat) {
  std::size_t start = position_;
  if (!beats.empty()) {
    if (start < text_.size() && text_[start] != ' ')
      throw BrokenStory{
          fmt::format("expected a space after the sentence, found '{}'", excerpt(text_.substr(start))),
          start};
    start = std::min(start + 1, text_.size());
  }

  int total = 0;
  for (const Sentence& sentence : beat.sentences) total += sentence.weight;
  std::size_t furthest = start;
  const Sentence* taken = nullptr;
  Meaning taken_meaning;
  std::size_t taken_end = 0;
  std::optional<BrokenStory> untrue;
  Match match;
  for (const Sentence& sentence : beat.sentences) {
    match_pattern(text_, start, sentence.pattern, match);
    furthest = std::max(furthest, match.end);
    if (!match.complete) continue;
    const double weight = std::log(static_cast<double>(sentence.weight) / total);
    const Meaning meaning = understand(sentence.pattern, match, world, log_probability + weight);
    if (meaning.untrue) {
      const Match::Found& found = match.found[*meaning.untrue];
      if (!untrue || found.offset > untrue->offset)
        untrue = BrokenStory{untrue_reason(beat, sentence.pattern.slots[*meaning.untrue], found, meaning),
                             found.offset};
      continue;
    }
    check(taken == nullptr, "the story world is ambiguous: two sentences about {} read '{}'", beat.about,
          excerpt(text_.substr(start)));
    taken = &sentence;
    taken_end = match.end;
    taken_meaning = meaning;
  }
  if (taken == nullptr) {
    if (untrue) throw *untrue;
    lost(beat, furthest);
  }
  log_probability = taken_meaning.log_probability;
  world = taken_meaning.world;
  beats.push_back(start);
  position_ = taken_end;
  return taken->turn;
}

void Reader::lost(const Beat& beat, std::size_t furthest) const {
  const std::string about = explain(beat.about, world);
  if (text_.empty()) throw BrokenStory{"the story is empty", 0};
  if (position_ >= text_.size())
    throw BrokenStory{fmt::format("the story stops before it tells {}", about), text_.size()};
  if (furthest >= text_.size())
    throw BrokenStory{fmt::format("the story stops in the middle of a sentence about {}", about),
                      text_.size()};
  const std::string_view found = text_.substr(position_ + (beats.empty() ? 0 : 1));
  const std::string_view sentence = found.substr(0, found.substr(0, 1000).find_first_of(".!?"));
  for (const std::size_t earlier : beats)
    if (sentence.size() > 3 && text_.substr(earlier).starts_with(sentence))
      throw BrokenStory{
          fmt::format("'{}' has been told already; expected a sentence about {}", excerpt(found), about),
          furthest};
  throw BrokenStory{fmt::format("expected a sentence about {}, found '{}'", about, excerpt(found)), furthest};
}

void Reader::end() const {
  if (position_ < text_.size())
    throw BrokenStory{
        fmt::format("the story is over, but the text goes on: '{}'", excerpt(text_.substr(position_))),
        position_};
}

Verdict judge_story(std::string_view text) {
  Reader reader(text);
  Verdict verdict;
  try {
    tell_story(reader);
    reader.end();
    verdict = {true, "", text.size(), reader.beats.size(), reader.log_probability};
  } catch (const BrokenStory& broken) {
    verdict = {false, broken.reason, broken.offset, reader.beats.size(),
               -std::numeric_limits<double>::infinity()};
  }
  return verdict;
}

Story generate_story(std::uint64_t seed, std::uint64_t index) {
  Narrator narrator(PhiloxSequence(seed, stream_id("story") + index));
  tell_story(narrator);
  return {std::move(narrator.text), narrator.log_probability};
}

}  // namespace llm
