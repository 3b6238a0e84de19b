// Where a rank stands in three dimensions: pipeline, data and tensor parallel.
//
// Ranks that talk most are neighbours: tensor parallel ranks, which meet several times per layer, are
// innermost, then come data parallel ones; pipeline stages are outermost (Narayanan et al. 2021, section 3).
// Chapter 6 explains it.
#pragma once

#include <memory>
#include <string>

#include "common/parallel/communicator.h"

namespace llm {

struct Layout {
  int pp = 1, dp = 1, tp = 1;
  int ranks() const { return pp * dp * tp; }
  bool operator==(const Layout&) const = default;
};

/// "pp 2, dp 2, tp 2".
std::string to_string(const Layout& layout);
/// The same with as many data-parallel ranks as make it `ranks`. UsageError if there is no such number.
Layout fill_layout(const Layout& layout, int ranks);
/// UsageError unless all are at least 1 and their product is `ranks`.
void validate(const Layout& layout, int ranks);

/// A rank's place and the communicators along each dimension.
struct Grid {
  /// All ranks of `world` call it together.
  Grid(Communicator& world, const Layout& layout);

  Layout layout;
  int pp_rank = 0, dp_rank = 0, tp_rank = 0;
  Communicator& world;
  std::unique_ptr<Communicator> pp, dp, tp;
  std::unique_ptr<Communicator> control;  // of all ranks: a few numbers per step (losses, the norm)
};

}  // namespace llm
