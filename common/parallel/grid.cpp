#include "common/parallel/grid.h"

#include "common/core/error.h"

namespace llm {

std::string to_string(const Layout& layout) {
  return fmt::format("pp {}, dp {}, tp {}", layout.pp, layout.dp, layout.tp);
}

Layout fill_layout(const Layout& layout, int ranks) {
  const int each = layout.pp * layout.tp;
  if (ranks % each != 0)
    fail_usage("{} ranks cannot be shared out over pp {} x tp {}; use a multiple of {}", ranks, layout.pp,
               layout.tp, each);
  return {.pp = layout.pp, .dp = ranks / each, .tp = layout.tp};
}

void validate(const Layout& layout, int ranks) {
  if (layout.pp < 1 || layout.dp < 1 || layout.tp < 1)
    fail_usage("every dimension of a layout has at least one rank, got {}", to_string(layout));
  if (layout.ranks() != ranks)
    fail_usage("a layout of {} has {} ranks, but there are {}", to_string(layout), layout.ranks(), ranks);
}

Grid::Grid(Communicator& all, const Layout& wanted) : layout(wanted), world(all) {
  validate(layout, world.size());
  const int rank = world.rank();
  tp_rank = rank % layout.tp;
  dp_rank = rank / layout.tp % layout.dp;
  pp_rank = rank / (layout.tp * layout.dp);
  // A group is named by what its members have in common, and ordered by what they differ in.
  pp = world.split(dp_rank * layout.tp + tp_rank, pp_rank, "pp");
  dp = world.split(pp_rank * layout.tp + tp_rank, dp_rank, "dp");
  tp = world.split(pp_rank * layout.dp + dp_rank, tp_rank, "tp");
  control = world.split(0, rank, "control");
}

}  // namespace llm
