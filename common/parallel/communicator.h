// Communicator: what ranks say to each other, whatever carries it.
//
// A rank is one participant of a parallel run: a thread (threads_communicator.h), a process under mpirun
// (mpi_communicator.h) or a process with a GPU (nccl_communicator.h). All ranks of a communicator call the
// same operations in the same order; send and recv pair up. On CPUs reductions add in rank order, so their
// result is the same to the last bit for every algorithm and backend. Chapter 6 explains it.
//
// Every operation returns at once with a `Work`; the tensors belong to it until `wait` returns. Every wait
// has a deadline: when it passes, or a rank fails, all ranks end with an Error that names the operation and
// the rank.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/core/tensor.h"

namespace llm {

enum class ReduceOp { sum, max };

/// How long to wait for others.
struct CommunicatorOptions {
  /// Seconds that one wait may last. Time in which this process itself was stopped does not count.
  double deadline = default_deadline();
  static double default_deadline();  // the environment's LLM_DEADLINE, or 60
};

/// A wait lasted longer than the deadline, or this process was told to end while it waited.
struct DeadlineError : Error {
  using Error::Error;
  double seconds = 0;   // the deadline; -1: told to end
  std::string whom;     // who was waited for: "ranks 0 and 2"
  std::string history;  // the last operations of this rank, line by line, if somebody kept them (tracing)
};

/// This rank ends because another one failed; the sentence says which and why.
struct PeerError : Error {
  using Error::Error;
};

/// An operation under way. Waits when it is destroyed, unless it was waited for or an exception is in flight;
/// if that wait fails, the next operation of this rank throws the Error.
class Work {
 public:
  struct State {
    virtual ~State() = default;
    virtual void wait() = 0;  // Error if the operation failed or the deadline passed
    virtual bool done() = 0;  // without waiting
  };
  Work() = default;  // of an operation that is over
  explicit Work(std::unique_ptr<State> state) : state_(std::move(state)) {}
  Work(Work&&) noexcept = default;
  Work& operator=(Work&& other);
  ~Work();
  void wait();
  bool done();

 private:
  std::unique_ptr<State> state_;
};

/// One message of a grouped exchange.
struct Transfer {
  enum class Kind { send, recv } kind;
  Tensor tensor;
  int peer = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const std::string& name() const = 0;  // "world", "dp", "tp", ...: for messages

  // Tensors are f32, bf16 or i32 (i32 is not reduced except by max and sum), of any shape; counts agree on
  // all ranks. An empty tensor is fine.

  /// x = sum (or largest) of all ranks' x, in place.
  virtual Work all_reduce(const Tensor& x, ReduceOp op = ReduceOp::sum) = 0;
  /// part = this rank's piece of the sum of all ranks' x. x: n elements per rank, size() * n; part: n. part
  /// may be a view of its place in x.
  virtual Work reduce_scatter(const Tensor& part, const Tensor& x) = 0;
  /// all = the ranks' parts, one after the other. part may be a view of its place in `all`.
  virtual Work all_gather(const Tensor& all, const Tensor& part) = 0;
  virtual Work broadcast(const Tensor& x, int root) = 0;
  /// Point to point; messages between two ranks arrive in order. A send may wait for its recv.
  /// Unless a backend knows better they are exchanges of one.
  virtual Work send(const Tensor& x, int to);
  virtual Work recv(const Tensor& x, int from);
  /// All of them at once: no order among them can deadlock.
  virtual Work exchange(std::span<const Transfer> transfers) = 0;
  virtual void barrier() = 0;

  /// Ranks of equal `colour` form a new communicator, ordered by `key` (then by rank).
  virtual std::unique_ptr<Communicator> split(int colour, int key, std::string name) = 0;
  /// Ends all ranks: their next or pending operation throws an Error with this sentence. Does not return to a
  /// working state.
  virtual void abort(const std::string& why) = 0;
};

}  // namespace llm
