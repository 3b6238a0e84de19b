// Labels with known truth, drawn from the story world: the data that chapter 7 fine-tunes on.
//
// Everything here is a function of (seed, index) alone, and none of it reuses the stories of generate_story
// under the same seed: fine-tuning data does not repeat the pre-training corpus.
#pragma once

#include <cstdint>
#include <string>

namespace llm {

/// A story up to the moment when its ending is certain, but not told: will the hero be happy or sad? The
/// label follows from whether what was done agrees with what was said. Even indices are happy, odd ones sad.
struct LabelledStory {
  std::string text;
  std::string label;  ///< "happy" or "sad".
};
LabelledStory make_labelled_story(std::uint64_t seed, std::uint64_t index);

/// A whole story, and a question about it that has exactly one answer.
struct Question {
  std::string story;
  std::string question;
  std::string answer;
};
Question make_question(std::uint64_t seed, std::uint64_t index);

/// The beginning of a story and two ways to go on. `prompt + chosen` is a story, `prompt + rejected` is one
/// in which a single word breaks a fact, and `why` is the judge's reason.
struct Preference {
  std::string prompt;
  std::string chosen;
  std::string rejected;
  std::string why;
};
Preference make_preference(std::uint64_t seed, std::uint64_t index);

}  // namespace llm
