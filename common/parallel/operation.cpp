#include "common/parallel/operation.h"

#include <algorithm>

namespace llm {

bool Operation::matches(const Operation& other) const {
  return kind == other.kind && sequence == other.sequence && count == other.count && dtype == other.dtype &&
         reduce == other.reduce && peer == other.peer;
}

std::string_view name(Operation::Kind kind) {
  using Kind = Operation::Kind;
  switch (kind) {
    case Kind::all_reduce:
      return "all_reduce";
    case Kind::reduce_scatter:
      return "reduce_scatter";
    case Kind::all_gather:
      return "all_gather";
    case Kind::broadcast:
      return "broadcast";
    case Kind::send:
      return "send";
    case Kind::recv:
      return "recv";
    case Kind::exchange:
      return "exchange";
    case Kind::barrier:
      return "barrier";
    case Kind::split:
      return "split";
  }
  return "unknown operation";
}

namespace {

/// What stands behind the operation's name: " of 10 i32 from rank 2".
std::string describe_arguments(const Operation& o) {
  using Kind = Operation::Kind;
  if (o.kind == Kind::barrier || o.kind == Kind::split || o.kind == Kind::exchange) return "";
  std::string text = fmt::format(" of {} {}", o.count, name(o.dtype));
  if (o.kind == Kind::all_reduce && o.reduce == ReduceOp::max) text += " (max)";
  if (o.kind == Kind::broadcast || o.kind == Kind::recv) text += fmt::format(" from rank {}", o.peer);
  if (o.kind == Kind::send) text += fmt::format(" to rank {}", o.peer);
  return text;
}

}  // namespace

std::string describe(const Operation& operation) {
  return fmt::format("{}{}", name(operation.kind), describe_arguments(operation));
}

std::string describe(const Operation& operation, const std::string& communicator) {
  return fmt::format("{} #{}{} on '{}'", name(operation.kind), operation.sequence,
                     describe_arguments(operation), communicator);
}

std::string describe_ranks(std::span<const int> ranks, std::span<const int> ranks_of_run) {
  if (ranks.empty()) return "no rank";
  const auto list = [](std::span<const int> numbers) {
    if (numbers.size() == 1) return fmt::format("{}", numbers[0]);
    return fmt::format("{} and {}", fmt::join(numbers.first(numbers.size() - 1), ", "), numbers.back());
  };
  std::string text = fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", list(ranks));
  std::vector<int> of_run;
  for (const int rank : ranks)
    if (!ranks_of_run.empty()) of_run.push_back(ranks_of_run[static_cast<std::size_t>(rank)]);
  if (!of_run.empty() && !std::ranges::equal(of_run, ranks))
    text += fmt::format(" (of the whole run: {})", list(of_run));
  return text;
}

Operation all_reduce_operation(const Tensor& x, ReduceOp reduce) {
  return {.kind = Operation::Kind::all_reduce, .count = x.numel(), .dtype = x.dtype(), .reduce = reduce};
}

Operation reduce_scatter_operation(const Tensor& part, const Tensor& x, int n) {
  check(part.numel() * n == x.numel() && part.dtype() == x.dtype(),
        "reduce_scatter on {} ranks: {} {} are not {} times {} {}", n, x.numel(), name(x.dtype()), n,
        part.numel(), name(part.dtype()));
  return {.kind = Operation::Kind::reduce_scatter, .count = x.numel(), .dtype = x.dtype()};
}

Operation all_gather_operation(const Tensor& all, const Tensor& part, int n) {
  check(part.numel() * n == all.numel() && part.dtype() == all.dtype(),
        "all_gather on {} ranks: {} {} are not {} times {} {}", n, all.numel(), name(all.dtype()), n,
        part.numel(), name(part.dtype()));
  return {.kind = Operation::Kind::all_gather, .count = all.numel(), .dtype = all.dtype()};
}

namespace {

Operation with_peer(Operation::Kind kind, const Tensor& x, int peer, int n) {
  check(peer >= 0 && peer < n, "{}: there is no rank {} among {}", name(kind), peer, n);
  return {.kind = kind, .count = x.numel(), .dtype = x.dtype(), .peer = peer};
}

}  // namespace

Operation broadcast_operation(const Tensor& x, int root, int n) {
  return with_peer(Operation::Kind::broadcast, x, root, n);
}

Operation send_operation(const Tensor& x, int to, int n) {
  return with_peer(Operation::Kind::send, x, to, n);
}

Operation recv_operation(const Tensor& x, int from, int n) {
  return with_peer(Operation::Kind::recv, x, from, n);
}

std::string describe_mismatch(std::span<const Operation> calls, std::span<const int> ranks,
                              const std::string& communicator) {
  // What most call; the first such call where several are as frequent.
  std::size_t usual = 0, most = 0;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const auto count = static_cast<std::size_t>(
        std::count_if(calls.begin(), calls.end(), [&](const Operation& o) { return o.matches(calls[i]); }));
    if (count > most) usual = i, most = count;
  }
  if (most == calls.size()) return "";
  std::vector<int> agreeing;
  std::size_t odd = calls.size();
  for (std::size_t i = 0; i < calls.size(); ++i) {
    if (calls[i].matches(calls[usual]))
      agreeing.push_back(ranks[i]);
    else if (odd == calls.size())
      odd = i;
  }
  return fmt::format(
      "the ranks of '{}' do not call the same operation: rank {} calls {} #{}{}, but {} call{} {} #{}{}",
      communicator, ranks[odd], name(calls[odd].kind), calls[odd].sequence, describe_arguments(calls[odd]),
      describe_ranks(agreeing), agreeing.size() == 1 ? "s" : "", name(calls[usual].kind),
      calls[usual].sequence, describe_arguments(calls[usual]));
}

DeadlineError deadline_error(const Operation& operation, const std::string& communicator, double seconds,
                             const std::string& whom) {
  const std::string what = describe(operation, communicator);
  DeadlineError error(
      seconds >= 0 ? fmt::format("{} has waited {:g} s for {}", what, seconds, whom)
                   : fmt::format("{} was waiting for {} when this process was told to end", what, whom));
  error.seconds = seconds;
  error.whom = whom;
  return error;
}

Patience::Patience(double seconds)
    : slice_(static_cast<std::int64_t>(std::clamp(seconds / 20, 1e-3, 0.25) * 1e6)),
      limit_(static_cast<std::int64_t>(seconds * 1e6)) {}

bool Patience::over() {
  const auto now = Clock::now();
  waited_ += std::min(std::chrono::duration_cast<std::chrono::microseconds>(now - last_), 2 * slice_);
  last_ = now;
  return waited_ >= limit_;
}

}  // namespace llm
