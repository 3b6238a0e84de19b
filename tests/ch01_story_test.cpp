// The story world: what the generator tells, the judge understands; what is untrue, the judge names; and the
// probabilities, on which the entropy floor of chapter 5 stands, are exact.
#include "common/text/story.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "common/text/story_grammar.h"
#include "common/text/story_labels.h"

namespace llm {
namespace {

Narrator narrate(std::uint64_t seed, std::uint64_t index) {
  Narrator narrator(PhiloxSequence(seed, stream_id("story") + index));
  tell_story(narrator);
  return narrator;
}

TEST(Story, IsTheSameOnEveryMachine) {
  EXPECT_EQ(generate_story(1, 0).text,
            "One rainy afternoon, a clever girl named Lily sat in the tower. She wanted the striped blanket "
            "to make a tent. \"I would tickle a bear to have it!\" said Lily. But the wind had taken the "
            "blanket away. \"Is it on the bridge?\" asked Felix. Lily did not listen and looked in the "
            "library. Felix had said the bridge. Lily was sad and did not tickle a bear.");
  EXPECT_EQ(generate_story(1, 1).text,
            "It was a rainy morning, and a clever boy named Leo was in the tower. \"I need the blue sled to "
            "pull the cat around,\" he said. \"If I get it, I will hug a tree,\" he said. But Momo had the "
            "sled on the island. Off he ran to the island! \"Bring me a teapot and it is yours,\" said Momo. "
            "\"Where is a teapot?\" asked Leo, and went home. He ran to the castle, but brought a crown. \"A "
            "crown is not a teapot,\" said Momo, and kept the sled. Leo was cross and did not hug a tree.");
  EXPECT_EQ(generate_story(2, 0).text,
            "One warm afternoon, a small goose named Greta sat in the library. If only she had the giant "
            "fiddle to play the sun to sleep! \"When I have it, I will stand on one leg,\" she promised. But "
            "nobody knew where the fiddle was. Nora had seen it at the pond. But Greta only hopped about in "
            "the attic. The fiddle was still at the pond. And a cross goose did not stand on one leg.");
  EXPECT_NEAR(generate_story(1, 0).log_probability, -36.466223965128, 1e-9);
}

TEST(Story, IsUnderstoodByTheJudgeWithTheSameProbability) {
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const Story story = generate_story(7, i);
    const Verdict verdict = judge_story(story.text);
    ASSERT_TRUE(verdict.valid) << story.text << '\n' << verdict.reason;
    ASSERT_EQ(verdict.log_probability, story.log_probability) << story.text;
    ASSERT_EQ(verdict.offset, story.text.size());
    ASSERT_EQ(verdict.reason, "");
    ASSERT_GE(story.text.size(), 200u);
    ASSERT_LE(story.text.size(), 560u);
    ASSERT_TRUE(
        std::all_of(story.text.begin(), story.text.end(), [](char c) { return c >= ' ' && c <= '~'; }));
  }
}

// The corpus of the book is 20 MB. The most likely of its stories has a probability p_max, so that two given
// ones agree with probability at most p_max, and any two of n with at most n^2 / 2 * p_max: 2^31 / 2^46 here.
/// Words and runs of punctuation: where GPT-2's splitting rule puts the borders that no token crosses.
std::size_t count_pieces(std::string_view text) {
  const auto kind = [](char c) { return c == ' ' ? 0 : std::isalpha(static_cast<unsigned char>(c)) ? 1 : 2; };
  std::size_t pieces = 0;
  for (std::size_t i = 0; i < text.size(); ++i)
    pieces += kind(text[i]) != 0 && (i == 0 || kind(text[i]) != kind(text[i - 1]));
  return pieces;
}

// With one token for each piece, which 1024 tokens are enough for, a story and the end-of-text token before
// it fit in the context of 192 of the book's small model, with room for a question about it.
TEST(Story, FitsInAContextOf144Tokens) {
  std::size_t most = 0, sum = 0;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const std::size_t pieces = count_pieces(generate_story(7, i).text);
    most = std::max(most, pieces);
    sum += pieces;
  }
  EXPECT_LT(most, 144u);
  EXPECT_LT(sum / 20000, 105u);
}

TEST(Story, IsNotToldTwiceInTwentyMegabytes) {
  std::unordered_set<std::string> told;
  std::size_t bytes = 0;
  double most_likely = -1e9;
  for (std::uint64_t i = 0; bytes < 20'000'000; ++i) {
    Story story = generate_story(1, i);
    bytes += story.text.size();
    most_likely = std::max(most_likely, story.log_probability);
    ASSERT_TRUE(told.insert(std::move(story.text)).second) << "story " << i << " was told before";
  }
  EXPECT_LT(most_likely / std::log(2.0), -46);
}

/// Tells as a narrator does, and before each beat writes down all that could be told there.
class Enumerator : public Narrator {
 public:
  explicit Enumerator(std::uint64_t index) : Narrator(PhiloxSequence(5, index)), first_(index == 0) {}

  int tell(const Beat& beat) override {
    if (beats.empty() && !first_)
      return Narrator::tell(beat);  // the opening is the same for all, and has many
    outcomes_.clear();
    int total = 0;
    for (const Sentence& sentence : beat.sentences) total += sentence.weight;
    for (const Sentence& sentence : beat.sentences)
      expand(sentence, 0, world, "", static_cast<double>(sentence.weight) / total);
    verify(beat);
    return Narrator::tell(beat);
  }

 private:
  struct Outcome {
    std::string text;
    double probability;
    int turn;
    World world;
    bool operator<(const Outcome& other) const { return text < other.text; }
  };

  void expand(const Sentence& sentence, std::size_t slot_index, const World& state, const std::string& said,
              double probability) {
    if (slot_index == sentence.pattern.slots.size()) {
      outcomes_.push_back({said + sentence.pattern.after, probability, sentence.turn, state});
      return;
    }
    const Slot& slot = sentence.pattern.slots[slot_index];
    const Words possible = state.possible(slot.role);
    ASSERT_NE(possible, 0u) << "no word is possible for " << role_info(slot.role).name;
    for (int word = 0; word < 64; ++word) {
      if (!(possible & only(word))) continue;
      World next = state;
      if (role_info(slot.role).bind) next.word[slot.role] = static_cast<std::int8_t>(word);
      expand(sentence, slot_index + 1, next, said + slot.before + slot.surface_of(word),
             probability / std::popcount(possible));
    }
  }

  /// The outcomes are a prefix code with total probability 1, and each is read back as what it is.
  void verify(const Beat& beat) {
    std::sort(outcomes_.begin(), outcomes_.end());
    double sum = 0;
    for (std::size_t i = 0; i < outcomes_.size(); ++i) {
      sum += outcomes_[i].probability;
      if (i + 1 < outcomes_.size()) {
        ASSERT_FALSE(outcomes_[i + 1].text.starts_with(outcomes_[i].text)) << outcomes_[i].text;
      }
      Reader reader(outcomes_[i].text);
      reader.world = world;
      ASSERT_EQ(reader.tell(beat), outcomes_[i].turn) << outcomes_[i].text;
      ASSERT_EQ(reader.world.word, outcomes_[i].world.word) << outcomes_[i].text;
      ASSERT_NEAR(std::exp(reader.log_probability), outcomes_[i].probability,
                  1e-12 * outcomes_[i].probability + 1e-15);
      reader.end();
    }
    // Adding n terms to a sum near 1 rounds n times by up to 1.2e-16.
    ASSERT_NEAR(sum, 1.0, 1.2e-16 * static_cast<double>(outcomes_.size()) + 1e-14) << beat.about;
  }

  bool first_;
  std::vector<Outcome> outcomes_;
};

// If no continuation of a story is the beginning of another, at every beat, then a text splits into beats in
// one way only: there is one way to tell each story, and its probability is that of its only derivation.
TEST(Story, IsAPrefixCodeWhoseProbabilitiesSumToOne) {
  for (std::uint64_t i = 0; i < 40; ++i) {
    Enumerator enumerator(i);
    tell_story(enumerator);
    if (HasFatalFailure()) return;
  }
}

/// Tells as a narrator does and adds up the entropy of each choice, in nats.
class EntropyMeter : public Narrator {
 public:
  using Narrator::Narrator;

  int tell(const Beat& beat) override {
    double total = 0;
    for (const Sentence& sentence : beat.sentences) total += sentence.weight;
    for (const Sentence& sentence : beat.sentences) {
      const double p = sentence.weight / total;
      entropy -= p * std::log(p);
      World state = world;
      for (const Slot& slot : sentence.pattern.slots) {
        const Words possible = state.possible(slot.role);
        if (std::has_single_bit(possible)) continue;
        entropy += p * std::log(std::popcount(possible));
        // Which word it is does not matter for how many are possible after it, only that there is one.
        if (role_info(slot.role).bind)
          state.word[slot.role] = static_cast<std::int8_t>(std::countr_zero(possible));
      }
    }
    return Narrator::tell(beat);
  }
  double entropy = 0;
};

// The generator draws with the probabilities that it states: then the mean of -log p is the entropy of the
// source.
TEST(Story, HasTheEntropyThatItsProbabilitiesState) {
  constexpr int kStories = 20000;
  double sum = 0, sum_of_squares = 0;
  for (std::uint64_t i = 0; i < kStories; ++i) {
    EntropyMeter meter(PhiloxSequence(11, i));
    tell_story(meter);
    const double difference = -meter.log_probability - meter.entropy;
    sum += difference;
    sum_of_squares += difference * difference;
  }
  // The differences have mean 0; five standard errors are exceeded once in two million seeds.
  EXPECT_LT(std::abs(sum / kStories), 5 * std::sqrt(sum_of_squares) / kStories);
}

TEST(Story, DrawsNamesPlotsAndEndingsFairly) {
  constexpr int kStories = 20000;
  std::map<int, int> heroes, things;
  int happy = 0, stuck = 0;
  for (std::uint64_t i = 0; i < kStories; ++i) {
    Narrator narrator(PhiloxSequence(13, i));
    happy += tell_story(narrator).happy;
    ++heroes[narrator.world[kHero]];
    ++things[narrator.world[kThing]];
    stuck += narrator.world.knows(kSpot);
  }
  // A count of probability p has standard deviation sqrt(n p (1 - p)); five of them.
  const auto near = [&](int count, double p) {
    EXPECT_LT(std::abs(count - kStories * p), 5 * std::sqrt(kStories * p * (1 - p))) << p;
  };
  near(happy, 0.5);
  near(stuck, 3.0 / 12);
  ASSERT_EQ(heroes.size(), lexicon(Kind::kName).rows.size());
  ASSERT_EQ(things.size(), lexicon(Kind::kThing).rows.size());
  for (const auto& [name, count] : heroes) near(count, 1.0 / heroes.size());
  for (const auto& [thing, count] : things) near(count, 1.0 / things.size());
}

TEST(Lexicon, IsComplete) {
  for (int k = 0; k < static_cast<int>(Kind::kCount); ++k) {
    const Table& table = lexicon(static_cast<Kind>(k));
    ASSERT_GE(table.rows.size(), 2u);
    ASSERT_LE(table.rows.size(), 64u);
    std::set<std::string_view> words;
    for (const auto& row : table.rows) {
      ASSERT_EQ(row.size(), table.columns.size()) << row[0];
      EXPECT_TRUE(words.insert(row[0]).second) << row[0] << " stands twice";
    }
  }
  // Of these the sentences say "a".
  for (const Kind kind :
       {Kind::kTrait, Kind::kWeather, Kind::kThing, Kind::kJunk, Kind::kTool, Kind::kGlad, Kind::kSad})
    for (const auto& row : lexicon(kind).rows)
      EXPECT_EQ(std::string_view("aeiou").find(row[0][0]), std::string_view::npos) << row[0];
  // At every place away from home live one child and one animal.
  const auto names = static_cast<int>(lexicon(Kind::kName).rows.size());
  for (int name = 0; name < names; ++name) {
    const Words both = living_at(place_of(name));
    EXPECT_TRUE(both & only(name));
    EXPECT_TRUE(std::has_single_bit(both & kChildren) && std::has_single_bit(both & ~kChildren));
    EXPECT_TRUE(only(place_of(name)) & every(Kind::kPlace) & ~kHomes);
  }
  EXPECT_EQ(every(Kind::kName), every(Kind::kPlace));
  EXPECT_EQ(lexicon(Kind::kUse).rows.size(), kUsesPerThing * lexicon(Kind::kThing).rows.size());
  EXPECT_EQ(lexicon(Kind::kSpot).rows.size(), lexicon(Kind::kTool).rows.size());
}

// ---------------------------------------------------------------------------------------------- the judge

struct Broken {
  const char* text;  ///< What the story says instead of the original.
  const char* original;
  const char* reason;
};

void expect_broken(std::string story, const Broken& broken) {
  ASSERT_TRUE(judge_story(story).valid) << judge_story(story).reason;
  const std::size_t at = story.find(broken.original);
  ASSERT_NE(at, std::string::npos) << broken.original;
  story.replace(at, std::string_view(broken.original).size(), broken.text);
  const Verdict verdict = judge_story(story);
  EXPECT_FALSE(verdict.valid) << story;
  EXPECT_EQ(verdict.reason, broken.reason) << story;
  EXPECT_GE(verdict.offset, at);
  EXPECT_EQ(verdict.log_probability, -std::numeric_limits<double>::infinity());
}

// A friend has the thing and asks for another.
TEST(Judge, NamesTheBrokenFactOfABarter) {
  const std::string story =
      "It was a warm day, and a clever dog named Rufus was in the garden. He wanted the red kite to fly it "
      "to the moon. \"If I get it, I will hug a tree,\" he said. But Mia had the kite at the market. So "
      "Rufus "
      "ran to the market, and at the market sat Mia. \"Bring me a lamp and it is yours,\" said Mia. \"A "
      "lamp? "
      "Just wait,\" said Rufus. Rufus went to the kitchen and found a lamp. Mia took the lamp and gave "
      "Rufus the kite. Rufus was so happy that he hugged a tree.";
  const Broken table[] = {
      {"Tom took the lamp", "Mia took the lamp", "Tom gives away the kite that Mia holds"},
      {"Rufus took the lamp", "Mia took the lamp", "Rufus gives away the kite that Mia holds"},
      {"gave Tom the kite", "gave Rufus the kite",
       "Tom gets the kite, but it was Rufus who brought the lamp"},
      {"gave Rufus the drum", "gave Rufus the kite", "Mia gives away the drum, but holds the kite"},
      {"took the boat", "took the lamp", "Rufus brought a lamp, but Mia gets a boat"},
      {"found a boat", "found a lamp", "Mia asked for a lamp, not for a boat"},
      {"found only a lamp in the kitchen", "went to the kitchen and found a lamp",
       "what Rufus brings in vain is neither the kite nor a lamp, so it cannot be a lamp"},
      {"found only a boat in the kitchen", "went to the kitchen and found a lamp",
       "expected a sentence about how Mia keeps the kite, since a boat is not a lamp, found 'Mia took the "
       "lamp "
       "and gave Rufus the kite.'"},
      {"went to the market and", "went to the kitchen and",
       "Rufus looks for a lamp at home, not at the market"},
      {"was on the bridge", "was in the garden", "no story begins on the bridge"},
      {"ran to the garden, and in the garden", "ran to the market, and at the market",
       "Mia and the kite are at the market, but Rufus goes to the garden"},
      {"So Mia ran", "So Rufus ran", "Rufus wants the kite, but here it is Mia who goes to get it"},
      {"said Tom.", "said Mia.", "Mia has the kite, but here Tom answers for it"},
      {"But Rufus had", "But Mia had",
       "Rufus cannot be the other one: a child deals with an animal here, and an animal with a child"},
      {"But Otto had", "But Mia had",
       "Otto cannot be the other one: a child deals with an animal here, and an animal with a child"},
      {"Bring me a kite", "Bring me a lamp", "Mia has the kite, and does not ask for a kite"},
      {"A boat? Just", "A lamp? Just", "Mia asked for a lamp, not for a boat"},
      {"and at the market sat Tom", "and at the market sat Mia",
       "the other one in this story is Mia, but here it says Tom"},
      {"had the kite in the garden", "had the kite at the market", "Mia lives elsewhere, not in the garden"},
      {"had the kite on the hill", "had the kite at the market", "Mia lives elsewhere, not on the hill"},
      {"had the bell", "had the kite", "Rufus wants the kite, but here the story has the bell"},
      {"kite to wake the king", "kite to fly it to the moon", "nobody needs the kite to wake the king"},
      {"She wanted", "He wanted", "Rufus is a dog, but the story says 'She'"},
      {"a clever cat named", "a clever dog named", "Rufus is a dog, but the story says 'cat'"},
      {"he danced in the rain", "he hugged a tree", "Rufus promised to hug a tree, not to dance in the rain"},
      {"Tom was so happy", "Rufus was so happy", "Tom is glad of the kite that Rufus wanted and got"},
      {"so sad", "so happy",
       "expected a sentence about how glad Rufus is to have the kite, and how he keeps the promise to hug a "
       "tree, found 'Rufus was so sad that he hugged a tree.'"},
      {"found a zebra", "found a lamp",
       "expected a sentence about what Rufus brings to Mia, who asked for a lamp, found 'Rufus went to the "
       "kitchen and found a zebra.'"},
      {"  Mia took", " Mia took",
       "expected a sentence about how Mia takes the lamp and gives Rufus the kite, found ' Mia took the lamp "
       "and gave Rufus the kite.'"},
      {"tree. The end.", "tree.", "the story is over, but the text goes on: ' The end.'"},
  };
  for (const Broken& broken : table) expect_broken(story, broken);
}

// The thing is stuck, and a friend comes with a tool.
TEST(Judge, NamesTheBrokenFactOfARescue) {
  const std::string story =
      "On a windy day, Tom the sleepy boy was in the barn. \"I need the giant trumpet to play for the "
      "bees,\" he said. He promised to jump over a puddle if he got it. But the trumpet was stuck down "
      "in a deep well. Momo walked home to the island and back with a rope. With the rope they got the "
      "trumpet away from the well. So a very proud boy jumped over a puddle.";
  const Broken table[] = {
      {"back with a broom", "back with a rope", "a broom does not help with the well"},
      {"With the broom", "With the rope", "what helps there is a rope, not a broom"},
      {"away from the ice", "away from the well",
       "the trumpet is stuck down in a deep well, not in a block of ice"},
      {"Tom walked home", "Momo walked home",
       "Tom is not the one who helps: a child helps an animal here, an animal a child, each from where it "
       "lives"},
      {"to the barn and back", "to the island and back", "the one who helps does not live in the barn"},
      {"to the hill and back", "to the island and back", "the one who helps does not live on the hill"},
      {"very proud girl", "very proud boy", "Tom is a boy, but the story says 'girl'"},
  };
  for (const Broken& broken : table) expect_broken(story, broken);
}

// The thing is lost, and the hero looks elsewhere than told.
TEST(Judge, NamesTheBrokenFactOfASearch) {
  const std::string story =
      "There was a clever fox in the attic one windy day. It was Felix. He had a plan: get the green "
      "trumpet and talk to the elephants. \"When I have it, I will jump over a puddle,\" he promised. But "
      "the wind had taken the trumpet away. \"Look on the beach,\" said Lily. But he looked in the barn. "
      "Lily had said the beach. Felix went home without the trumpet, and he was cross.";
  const Broken table[] = {
      {"But he looked on the beach", "But he looked in the barn",
       "Lily said on the beach; who does not listen stays at home, and does not look on the beach"},
      {"But he looked on the hill", "But he looked in the barn",
       "Lily said on the beach; who does not listen stays at home, and does not look on the hill"},
      {"So he looked in the barn", "But he looked in the barn",
       "Lily said on the beach, so Felix has no reason to look in the barn"},
      {"But she looked", "But he looked", "Felix is a fox, but the story says 'she'"},
      {"said the hill", "said the beach", "Lily had said the beach, not the hill"},
      {"Mia had said", "Lily had said", "it was Lily who had seen the trumpet, not Mia"},
      {"said Tom", "said Lily", "Tom is not the one who lives on the beach and helps a fox"},
      {"without the drum", "without the trumpet", "Felix wants the trumpet, but here the story has the drum"},
      {"Look in the attic", "Look on the beach",
       "if the trumpet were in the attic, Felix would have it already"},
  };
  for (const Broken& broken : table) expect_broken(story, broken);
}

// A friend asks for a bit of fun.
TEST(Judge, NamesTheBrokenFactOfADare) {
  const std::string story =
      "Tom was a noisy boy. One sunny morning, he sat in the library. He had a plan: get the yellow "
      "puppet and make the king laugh. He promised to tickle a bear if he got it. But it belonged to "
      "Momo, who was on the island. Tom ran all the way to the island. \"It is yours if you jump over a "
      "puddle,\" said Momo. So Tom jumped over a puddle. Momo laughed and gave Tom the puppet. Then Tom "
      "and Momo tickled a bear, and both were glad.";
  const Broken table[] = {
      {"So Tom hugged a tree", "So Tom jumped over a puddle",
       "Momo asked Tom to jump over a puddle, not to hug a tree"},
      {"Tom just jumped", "So Tom jumped", "to jump over a puddle is no mistake here"},
      {"Tom just hugged a tree", "So Tom jumped over a puddle",
       "expected a sentence about how Momo keeps the puppet, since Tom did not jump over a puddle, found "
       "'Momo laughed and gave Tom the puppet.'"},
      {"So Tom tickled a bear", "So Tom jumped over a puddle",
       "Momo asked Tom to jump over a puddle, not to tickle a bear"},
      {"So Momo jumped", "So Tom jumped", "Momo asked Tom, but here it is Momo who does it"},
      {"if you tickle a bear", "if you jump over a puddle",
       "Tom means to tickle a bear anyway, so Momo cannot ask for that"},
      {"Tom laughed and gave Tom", "Momo laughed and gave Tom", "Tom gives away the puppet that Momo holds"},
      {"Then Tom and Mia", "Then Tom and Momo", "Mia shares the joy of Tom, but it was Momo who helped"},
  };
  for (const Broken& broken : table) expect_broken(story, broken);
}

TEST(Judge, RejectsEveryStoryWithAFactChanged) {
  for (std::uint64_t i = 0; i < 150; ++i) {
    const Narrator narrator = narrate(3, i);
    for (const Mention& mention : narrator.mentions) {
      const std::string& truth = mention.slot->surface_of(mention.word);
      for (const auto& [other, words] : mention.slot->surfaces) {
        if (other == truth) continue;
        std::string story = narrator.text;
        story.replace(mention.offset, truth.size(), other);
        const Verdict verdict = judge_story(story);
        ASSERT_FALSE(verdict.valid) << story;
        ASSERT_GE(verdict.sentence, mention.beat) << story << '\n' << verdict.reason;
        ASSERT_EQ(verdict.reason.find_first_of("{}"), std::string::npos) << verdict.reason;
        ASSERT_EQ(verdict.reason.find("something"), std::string::npos) << verdict.reason << '\n' << story;
        ASSERT_EQ(verdict.reason.find("cannot stand here"), std::string::npos) << verdict.reason << '\n'
                                                                               << story;
      }
    }
  }
}

TEST(Judge, RejectsAStoryThatStopsTooEarlyAndSaysSo) {
  for (std::uint64_t i = 0; i < 100; ++i) {
    const std::string story = generate_story(4, i).text;
    for (std::size_t size = 0; size < story.size(); ++size) {
      const Verdict verdict = judge_story(std::string_view(story).substr(0, size));
      ASSERT_FALSE(verdict.valid);
      ASSERT_EQ(verdict.offset, size) << story.substr(0, size) << '\n' << verdict.reason;
      ASSERT_TRUE(verdict.reason.starts_with(size == 0 ? "the story is empty" : "the story stops"))
          << story.substr(0, size) << '\n'
          << verdict.reason;
    }
  }
}

TEST(Judge, RejectsAStoryWithASentenceLeftOutOrToldTwice) {
  for (std::uint64_t i = 0; i < 500; ++i) {
    const Narrator narrator = narrate(6, i);
    for (std::size_t beat = 0; beat < narrator.beats.size(); ++beat) {
      const std::size_t begin = narrator.beats[beat];
      const bool last = beat + 1 == narrator.beats.size();
      const std::size_t end = last ? narrator.text.size() : narrator.beats[beat + 1];
      const std::string said = narrator.text.substr(begin, end - begin);

      const Verdict left_out = judge_story(std::string(narrator.text).erase(begin, end - begin));
      ASSERT_FALSE(left_out.valid) << said << '\n' << narrator.text;
      ASSERT_EQ(left_out.sentence, beat) << said << '\n' << narrator.text;

      const Verdict twice = judge_story(std::string(narrator.text).insert(end, last ? " " + said : said));
      ASSERT_FALSE(twice.valid) << said << '\n' << narrator.text;
      const char* reason = last ? "the story is over, but the text goes on" : "told already";
      ASSERT_NE(twice.reason.find(reason), std::string::npos) << twice.reason << '\n' << narrator.text;
    }
  }
}

TEST(Judge, TakesAnyBytes) {
  PhiloxSequence random(1, 2);
  for (int i = 0; i < 5000; ++i) {
    // Noise, and stories with some bytes changed.
    std::string text = generate_story(9, static_cast<std::uint64_t>(i)).text;
    if (i % 2 == 0) {
      text.resize(random.below(600));
      for (char& c : text) c = static_cast<char>(random.below(256));
    } else {
      for (std::uint64_t k = 1 + random.below(3); k > 0; --k)
        text[random.below(text.size())] = static_cast<char>(random.below(256));
    }
    const Verdict verdict = judge_story(text);
    ASSERT_LE(verdict.offset, text.size());
    ASSERT_EQ(verdict.valid, verdict.reason.empty());
    ASSERT_TRUE(std::all_of(verdict.reason.begin(), verdict.reason.end(),
                            [](char c) { return c >= ' ' && c <= '~'; }));
  }
  EXPECT_EQ(judge_story("").reason, "the story is empty");
  EXPECT_FALSE(judge_story(std::string(100, '\0')).valid);
}

// The judge does not read on after a fault: the length of what follows costs nothing.
TEST(Judge, StopsAtTheFirstFault) {
  const std::string story = generate_story(1, 1).text;
  const std::string rest(20'000'000, 'x');
  for (const std::string& head : {std::string(), story, story.substr(0, 100), std::string("One ")}) {
    const std::string huge = head + rest;
    auto fastest = std::chrono::steady_clock::duration::max();  // of three: others use this machine, too
    for (int run = 0; run < 3; ++run) {
      const auto start = std::chrono::steady_clock::now();
      EXPECT_FALSE(judge_story(huge).valid);
      fastest = std::min(fastest, std::chrono::steady_clock::now() - start);
    }
    EXPECT_LT(fastest, std::chrono::milliseconds(20));  // some 10 us here; to read 20 MB takes longer
  }
}

// --------------------------------------------------------------------------------------------- the labels

TEST(Labels, AreBalancedAndTrue) {
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const LabelledStory labelled = make_labelled_story(3, i);
    EXPECT_EQ(labelled.label, i % 2 == 0 ? "happy" : "sad");
    // The text is a beginning of a story that does not tell the ending.
    const Verdict verdict = judge_story(labelled.text);
    ASSERT_TRUE(verdict.reason.starts_with("the story stops before it tells"))
        << labelled.text << verdict.reason;
    // What comes next tells who was right: the judge expects a different beat for each label.
    const auto expects = [&](std::initializer_list<const char*> beats) {
      return std::any_of(beats.begin(), beats.end(),
                         [&](const char* beat) { return verdict.reason.find(beat) != std::string::npos; });
    };
    EXPECT_EQ(expects({"how glad", " gives ", " helps, ", " finds the "}), labelled.label == "happy")
        << verdict.reason;
    EXPECT_EQ(expects({"how sad", ", since ", "nothing helps", "there is no"}), labelled.label == "sad")
        << verdict.reason;
  }
}

TEST(Questions, HaveAnswersThatStandInTheStoryOrFollowFromIt) {
  std::map<std::string, int> kinds;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    const Question question = make_question(3, i);
    ASSERT_TRUE(judge_story(question.story).valid);
    EXPECT_TRUE(question.question.ends_with("?"));
    EXPECT_EQ(question.question.find_first_of("{}"), std::string::npos);
    EXPECT_EQ(question.answer.find("something"), std::string::npos) << question.question;
    ++kinds[question.question.substr(0, question.question.find(' '))];
    // "to wear it" may stand as "and wear it", "a kite" as "the kite", "on the hill" as "to the hill".
    std::string words = question.answer;
    for (const std::string article : {"to ", "a ", "at ", "on ", "in ", "the "})
      if (words.starts_with(article)) words = words.substr(article.size());
    if (words != "nobody" && words != "yes" && words != "no") {
      EXPECT_NE(question.story.find(words), std::string::npos) << question.question << question.answer;
    }
  }
  EXPECT_EQ(kinds.size(), 5u);  // Who, What, Why, Where, Does
}

TEST(Preferences, HaveOneTrueAndOneBrokenContinuation) {
  std::set<std::string> reasons;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const Preference pair = make_preference(3, i);
    EXPECT_TRUE(judge_story(pair.prompt + pair.chosen).valid);
    const Verdict verdict = judge_story(pair.prompt + pair.rejected);
    EXPECT_FALSE(verdict.valid);
    EXPECT_EQ(verdict.reason, pair.why);
    EXPECT_GT(verdict.offset, pair.prompt.size());
    EXPECT_TRUE(pair.chosen.starts_with(" "));
    EXPECT_TRUE(pair.prompt.ends_with(".") || pair.prompt.ends_with("!")) << pair.prompt;
    reasons.insert(pair.why.substr(0, 5));
  }
  EXPECT_GT(reasons.size(), 20u);
}

TEST(Labels, DoNotRepeatTheCorpus) {
  std::unordered_set<std::string> corpus;
  for (std::uint64_t i = 0; i < 20000; ++i) corpus.insert(generate_story(1, i).text);
  for (std::uint64_t i = 0; i < 2000; ++i) {
    const Preference pair = make_preference(1, i);
    EXPECT_FALSE(corpus.contains(make_question(1, i).story));
    EXPECT_FALSE(corpus.contains(pair.prompt + pair.chosen));
  }
}

}  // namespace
}  // namespace llm
