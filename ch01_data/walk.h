// The parts of the program ch01_data: the chapter's walk, and its three commands.
#pragma once

#include <cstdint>
#include <filesystem>

#include "common/cli/metrics.h"
#include "common/text/documents_folder.h"
#include "common/text/normalise.h"

namespace llm::ch01 {

/// The walk without arguments (walk_chapter.cpp): tells stories, makes the corpus in `folder` and looks at it
/// from all sides. A folder of other documents than stories is left alone.
void walk(const std::filesystem::path& folder, std::uint64_t seed, MetricsWriter& metrics);

/// `ch01_data generate`: the story world as a documents folder.
void generate(const std::filesystem::path& folder, const StoryCorpusOptions& options, MetricsWriter& metrics);

struct PrepareOptions {
  Paths inputs;
  double val_fraction = 0.1;
  std::uint64_t seed = 42;
  InvalidText invalid = InvalidText::fail;
  bool clean = true;  ///< normalise at all
  NormaliseOptions normalise;
  enum class Copies { keep, exact, near } copies = Copies::exact;
};

/// `ch01_data prepare`: any text as a documents folder.
void prepare(const std::filesystem::path& folder, const PrepareOptions& options, MetricsWriter& metrics);

/// `ch01_data judge`: the verdict on each story of a file.
void judge(const std::filesystem::path& file, MetricsWriter& metrics);

}  // namespace llm::ch01
