// Rank 0 tells its options, and all compare. See agreement.h.
#include "common/parallel/agreement.h"

#include <algorithm>
#include <cstring>
#include <sstream>
#include <vector>

namespace llm {

namespace {

Tensor number(std::int64_t value) {
  return Tensor::from(std::vector<std::int32_t>{static_cast<std::int32_t>(value)}, {1});
}

/// The text of rank `root`, on all.
std::string broadcast_text(Communicator& world, const std::string& mine, int root) {
  const Tensor length = number(std::ssize(mine));
  world.broadcast(length, root).wait();
  const std::int32_t bytes = length.data<std::int32_t>()[0];
  const Tensor words({(bytes + 3) / 4}, DType::i32);
  if (world.rank() == root) std::memcpy(words.raw(), mine.data(), mine.size());
  world.broadcast(words, root).wait();
  return std::string(reinterpret_cast<const char*>(words.raw()), static_cast<std::size_t>(bytes));
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

}  // namespace

void check_agreement(Communicator& world, const std::map<std::string, std::string>& asked) {
  std::string mine;
  for (const auto& [name, value] : asked) mine += fmt::format("{} = {}\n", name, value);
  const std::string first = broadcast_text(world, mine, 0);
  // The lowest rank that differs has the largest number here.
  const Tensor differs = number(mine == first ? 0 : world.size() - world.rank());
  world.all_reduce(differs, ReduceOp::max).wait();
  const std::int32_t largest = differs.data<std::int32_t>()[0];
  if (largest == 0) return;
  const int odd = world.size() - largest;
  const auto theirs = lines_of(broadcast_text(world, mine, odd)), usual = lines_of(first);
  const auto [here, there] = std::ranges::mismatch(theirs, usual);
  fail_usage("rank {} was started with {}, but rank 0 with {}; start all ranks with the same options", odd,
             here == theirs.end() ? "less" : *here, there == usual.end() ? "less" : *there);
}

}  // namespace llm
