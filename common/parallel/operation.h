// What a rank asked for, in a form that ranks can compare, count and print; and what all backends check.
//
// Chapter 6 explains it.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/parallel/communicator.h"

namespace llm {

struct Operation {
  enum class Kind { all_reduce, reduce_scatter, all_gather, broadcast, send, recv, exchange, barrier, split };
  Kind kind = Kind::barrier;
  /// Position among the collective operations of its communicator, from 1; of a send or recv: among the
  /// messages from the one rank to the other.
  std::int64_t sequence = 0;
  std::int64_t count = 0;  // elements: of x (all_reduce, broadcast, send, recv, reduce_scatter) or of `all`
  DType dtype = DType::f32;
  ReduceOp reduce = ReduceOp::sum;
  int peer = -1;  // root of a broadcast, other side of a message

  /// Whether two ranks' calls are one and the same collective operation.
  bool matches(const Operation& other) const;
};

std::string_view name(Operation::Kind kind);
/// "all_reduce of 1024 f32", "broadcast of 10 i32 from rank 2", "send of 3 f32 to rank 1", "barrier".
std::string describe(const Operation& operation);
/// "all_reduce #5 of 1024 f32 on 'world'".
std::string describe(const Operation& operation, const std::string& communicator);
/// "rank 2", "ranks 0, 2 and 3"; where `ranks_of_run` says that rank i of the communicator is another one of
/// the whole run: "ranks 0 and 1 (of the whole run: 2 and 3)".
std::string describe_ranks(std::span<const int> ranks, std::span<const int> ranks_of_run = {});

// The operations, checked: Error if counts, dtypes, root or peer make no sense on `n` ranks.
Operation all_reduce_operation(const Tensor& x, ReduceOp reduce);
Operation reduce_scatter_operation(const Tensor& part, const Tensor& x, int n);
Operation all_gather_operation(const Tensor& all, const Tensor& part, int n);
Operation broadcast_operation(const Tensor& x, int root, int n);
Operation send_operation(const Tensor& x, int to, int n);
Operation recv_operation(const Tensor& x, int from, int n);

/// One sentence that names the rank that differs and both sides, empty if all calls match. The ranks that
/// most agree with are right; `calls[i]` is the call of `ranks[i]`.
std::string describe_mismatch(std::span<const Operation> calls, std::span<const int> ranks,
                              const std::string& communicator);

/// The Error of a wait that lasted too long: "all_reduce #5 of 3 f32 on 'world' has waited 60 s for rank 2".
DeadlineError deadline_error(const Operation& operation, const std::string& communicator, double seconds,
                             const std::string& whom);

/// Measures how long a wait lasts. Looked at often, it leaves out the time in which this process was stopped,
/// so that a laptop that slept, or a debugger, ends no run.
class Patience {
 public:
  explicit Patience(double seconds);
  /// How long to sleep at most before the next look.
  std::chrono::microseconds slice() const { return slice_; }
  /// A look at the clock: whether the deadline has passed.
  bool over();

 private:
  using Clock = std::chrono::steady_clock;
  std::chrono::microseconds slice_, limit_, waited_{0};
  Clock::time_point last_ = Clock::now();
};

}  // namespace llm
