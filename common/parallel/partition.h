// Who owns what when n ranks share out the parameters of a stage (ZeRO: Rajbhandari et al. 2020, section 5).
//
// Each unit of the stage (the embedding, a block, the head) is a range of the flat buffers. It is cut into n
// pieces of equal size, the last of them filled up with zeros, and rank r owns piece r. So a unit's gradients
// can be reduced as soon as backward has completed them, while it goes on with the next. A rank's pieces, one
// after the other, are its shard. Chapter 6 explains it.
#pragma once

#include <cstdint>
#include <vector>

#include "common/model/gpt.h"

namespace llm {

/// A unit of a stage, cut into pieces.
struct UnitPieces {
  ParameterUnit parameters;
  std::int64_t begin = 0, count = 0;  // elements of the flat buffers
  std::int64_t piece = 0;             // elements of a piece, filled up
  std::int64_t shard = 0;             // where this rank's piece begins in its shard
  bool trains = false;                // some of it; what is frozen needs no reduction
};

/// Neighbouring elements that a rank owns and updates, treated alike. Frozen parameters are in none.
struct OwnedRange {
  std::size_t unit = 0;
  std::int64_t flat = 0, shard = 0, count = 0;  // first element in the flat buffers and in the shard
  std::int64_t moment = 0;                      // ... and among the moments of what the rank updates
  bool decay = true;                            // as in Parameter
  bool counted = true;                          // Parameter::owner
};

struct Partition {
  Partition(const GptStage& stage, int ranks, int rank);

  int ranks, rank;
  std::vector<UnitPieces> units;
  std::int64_t shard_count = 0;   // elements of a shard, the same on all ranks
  std::int64_t moment_count = 0;  // elements of the owned ranges
  std::vector<OwnedRange> owned;
  /// The place among the moments of an owned element of the flat buffers.
  std::int64_t moment_of(std::int64_t flat) const;
};

}  // namespace llm
