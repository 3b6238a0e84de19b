// Losses over validation text. See evaluate.h.
#include "common/training/evaluate.h"

#include <algorithm>
#include <numeric>

#include "common/core/error.h"
#include "common/text/story.h"

namespace llm {

WindowLoss evaluate_windows(GptStage& model, const TokenView& tokens, std::int64_t length, std::int64_t batch,
                            std::int64_t max_batches) {
  const std::vector<std::int64_t> starts = sliding_starts(tokens.size(), length, length);
  const std::int64_t batches = batch_count(static_cast<std::int64_t>(starts.size()), batch, false);
  const std::int64_t taken = max_batches > 0 ? std::min(max_batches, batches) : batches;
  StageActivations saved;
  StageScratch scratch;
  WindowLoss result;
  double sum = 0;
  for (std::int64_t i = 0; i < taken; ++i) {
    const Batch b = make_batch(tokens, batch_starts(starts, batch, i * batches / taken), length);
    model.forward(saved, b.inputs);
    sum += model.loss(saved, scratch, b.targets, std::nullopt);
    result.tokens += b.targets.numel();
  }
  result.nats_per_token = sum / static_cast<double>(result.tokens);
  return result;
}

std::vector<double> evaluate_documents(GptStage& model, const TokenView& tokens,
                                       std::span<const TokenRange> documents, std::int32_t separator,
                                       std::int64_t batch) {
  check(batch >= 1, "a batch needs at least one document, got {}", batch);
  // Neighbours in length share a batch, so that little of it is filling.
  std::vector<std::size_t> order(documents.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return documents[a].size() < documents[b].size(); });
  std::vector<double> nats(documents.size());
  StageActivations saved;
  StageScratch scratch;
  for (std::size_t first = 0; first < order.size(); first += static_cast<std::size_t>(batch)) {
    const std::size_t last = std::min(order.size(), first + static_cast<std::size_t>(batch));
    std::vector<TokenRange> rows;
    for (std::size_t i = first; i < last; ++i) rows.push_back(documents[order[i]]);
    const Batch b = make_document_batch(tokens, rows, separator, model.config().context);
    model.forward(saved, b.inputs);
    model.loss(saved, scratch, b.targets, std::nullopt);
    const std::int64_t length = b.inputs.dim(1);
    const Tensor losses = saved.losses.to(Device::cpu);
    for (std::size_t i = first; i < last; ++i) {
      // Targets of -1 have a loss of 0.
      const float* row = losses.data() + static_cast<std::int64_t>(i - first) * length;
      nats[order[i]] = std::accumulate(row, row + length, 0.0);
    }
  }
  return nats;
}

FloorDistance compare_with_floor(std::span<const double> model_nats, std::span<const TokenRange> documents,
                                 std::span<const std::string> texts) {
  check(model_nats.size() == documents.size() && texts.size() == documents.size(),
        "there are {} losses and {} texts for {} documents", model_nats.size(), texts.size(),
        documents.size());
  FloorDistance result;
  for (std::size_t i = 0; i < documents.size(); ++i) {
    const Verdict verdict = judge_story(texts[i]);
    check(verdict.valid, "validation document {} is no story of the story world: {}", i, verdict.reason);
    ++result.stories;
    result.tokens += documents[i].size() + 1;
    result.bytes += static_cast<std::int64_t>(texts[i].size());
    result.model_nats += model_nats[i];
    result.floor_nats -= verdict.log_probability;
  }
  return result;
}

bool all_stories(std::span<const std::string> texts) {
  return !texts.empty() && std::all_of(texts.begin(), texts.end(),
                                       [](const std::string& text) { return judge_story(text).valid; });
}

}  // namespace llm
