// The plot of the stories. Chapter 1.
#pragma once

#include "common/text/story_voice.h"

namespace llm {

/// What a finished telling knows beyond its sentences.
struct Ending {
  bool happy = false;             ///< Whether the hero gets the thing.
  std::size_t beats_to_know = 0;  ///< After so many beats this is certain, though not told yet.
};

/// Tells one story: a Narrator makes it up, a Reader follows a text.
Ending tell_story(Voice& voice);

}  // namespace llm
