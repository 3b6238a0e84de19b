// Continuous batching: sequences that share the steps of one model, and join and leave at any of them.
//
// A step costs nearly the same for one sequence as for eight, for reading the weights is most of it. A batch
// that waits until its last sequence has ended wastes the places of those that ended before; so the batch is
// made anew for every step (iteration-level scheduling: Yu et al. 2022, "Orca", section 3.1). Each sequence
// has a row of the key-value cache, as long as it stays. Chapter 7 explains it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/generation/generate.h"
#include "common/model/gpt.h"

namespace llm {

/// Why a sequence has ended, if it has.
enum class Finish { none, stop, length };

class BatchEngine {
 public:
  /// A token drawn for the sequence `id`. The one that comes with Finish::stop is the stop token itself and
  /// not part of the text; with Finish::length it is the last of max_new_tokens.
  struct Drawn {
    std::int64_t id;
    std::int32_t token;
    Finish finish;
  };

  /// At most `rows` sequences at a time, each as long as the model's context. The model must outlive the
  /// engine.
  BatchEngine(const GptStage& model, std::int64_t rows);

  std::int64_t rows() const { return static_cast<std::int64_t>(places_.size()); }
  std::int64_t running() const { return running_; }
  std::int64_t cache_bytes() const;

  /// A sequence joins the next step; returns its id. It gets what `generate` would make of the same prompt
  /// and options, drawn with sequence number `number`: on the CPU the same bits, whoever else is running; on
  /// cuda the same bits in every engine with as many rows. Error if all rows are taken, or as `generate`;
  /// max_new_tokens must be at least 1.
  std::int64_t join(std::span<const std::int32_t> prompt, const GenerateOptions& options,
                    std::uint64_t number = 0);
  /// The sequence ends here, if it has not ended by itself: its row is free for another.
  void leave(std::int64_t id);

  /// One step: every sequence gets its next token, but of those that have just joined only the first, whose
  /// prompt is read in this step; so a crowd of newcomers holds nobody up for long. The result is in order of
  /// joining, and lives until the next step. What ended has left. Error (as sample_token) if a model's logits
  /// are no numbers; then all sequences stay as they were.
  std::span<const Drawn> step();

 private:
  struct Place {
    bool taken = false;
    std::int64_t id = 0;
    std::vector<std::int32_t> text;  // prompt and what was generated
    std::int64_t in_cache = 0;       // positions of the cache that are filled
    std::int64_t unread = 0;         // tokens at the end of the text that are not yet in the cache
    std::int64_t left = 0;           // tokens still to draw
    GenerateOptions options;
    std::uint64_t number = 0;
  };

  void make_room(Place& place) const;
  void read(std::size_t row);
  void read_together(const std::vector<std::size_t>& rows);
  std::span<float> logits_of(std::size_t row) const;

  const GptStage& model_;
  std::vector<Place> places_;
  std::int64_t running_ = 0, next_id_ = 0;
  KvCache cache_;
  ActivationMemory prompt_scratch_;
  Tensor logits_;  // (rows, V), a row for each row of the cache
  std::vector<Drawn> drawn_;
};

}  // namespace llm
