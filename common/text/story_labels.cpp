// Labels, questions and preferences, read off the state in which a story was told. Chapter 7 uses them.
#include "common/text/story_labels.h"

#include <vector>

#include "common/text/story_grammar.h"

namespace llm {
namespace {

/// A random sequence of its own for item `index` of `stream`, and for each attempt at it.
PhiloxSequence sequence(std::uint64_t seed, std::string_view stream, std::uint64_t index,
                        std::uint64_t attempt = 0) {
  return {seed, stream_id(stream) + (attempt << 48) + index};
}

std::string with_article(std::string_view word) {
  return "a " + std::string(word);
}

struct Candidate {
  std::string_view question;  ///< With roles in braces.
  std::string answer;
};

/// The questions that the story of `world` answers. They ask for what its sentences speak of more than once,
/// which a model that tells stories has learned to look up.
std::vector<Candidate> questions_about(const World& world, bool happy) {
  const auto form = [&](Role role, std::size_t column = 0) { return std::string(world.form(role, column)); };
  const bool with_friend = world.knows(kGift) || world.knows(kDare) || world.knows(kOtherUse);
  const bool stuck = world.knows(kSpot);
  std::vector<Candidate> all = {
      {"Who wants the {thing}?", form(kHero)},
      {"What does {hero} want?", "the " + form(kThing)},
      {"Why does {hero} want the {thing}?", "to " + form(kUse)},
      {"Where does {friend} live?", form(kThere, 1)},
      {"What does {hero} promise?", "to " + form(kVow)},
      {"Does {hero} get the {thing}?", happy ? "yes" : "no"},
      {"Who has the {thing} at the end?", form(kHero)},
  };
  if (!happy) all.back().answer = with_friend ? form(kFriend) : "nobody";
  if (world.knows(kGift)) {
    all.push_back({"What does {friend} ask for?", with_article(world.form(kGift))});
    all.push_back({"What does {hero} bring?", with_article(world.form(happy ? kGift : kBrought))});
  }
  if (world.knows(kDare)) {
    all.push_back({"What does {friend} ask {hero} to do?", "to " + form(kDare)});
    all.push_back({"What did {hero} do when {friend} asked?", form(happy ? kDare : kDone, 1)});
  }
  if (stuck) {
    all.push_back({"Where is the {thing} stuck?", form(kSpot)});
    all.push_back({"What would help to get the {thing}?", with_article(world.form(kTool))});
  } else if (world.knows(kThere) && !with_friend && (happy || world.knows(kGoal))) {
    all.push_back({"Who knows where the {thing} is?", form(kFriend)});
  }
  return all;
}

}  // namespace

LabelledStory make_labelled_story(std::uint64_t seed, std::uint64_t index) {
  const bool happy = index % 2 == 0;
  for (std::uint64_t attempt = 0;; ++attempt) {
    Narrator narrator(sequence(seed, "labelled story", index, attempt));
    const Ending end = tell_story(narrator);
    if (end.happy != happy) continue;
    const std::size_t cut = narrator.beats[end.beats_to_know] - 1;  // without the space
    return {narrator.text.substr(0, cut), happy ? "happy" : "sad"};
  }
}

Question make_question(std::uint64_t seed, std::uint64_t index) {
  Narrator narrator(sequence(seed, "question", index));
  const Ending end = tell_story(narrator);
  const std::vector<Candidate> candidates = questions_about(narrator.world, end.happy);
  PhiloxSequence random = sequence(seed, "which question", index);
  const Candidate& candidate = candidates[random.below(candidates.size())];
  return {narrator.text, explain(candidate.question, narrator.world), candidate.answer};
}

Preference make_preference(std::uint64_t seed, std::uint64_t index) {
  for (std::uint64_t attempt = 0;; ++attempt) {
    Narrator narrator(sequence(seed, "preference", index, attempt));
    tell_story(narrator);
    PhiloxSequence random = sequence(seed, "which fact", index, attempt);
    // Break the mention of a fact in the second half of the story: put another word of the same kind there.
    const Mention& mention = narrator.mentions[random.below(narrator.mentions.size())];
    if (mention.beat < 4) continue;
    const auto& surfaces = mention.slot->surfaces;
    const std::string& truth = mention.slot->surface_of(mention.word);
    const std::string& other = surfaces[random.below(surfaces.size())].first;
    std::string broken = narrator.text;
    broken.replace(mention.offset, truth.size(), other);
    const Verdict verdict = judge_story(broken);
    // Another word may happen to be true as well, or make a fact of its own that is broken only later.
    if (verdict.valid || verdict.offset != mention.offset) continue;
    const std::size_t cut = narrator.beats[mention.beat] - 1;  // the space belongs to what follows
    return {narrator.text.substr(0, cut), narrator.text.substr(cut), broken.substr(cut), verdict.reason};
  }
}

}  // namespace llm
