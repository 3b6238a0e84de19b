// The story world: short English stories for a child, from a seeded generator whose every choice is known.
// Chapter 1 generates the corpus, chapter 5 trains on it, chapter 7 fine-tunes on its labels
// (story_labels.h).
//
// A story is told by a grammar with state (story_grammar.cpp), beat by beat: who wants what and why, what is
// in the way, what was said, what was then done, and how it ends. Each choice (which sentence, which word) is
// drawn with a probability that is a ratio of two small integers and depends on the state alone. Each choice
// also shows in the text at the moment it is made, so a reader who knows the grammar recovers all of them:
// there is exactly one way to tell each story. The probability of a story is therefore the product over its
// choices, and exact.
//
// That gives what no scraped corpus has: the lowest loss that any model can reach. If stories x come from p,
// a model q has an expected loss of
//
//     E[-log q(x)] = E[-log p(x)] + KL(p || q)  >=  E[-log p(x)],
//
// with equality only for q = p (Shannon 1948; Cover & Thomas, "Elements of Information Theory",
// theorem 2.6.3). The floor is the mean of -log p over the validation stories, in nats per story. It does not
// depend on the tokenizer: tokens are a function of the text, and a model of tokens spends at best -log p on
// all tokens of a story together with the end-of-text token that follows it. So
//
//     floor in nats per token = (nats per story) / (tokens per story, end-of-text included).
//
// (The expectation is what is bounded. A model may be below the floor on one story, and above it on others.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace llm {

struct Story {
  std::string text;  ///< ASCII, one paragraph, no line break at the end.
  double log_probability =
      0;  ///< Natural logarithm; -log_probability is the story's share of the entropy floor.
};

/// Story number `index` under `seed`. It depends on no other story, thread count or machine.
Story generate_story(std::uint64_t seed, std::uint64_t index);

/// What the judge finds in a text. Offsets are bytes from the start of the text.
struct Verdict {
  bool valid = false;
  std::string reason;        ///< Empty if valid; otherwise one sentence that names what is broken.
  std::size_t offset = 0;    ///< Where it breaks; the length of the text if it is valid, or stops too early.
  std::size_t sentence = 0;  ///< The beats of the story that are sound before that place.
  double log_probability = 0;  ///< As the generator's if valid, otherwise minus infinity.
};

/// Whether `text` is a story that the grammar can tell, exactly and to its end. Any bytes may come in.
Verdict judge_story(std::string_view text);

}  // namespace llm
