// How good a model is on text that it was not trained on. Chapter 5 explains it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "common/model/gpt.h"
#include "common/text/batches.h"

namespace llm {

struct WindowLoss {
  double nats_per_token = 0;
  std::int64_t tokens = 0;  // targets that were counted
};

/// The mean loss over windows of `length` tokens that stand one behind the other, `batch` at a time: all of
/// them, or if `max_batches` > 0 that many batches spread evenly over the tokens. Within a window a token is
/// predicted from the tokens of the window before it. Error if there is not one window.
WindowLoss evaluate_windows(GptStage& model, const TokenView& tokens, std::int64_t length, std::int64_t batch,
                            std::int64_t max_batches = 0);

/// For each document the sum over its tokens and the end-of-text token behind it of -log p(token |
/// end-of-text, the document so far), in nats: what the model pays for the document as a whole. Error if a
/// document does not fit in the model's context.
std::vector<double> evaluate_documents(GptStage& model, const TokenView& tokens,
                                       std::span<const TokenRange> documents, std::int32_t separator,
                                       std::int64_t batch = 32);

/// A model's loss on stories beside the lowest possible one, both over the same stories.
struct FloorDistance {
  std::int64_t stories = 0, tokens = 0, bytes = 0;  // tokens with the end-of-text token of each story
  double model_nats = 0;                            // sums over all stories
  double floor_nats = 0;
  double above_floor_per_token() const { return (model_nats - floor_nats) / static_cast<double>(tokens); }
};

/// Compares what the model pays for each document with -log of the probability with which the story world
/// tells it. `texts` are the documents' texts. Error if one is not a story of the story world.
FloorDistance compare_with_floor(std::span<const double> model_nats, std::span<const TokenRange> documents,
                                 std::span<const std::string> texts);

/// Whether every text is a story of the story world, so that the floor is known.
bool all_stories(std::span<const std::string> texts);

}  // namespace llm
