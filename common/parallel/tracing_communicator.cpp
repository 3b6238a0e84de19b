#include <map>
#include <utility>

#include "common/parallel/wrappers.h"

namespace llm {

namespace {

using Kind = Operation::Kind;

struct TracedState : Work::State {
  TracedState(std::shared_ptr<Trace> t, std::shared_ptr<Trace::Entry> e, Kind k, Work w)
      : trace(std::move(t)), entry(std::move(e)), kind(k), work(std::move(w)) {}
  void wait() override {
    if (entry->wait_us < 0) entry->wait_us = Trace::now_us();
    try {
      work.wait();
    } catch (DeadlineError& e) {
      if (e.history.empty()) e.history = trace->history();
      throw;
    }
    trace->end(*entry, kind);
  }
  bool done() override {
    if (!work.done()) return false;
    trace->end(*entry, kind);
    return true;
  }
  std::shared_ptr<Trace> trace;
  std::shared_ptr<Trace::Entry> entry;
  Kind kind;
  Work work;
};

class TracingCommunicator final : public Communicator {
 public:
  TracingCommunicator(std::unique_ptr<Communicator> inner, std::shared_ptr<Trace> trace)
      : inner_(std::move(inner)), trace_(std::move(trace)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::string& name() const override { return inner_->name(); }

  Work all_reduce(const Tensor& x, ReduceOp op) override {
    return traced(collective(all_reduce_operation(x, op)), [&] { return inner_->all_reduce(x, op); });
  }
  Work reduce_scatter(const Tensor& part, const Tensor& x) override {
    return traced(collective(reduce_scatter_operation(part, x, size())),
                  [&] { return inner_->reduce_scatter(part, x); });
  }
  Work all_gather(const Tensor& all, const Tensor& part) override {
    return traced(collective(all_gather_operation(all, part, size())),
                  [&] { return inner_->all_gather(all, part); });
  }
  Work broadcast(const Tensor& x, int root) override {
    return traced(collective(broadcast_operation(x, root, size())),
                  [&] { return inner_->broadcast(x, root); });
  }
  Work send(const Tensor& x, int to) override {
    Operation call = send_operation(x, to, size());
    call.sequence = ++sent_[to];
    return traced(call, [&] { return inner_->send(x, to); });
  }
  Work recv(const Tensor& x, int from) override {
    Operation call = recv_operation(x, from, size());
    call.sequence = ++received_[from];
    return traced(call, [&] { return inner_->recv(x, from); });
  }
  Work exchange(std::span<const Transfer> transfers) override {
    for (const auto& [kind, tensor, peer] : transfers) {
      const bool sends = kind == Transfer::Kind::send;
      ++(sends ? sent_ : received_)[peer];
      trace_->count(sends ? send_operation(tensor, peer, size()) : recv_operation(tensor, peer, size()),
                    name(), size());
    }
    return traced({.kind = Kind::exchange, .sequence = ++exchanges_},
                  [&] { return inner_->exchange(transfers); });
  }
  void barrier() override {
    traced(collective({.kind = Kind::barrier}), [&] {
      inner_->barrier();
      return Work();
    }).wait();
  }
  std::unique_ptr<Communicator> split(int colour, int key, std::string name) override {
    std::unique_ptr<Communicator> part;
    traced(collective({.kind = Kind::split}), [&] {
      part = inner_->split(colour, key, std::move(name));
      return Work();
    }).wait();
    return std::make_unique<TracingCommunicator>(std::move(part), trace_);
  }
  void abort(const std::string& why) override { inner_->abort(why); }

 private:
  Operation collective(Operation call) {
    call.sequence = ++sequence_;
    return call;
  }
  template <typename Start>
  Work traced(const Operation& call, const Start& start) {
    auto entry = trace_->begin(call, name(), size());
    if (call.kind == Kind::barrier || call.kind == Kind::split) entry->wait_us = entry->begin_us;
    try {
      return Work(std::make_unique<TracedState>(trace_, std::move(entry), call.kind, start()));
    } catch (DeadlineError& e) {  // of an operation that waits at once
      if (e.history.empty()) e.history = trace_->history();
      throw;
    }
  }

  std::unique_ptr<Communicator> inner_;
  std::shared_ptr<Trace> trace_;
  std::int64_t sequence_ = 0;  // of the last collective operation
  std::int64_t exchanges_ = 0;
  std::map<int, std::int64_t> sent_, received_;  // messages, by the other rank
};

}  // namespace

std::unique_ptr<Communicator> make_tracing_communicator(std::unique_ptr<Communicator> inner,
                                                        std::shared_ptr<Trace> trace) {
  return std::make_unique<TracingCommunicator>(std::move(inner), std::move(trace));
}

}  // namespace llm
