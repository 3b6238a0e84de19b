#include <array>
#include <map>
#include <numeric>
#include <utility>

#include "common/parallel/operation.h"
#include "common/parallel/wrappers.h"

namespace llm {

namespace {

using Kind = Operation::Kind;

constexpr std::int64_t kRecord = 8;  // numbers of a record

void write_record(std::int32_t* to, const Operation& o) {
  const auto low = [](std::int64_t x) { return static_cast<std::int32_t>(x & 0x7fffffff); };
  const auto high = [](std::int64_t x) { return static_cast<std::int32_t>(x >> 31); };
  const std::array<std::int32_t, kRecord> numbers = {static_cast<std::int32_t>(o.kind),
                                                     low(o.sequence),
                                                     high(o.sequence),
                                                     low(o.count),
                                                     high(o.count),
                                                     static_cast<std::int32_t>(o.dtype),
                                                     static_cast<std::int32_t>(o.reduce),
                                                     o.peer};
  std::copy(numbers.begin(), numbers.end(), to);
}

Operation read_record(const std::int32_t* from) {
  const auto join = [](std::int32_t low, std::int32_t high) {
    return static_cast<std::int64_t>(high) << 31 | low;
  };
  return {.kind = static_cast<Kind>(from[0]),
          .sequence = join(from[1], from[2]),
          .count = join(from[3], from[4]),
          .dtype = static_cast<DType>(from[5]),
          .reduce = static_cast<ReduceOp>(from[6]),
          .peer = from[7]};
}

/// What a destructor of a Work found and could not throw.
using Memory = std::shared_ptr<std::string>;

/// An operation and the records that go with it.
struct CheckedState : Work::State {
  Operation call;
  std::string name;
  Memory memory;
  Tensor mine, records;             // the record(s) of this rank; of all ranks, or of the messages received
  std::vector<Operation> expected;  // of the messages received: what they should be
  Work control, data;
  bool messages = false;  // or a collective operation
  bool checked = false;

  void compare() {
    if (std::exchange(checked, true)) return;
    const auto* record = records.data<std::int32_t>();
    std::string sentence;
    if (messages) {
      for (const Operation& recv : expected) {
        const Operation send = read_record(record);
        record += kRecord;
        if (send.sequence != recv.sequence || send.count != recv.count || send.dtype != recv.dtype)
          sentence = fmt::format("message #{} on '{}' differs: rank {} calls {}, but rank {} calls {}",
                                 recv.sequence, name, recv.peer, describe(send), send.peer, describe(recv));
      }
    } else {
      std::vector<Operation> calls;
      for (std::int64_t r = 0; r < records.numel() / kRecord; ++r)
        calls.push_back(read_record(record + r * kRecord));
      std::vector<int> ranks(calls.size());
      std::iota(ranks.begin(), ranks.end(), 0);
      sentence = describe_mismatch(calls, ranks, name);
    }
    if (sentence.empty()) return;
    *memory = sentence;
    throw Error(sentence);
  }

  void wait() override {
    try {
      control.wait();
      compare();
      data.wait();
    } catch (const DeadlineError& e) {  // tell of the operation, not of its record
      auto named = deadline_error(call, name, e.seconds, e.whom);
      named.history = e.history;
      *memory = named.what();
      throw named;
    }
  }
  bool done() override {
    if (!control.done()) return false;
    control.wait();
    compare();
    return data.done();
  }
};

class CheckingCommunicator final : public Communicator {
 public:
  CheckingCommunicator(std::unique_ptr<Communicator> inner, std::unique_ptr<Communicator> control)
      : inner_(std::move(inner)), control_(std::move(control)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::string& name() const override { return inner_->name(); }

  Work all_reduce(const Tensor& x, ReduceOp op) override {
    auto state = collective(all_reduce_operation(x, op));
    state->data = inner_->all_reduce(x, op);
    return Work(std::move(state));
  }
  Work reduce_scatter(const Tensor& part, const Tensor& x) override {
    auto state = collective(reduce_scatter_operation(part, x, size()));
    state->data = inner_->reduce_scatter(part, x);
    return Work(std::move(state));
  }
  Work all_gather(const Tensor& all, const Tensor& part) override {
    auto state = collective(all_gather_operation(all, part, size()));
    state->data = inner_->all_gather(all, part);
    return Work(std::move(state));
  }
  Work broadcast(const Tensor& x, int root) override {
    auto state = collective(broadcast_operation(x, root, size()));
    state->data = inner_->broadcast(x, root);
    return Work(std::move(state));
  }
  Work exchange(std::span<const Transfer> transfers) override;
  void barrier() override {
    Work(collective({.kind = Kind::barrier})).wait();
    inner_->barrier();
  }
  std::unique_ptr<Communicator> split(int colour, int key, std::string name) override {
    Work(collective({.kind = Kind::split})).wait();
    auto control = control_->split(colour, key, name);
    return std::make_unique<CheckingCommunicator>(inner_->split(colour, key, std::move(name)),
                                                  std::move(control));
  }
  void abort(const std::string& why) override { inner_->abort(why); }

 private:
  std::unique_ptr<CheckedState> begin(const Operation& call) {
    if (!memory_->empty()) throw Error(*memory_);
    auto state = std::make_unique<CheckedState>();
    state->call = call;
    state->name = name();
    state->memory = memory_;
    return state;
  }
  /// The records are under way.
  std::unique_ptr<CheckedState> collective(Operation call) {
    call.sequence = ++sequence_;
    auto state = begin(call);
    state->mine = Tensor::uninitialized({kRecord}, DType::i32);
    state->records = Tensor::uninitialized({size() * kRecord}, DType::i32);
    write_record(state->mine.data<std::int32_t>(), call);
    state->control = control_->all_gather(state->records, state->mine);
    return state;
  }

  std::unique_ptr<Communicator> inner_, control_;
  std::int64_t sequence_ = 0;  // of the last collective operation
  std::int64_t exchanges_ = 0;
  std::map<int, std::int64_t> sent_, received_;  // messages, by the other rank
  Memory memory_ = std::make_shared<std::string>();
};

// Each message has a record that goes with it over `control`; the receiver compares.
Work CheckingCommunicator::exchange(std::span<const Transfer> transfers) {
  auto state = begin({.kind = Kind::exchange, .sequence = ++exchanges_});
  state->messages = true;
  state->mine = Tensor::uninitialized({std::ssize(transfers) * kRecord}, DType::i32);
  state->records = Tensor::uninitialized({std::ssize(transfers) * kRecord}, DType::i32);
  std::vector<Transfer> records;
  for (std::int64_t i = 0, received = 0; i < std::ssize(transfers); ++i) {
    const auto& [kind, tensor, peer] = transfers[static_cast<std::size_t>(i)];
    const bool sends = kind == Transfer::Kind::send;
    Operation call = sends ? send_operation(tensor, peer, size()) : recv_operation(tensor, peer, size());
    call.sequence = ++(sends ? sent_ : received_)[peer];
    if (transfers.size() == 1) state->call = call;
    if (sends) {
      write_record(state->mine.data<std::int32_t>() + i * kRecord, call);
      records.push_back({kind, state->mine.range(i * kRecord, {kRecord}), peer});
    } else {
      state->expected.push_back(call);
      records.push_back({kind, state->records.range(received++ * kRecord, {kRecord}), peer});
    }
  }
  state->control = control_->exchange(records);
  state->data = inner_->exchange(transfers);
  return Work(std::move(state));
}

}  // namespace

std::unique_ptr<Communicator> make_checking_communicator(std::unique_ptr<Communicator> inner,
                                                         std::unique_ptr<Communicator> control) {
  if (control == nullptr) control = inner->split(0, inner->rank(), inner->name());
  check(control->size() == inner->size() && control->rank() == inner->rank(),
        "the communicator '{}' has rank {} of {}, the one that checks it rank {} of {}", inner->name(),
        inner->rank(), inner->size(), control->rank(), control->size());
  return std::make_unique<CheckingCommunicator>(std::move(inner), std::move(control));
}

}  // namespace llm
