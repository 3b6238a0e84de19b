// A documents folder: what chapter 1 leaves for the chapters that follow.
//
//   train.jsonl  val.jsonl        the documents, {"text": ...} per line
//   about.json                    where they come from, their counts and, for stories, the entropy floor
//   labels.jsonl                  story world only: {"text", "label"}, for the classifier of chapter 7
//   questions.jsonl               {"story", "question", "answer"}
//   preferences.jsonl             {"prompt", "chosen", "rejected", "why"}
//   lengths.svg                   drawn by the walk of chapter 1
//
// The folder appears whole or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "common/text/split.h"

namespace llm {

/// The lowest loss that any model can reach on the validation stories, on average (story.h says why).
struct EntropyFloor {
  double nats_per_story = 0;  ///< mean of -log p(story) over the validation stories
  double standard_error = 0;  ///< of that mean, as an estimate for all stories
  double nats_per_byte = 0;   ///< sum of -log p over the sum of the stories' bytes
};

/// What about.json says.
struct DocumentsAbout {
  std::string source;  ///< "story world", or the files it was made of
  std::uint64_t seed = 0;
  double val_fraction = 0;
  std::int64_t train_documents = 0, val_documents = 0;
  std::int64_t train_bytes = 0, val_bytes = 0;  ///< of text, without JSON around it
  std::int64_t copies = 0;                      ///< story world: told twice; otherwise: removed
  std::optional<EntropyFloor> floor;            ///< story world only
};

/// Reads `folder`/about.json. Error if it is missing, no JSON or lacks a member.
DocumentsAbout read_documents_about(const std::filesystem::path& folder);

struct StoryCorpusOptions {
  std::int64_t bytes = 20'000'000;  ///< of all stories together; the last one may go beyond
  std::uint64_t seed = 42;
  double val_fraction = 0.1;
  std::int64_t labels = 2000, questions = 2000, preferences = 2000;
};

/// Writes a documents folder of the story world: stories 0, 1, 2, ... of the seed. The same options give the
/// same bytes, whatever the number of threads. `progress` is told the bytes of the stories so far. Error if a
/// side of the split stays empty, or if `folder` holds files that are not of a documents folder.
DocumentsAbout write_story_corpus(const std::filesystem::path& folder, const StoryCorpusOptions& options,
                                  const std::function<void(std::int64_t bytes)>& progress = {});

/// Writes a documents folder of any text. `about` is completed with the counts and returned.
DocumentsAbout write_documents_folder(const std::filesystem::path& folder, const Split& split,
                                      DocumentsAbout about);

}  // namespace llm
