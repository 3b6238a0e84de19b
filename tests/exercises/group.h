// Ranks as threads, for exercises whose functions reduce over a tensor-parallel group. A rank that waits for
// another that has finished is told so: no mistake hangs.
#pragma once

#include <functional>
#include <span>

namespace llm::exercises {

/// x = the sum, or the largest, of all ranks' x, element by element. All ranks call them in the same order,
/// with spans of equal size.
using Reduce = std::function<void(std::span<float> x)>;

struct GroupRank {
  int rank = 0, size = 1;
  Reduce sum = nullptr, most = nullptr;
  std::size_t reduced = 0;  // elements that this rank has reduced so far
};

/// Runs body(rank) on `size` threads. False, with a failure of the test, if the ranks did not call the same
/// operations or one of them threw.
bool run_group(int size, const std::function<void(GroupRank&)>& body);

}  // namespace llm::exercises
