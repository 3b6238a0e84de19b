// That all ranks of a run were started with the same options.
#pragma once

#include <map>
#include <string>

#include "common/parallel/communicator.h"

namespace llm {

/// `asked` is what this rank was asked to do, by name. UsageError on all ranks, which names the first rank
/// that was asked for something else than rank 0 and what, unless all were asked the same. All ranks call it
/// together.
void check_agreement(Communicator& world, const std::map<std::string, std::string>& asked);

}  // namespace llm
