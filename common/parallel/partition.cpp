#include "common/parallel/partition.h"

#include <algorithm>

#include "common/core/error.h"

namespace llm {

Partition::Partition(const GptStage& stage, int ranks_, int rank_) : ranks(ranks_), rank(rank_) {
  const std::vector<Parameter>& all = stage.parameters().all();
  for (const ParameterUnit& unit : stage.units()) {
    UnitPieces u{.parameters = unit};
    u.begin = unit.first < all.size() ? all[unit.first].offset : stage.parameters().count();
    u.count = stage.parameters().count(unit.first, unit.last);
    u.piece = (u.count + ranks - 1) / ranks;
    u.shard = shard_count;
    shard_count += u.piece;

    const std::int64_t mine = u.begin + std::min(u.count, rank * u.piece);
    const std::int64_t end = u.begin + std::min(u.count, (rank + 1) * u.piece);
    for (std::size_t i = unit.first; i < unit.last; ++i) {
      const Parameter& p = all[i];
      if (!p.trains) continue;
      u.trains = true;
      const std::int64_t first = std::max(mine, p.offset);
      const std::int64_t last = std::min(end, p.offset + element_count(p.shape));
      if (first >= last) continue;
      if (!owned.empty()) {
        OwnedRange& before = owned.back();
        if (before.unit == units.size() && before.decay == p.decay && before.counted == p.owner &&
            before.flat + before.count == first) {
          before.count += last - first;
          moment_count += last - first;
          continue;
        }
      }
      owned.push_back({.unit = units.size(),
                       .flat = first,
                       .shard = u.shard + first - mine,
                       .count = last - first,
                       .moment = moment_count,
                       .decay = p.decay,
                       .counted = p.owner});
      moment_count += last - first;
    }
    units.push_back(u);
  }
}

std::int64_t Partition::moment_of(std::int64_t flat) const {
  for (const OwnedRange& range : owned)
    if (flat >= range.flat && flat < range.flat + range.count) return range.moment + flat - range.flat;
  throw Error(fmt::format("this rank has no moments of element {}", flat));
}

}  // namespace llm
