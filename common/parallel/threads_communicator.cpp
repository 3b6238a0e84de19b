#include "common/parallel/threads_communicator.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <numeric>
#include <utility>

#include "common/parallel/operation.h"
#include "common/parallel/reduce.h"
#include "common/parallel/threads_run.h"

namespace llm {

namespace {

using Kind = Operation::Kind;
using Lock = std::unique_lock<std::mutex>;

constexpr std::int64_t kPiece = 16384;  // elements that a rank works on at a time

std::size_t at(int rank) {
  return static_cast<std::size_t>(rank);
}

void copy(const Tensor& to, const Tensor& from) {
  if (to.raw() != from.raw()) to.copy_from(from);
}

/// Two ranks' ends of one message.
struct Message {
  Operation send, recv;
  Tensor from, to;
  bool sent = false, received = false;  // called by the one, by the other
  bool taken = false, complete = false;
};

/// The messages from one rank to another that still lack one end: all of them lack the same one.
struct Mailbox {
  std::deque<std::shared_ptr<Message>> waiting;
  std::int64_t sent = 0, received = 0;
};

class Group;

/// Where the ranks meet for one collective operation.
struct Meeting {
  explicit Meeting(int n) : calls(at(n)), in(at(n)), out(at(n)), colours(at(n)), keys(at(n)), joins(at(n)) {}

  // Under the lock, until all have arrived.
  std::vector<int> arrived;
  std::vector<Operation> calls;
  std::vector<Tensor> in, out;
  std::vector<int> colours, keys;                             // of a split
  std::vector<std::pair<std::shared_ptr<Group>, int>> joins;  // what a split gives: group and rank in it

  // The pieces of work. `part` elements of each of `parts` parts are cut into pieces.
  std::int64_t parts = 0, part = 0, pieces_per_part = 0;
  std::atomic<std::int64_t> next = 0, left = 0;
  bool complete = false;  // under the lock

  bool all_arrived() const { return arrived.size() == calls.size(); }

  void prepare() {
    const int n = static_cast<int>(calls.size());
    const Operation& call = calls[0];
    const bool cut = call.kind == Kind::reduce_scatter || call.kind == Kind::all_gather;
    parts = cut ? n : 1;
    part = call.kind == Kind::barrier || call.kind == Kind::split ? 0 : call.count / parts;
    pieces_per_part = (part + kPiece - 1) / kPiece;
    left = parts * pieces_per_part;
    complete = left == 0;
  }

  void reduce(const std::vector<Tensor>& pieces, const Tensor& to) const {
    std::vector<Tensor> on_host;  // tensors on the device are copied
    std::vector<const void*> from;
    for (const Tensor& piece : pieces) from.push_back(on_host.emplace_back(piece.to(Device::cpu)).raw());
    const bool direct = to.device() == Device::cpu;
    const Tensor sum = direct ? to : Tensor::uninitialized(to.shape(), to.dtype());
    reduce_in_rank_order(sum.raw(), from, sum.numel(), sum.dtype(), calls[0].reduce);
    if (!direct) to.copy_from(sum);
  }

  void do_piece(std::int64_t number) const {
    const std::int64_t of_part = number / pieces_per_part;  // the part
    const std::int64_t begin = number % pieces_per_part * kPiece;
    const std::int64_t in_all = of_part * part + begin;  // the same place in x or `all`
    const Shape shape{std::min(kPiece, part - begin)};
    std::vector<Tensor> pieces;
    switch (calls[0].kind) {
      case Kind::all_reduce:
        for (const Tensor& x : in) pieces.push_back(x.range(begin, shape));
        reduce(pieces, pieces[0]);
        for (std::size_t rank = 1; rank < pieces.size(); ++rank) copy(pieces[rank], pieces[0]);
        break;
      case Kind::reduce_scatter:
        for (const Tensor& x : in) pieces.push_back(x.range(in_all, shape));
        reduce(pieces, out[static_cast<std::size_t>(of_part)].range(begin, shape));
        break;
      case Kind::all_gather: {
        const Tensor from = in[static_cast<std::size_t>(of_part)].range(begin, shape);
        for (const Tensor& all : out) copy(all.range(in_all, shape), from);
        break;
      }
      case Kind::broadcast: {
        const Tensor from = in[at(calls[0].peer)].range(begin, shape);
        for (const Tensor& x : in) copy(x.range(begin, shape), from);
        break;
      }
      default:
        break;
    }
  }

  /// Takes pieces until there are none. True if the last one was among them.
  bool work() {
    const std::int64_t pieces = parts * pieces_per_part;
    bool last = false;
    for (std::int64_t i; (i = next.fetch_add(1)) < pieces;) {
      do_piece(i);
      last = left.fetch_sub(1) == 1;
    }
    return last;
  }
};

/// The ranks of one communicator.
class Group : public std::enable_shared_from_this<Group> {
 public:
  Group(std::shared_ptr<ThreadsRun> run, std::vector<int> ranks_of_run)
      : run_(std::move(run)), ranks_(std::move(ranks_of_run)) {}

  int size() const { return static_cast<int>(ranks_.size()); }
  ThreadsRun& run() const { return *run_; }
  int rank_of_run(int rank) const { return ranks_[at(rank)]; }

  std::shared_ptr<Meeting> arrive(int rank, const Operation& call, const Tensor& in, const Tensor& out,
                                  int colour = 0, int key = 0);
  void wait(int rank, const std::string& name, const Operation& call, Meeting& meeting);
  bool done(int rank, const std::string& name, Meeting& meeting);

  std::shared_ptr<Message> post(int rank, const Operation& call, const Tensor& x);
  void wait(int rank, const std::string& name, const Operation& call, Message& message);
  bool done(Message& message);

 private:
  void form_groups(Meeting& meeting) const;
  /// With the lock: waits until `ready`; `missing` says for whom.
  template <typename Ready, typename Missing>
  void await(Lock& lock, int rank, const std::string& name, const Operation& call, const Ready& ready,
             const Missing& missing);
  void check_calls(int rank, const std::string& name, const Meeting& meeting);
  void work(int rank, Meeting& meeting);
  void transfer(Lock& lock, Message& message);

  std::shared_ptr<ThreadsRun> run_;
  std::vector<int> ranks_;                                     // in the run
  std::map<std::int64_t, std::shared_ptr<Meeting>> meetings_;  // by sequence number; some ranks have not come
  std::map<std::pair<int, int>, Mailbox> mail_;                // (from, to)
};

template <typename Ready, typename Missing>
void Group::await(Lock& lock, int rank, const std::string& name, const Operation& call, const Ready& ready,
                  const Missing& missing) {
  Patience patience(run_->deadline);
  while (!ready()) {
    run_->throw_if_failed();
    const std::vector<int> absent = missing();
    for (const int other : absent)
      if (run_->ended[at(rank_of_run(other))])
        run_->fail_run(rank_of_run(rank),
                       Error(fmt::format("{} waits for {}, which has ended", describe(call, name),
                                         describe_ranks({&other, 1}, ranks_))));
    if (patience.over())
      run_->fail_run(rank_of_run(rank), deadline_error(call, name, run_->deadline,
                                                       absent.empty() ? "the others' share of the work"
                                                                      : describe_ranks(absent, ranks_)));
    run_->changed.wait_for(lock, patience.slice());
  }
}

// ---- Collective operations ----

std::shared_ptr<Meeting> Group::arrive(int rank, const Operation& call, const Tensor& in, const Tensor& out,
                                       int colour, int key) {
  const Lock lock(run_->mutex);
  run_->throw_if_failed();
  auto& place = meetings_[call.sequence];
  if (!place) place = std::make_shared<Meeting>(size());
  const auto meeting = place;
  meeting->arrived.push_back(rank);
  meeting->calls[at(rank)] = call;
  meeting->in[at(rank)] = in;
  meeting->out[at(rank)] = out;
  meeting->colours[at(rank)] = colour;
  meeting->keys[at(rank)] = key;
  if (meeting->all_arrived()) {
    meetings_.erase(call.sequence);
    const bool same = std::ranges::all_of(meeting->calls, [&](const auto& o) { return o.matches(call); });
    if (same) {  // otherwise those who wait will say so
      meeting->prepare();
      if (call.kind == Kind::split) form_groups(*meeting);
    }
    run_->changed.notify_all();
  }
  return meeting;
}

void Group::form_groups(Meeting& meeting) const {
  std::vector<int> order(at(size()));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {},
                           [&](int r) { return std::pair(meeting.colours[at(r)], meeting.keys[at(r)]); });
  for (std::size_t begin = 0, end; begin < order.size(); begin = end) {
    std::vector<int> of_run;
    for (end = begin; end < order.size(); ++end) {
      if (meeting.colours[at(order[end])] != meeting.colours[at(order[begin])]) break;
      of_run.push_back(rank_of_run(order[end]));
    }
    const auto group = std::make_shared<Group>(run_, of_run);
    for (std::size_t i = begin; i < end; ++i)
      meeting.joins[at(order[i])] = {group, static_cast<int>(i - begin)};
  }
}

/// With the lock, when all have arrived.
void Group::check_calls(int rank, const std::string& name, const Meeting& meeting) {
  std::vector<int> all(at(size()));
  std::iota(all.begin(), all.end(), 0);
  const std::string sentence = describe_mismatch(meeting.calls, all, name);
  if (!sentence.empty()) run_->fail_run(rank_of_run(rank), Error(sentence));
}

void Group::work(int rank, Meeting& meeting) {
  bool last = false;
  try {
    last = meeting.work();
  } catch (const std::exception& e) {
    const Lock lock(run_->mutex);
    run_->record_failure(rank_of_run(rank), e.what());
    throw;
  }
  if (!last) return;
  const Lock lock(run_->mutex);
  meeting.complete = true;
  meeting.in.clear();  // a rank that waits late keeps no memory of the others
  meeting.out.clear();
  run_->changed.notify_all();
}

void Group::wait(int rank, const std::string& name, const Operation& call, Meeting& meeting) {
  Lock lock(run_->mutex);
  await(
      lock, rank, name, call, [&] { return meeting.all_arrived(); },
      [&] {
        std::vector<int> missing;
        for (int r = 0; r < size(); ++r)
          if (std::ranges::find(meeting.arrived, r) == meeting.arrived.end()) missing.push_back(r);
        return missing;
      });
  check_calls(rank, name, meeting);
  if (meeting.complete) return;
  lock.unlock();
  work(rank, meeting);
  lock.lock();
  await(
      lock, rank, name, call, [&] { return meeting.complete; }, [] { return std::vector<int>(); });
}

bool Group::done(int rank, const std::string& name, Meeting& meeting) {
  {
    const Lock lock(run_->mutex);
    run_->throw_if_failed();
    if (!meeting.all_arrived()) return false;
    check_calls(rank, name, meeting);
  }
  work(rank, meeting);
  const Lock lock(run_->mutex);
  return meeting.complete;
}

struct CollectiveState : Work::State {
  CollectiveState(std::shared_ptr<Group> g, int r, std::string n, const Operation& o,
                  std::shared_ptr<Meeting> m)
      : group(std::move(g)), rank(r), name(std::move(n)), call(o), meeting(std::move(m)) {}
  void wait() override { group->wait(rank, name, call, *meeting); }
  bool done() override { return group->done(rank, name, *meeting); }
  std::shared_ptr<Group> group;
  int rank;
  std::string name;
  Operation call;
  std::shared_ptr<Meeting> meeting;
};

// ---- Messages ----

std::shared_ptr<Message> Group::post(int rank, const Operation& call, const Tensor& x) {
  const bool sends = call.kind == Kind::send;
  const Lock lock(run_->mutex);
  run_->throw_if_failed();
  Mailbox& box = mail_[sends ? std::pair(rank, call.peer) : std::pair(call.peer, rank)];
  std::shared_ptr<Message> message;
  if (!box.waiting.empty() && !(sends ? box.waiting.front()->sent : box.waiting.front()->received)) {
    message = box.waiting.front();
    box.waiting.pop_front();
    run_->changed.notify_all();
  } else {
    message = box.waiting.emplace_back(std::make_shared<Message>());
  }
  (sends ? message->send : message->recv) = call;
  (sends ? message->send : message->recv).sequence = sends ? ++box.sent : ++box.received;
  (sends ? message->from : message->to) = x;
  (sends ? message->sent : message->received) = true;
  return message;
}

/// With the lock, when both ends are there.
void Group::transfer(Lock& lock, Message& message) {
  if (std::exchange(message.taken, true)) return;
  lock.unlock();
  copy(message.to, message.from);
  lock.lock();
  message.complete = true;
  message.from = message.to = Tensor();
  run_->changed.notify_all();
}

void Group::wait(int rank, const std::string& name, const Operation& call, Message& message) {
  Lock lock(run_->mutex);
  const Operation& mine = call.kind == Kind::send ? message.send : message.recv;
  await(
      lock, rank, name, mine, [&] { return message.sent && message.received; },
      [&] { return std::vector<int>{call.peer}; });
  if (message.send.count != message.recv.count || message.send.dtype != message.recv.dtype)
    run_->fail_run(rank_of_run(rank),
                   Error(fmt::format("message #{} on '{}' differs: rank {} calls {}, but rank {} calls {}",
                                     mine.sequence, name, message.recv.peer, describe(message.send),
                                     message.send.peer, describe(message.recv))));
  transfer(lock, message);
  await(
      lock, rank, name, mine, [&] { return message.complete; }, [] { return std::vector<int>(); });
}

bool Group::done(Message& message) {
  Lock lock(run_->mutex);
  run_->throw_if_failed();
  const bool fits = message.send.count == message.recv.count && message.send.dtype == message.recv.dtype;
  if (message.sent && message.received && fits) transfer(lock, message);  // a misfit is for wait() to tell
  return message.complete;
}

struct MessagesState : Work::State {
  MessagesState(std::shared_ptr<Group> g, int r, std::string n)
      : group(std::move(g)), rank(r), name(std::move(n)) {}
  void wait() override {
    for (const auto& [call, message] : messages) group->wait(rank, name, call, *message);
  }
  bool done() override {
    bool all = true;
    for (const auto& [call, message] : messages) all = group->done(*message) && all;
    return all;
  }
  std::shared_ptr<Group> group;
  int rank;
  std::string name;
  std::vector<std::pair<Operation, std::shared_ptr<Message>>> messages;
};

// ---- The communicator ----

class ThreadsCommunicator final : public Communicator {
 public:
  ThreadsCommunicator(std::shared_ptr<Group> group, int rank, std::string name)
      : group_(std::move(group)), rank_(rank), name_(std::move(name)) {}

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }
  const std::string& name() const override { return name_; }

  Work all_reduce(const Tensor& x, ReduceOp op) override {
    return collective(all_reduce_operation(x, op), x, x);
  }
  Work reduce_scatter(const Tensor& part, const Tensor& x) override {
    return collective(reduce_scatter_operation(part, x, size()), x, part);
  }
  Work all_gather(const Tensor& all, const Tensor& part) override {
    return collective(all_gather_operation(all, part, size()), part, all);
  }
  Work broadcast(const Tensor& x, int root) override {
    return collective(broadcast_operation(x, root, size()), x, x);
  }
  Work exchange(std::span<const Transfer> transfers) override {
    auto state = std::make_unique<MessagesState>(group_, rank_, name_);
    for (const auto& [kind, tensor, peer] : transfers) {
      const Operation call = kind == Transfer::Kind::send ? send_operation(tensor, peer, size())
                                                          : recv_operation(tensor, peer, size());
      state->messages.emplace_back(call, group_->post(rank_, call, tensor));
    }
    return Work(std::move(state));
  }
  void barrier() override { collective({.kind = Kind::barrier}, {}, {}).wait(); }

  std::unique_ptr<Communicator> split(int colour, int key, std::string name) override {
    const Operation call{.kind = Kind::split, .sequence = ++sequence_};
    const auto meeting = group_->arrive(rank_, call, {}, {}, colour, key);
    group_->wait(rank_, name_, call, *meeting);
    const auto& [group, rank] = meeting->joins[at(rank_)];
    return std::make_unique<ThreadsCommunicator>(group, rank, std::move(name));
  }

  void abort(const std::string& why) override {
    auto& run = group_->run();
    const Lock lock(run.mutex);
    run.record_failure(group_->rank_of_run(rank_), why);
  }

 private:
  Work collective(Operation call, const Tensor& in, const Tensor& out) {
    call.sequence = ++sequence_;
    auto meeting = group_->arrive(rank_, call, in, out);
    return Work(std::make_unique<CollectiveState>(group_, rank_, name_, call, std::move(meeting)));
  }

  std::shared_ptr<Group> group_;
  int rank_;
  std::string name_;
  std::int64_t sequence_ = 0;  // of the last collective operation
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_threads_communicators(
    const std::shared_ptr<ThreadsRun>& run) {
  std::vector<int> ranks(run->ended.size());
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto world = std::make_shared<Group>(run, ranks);
  std::vector<std::unique_ptr<Communicator>> all;
  for (const int rank : ranks) all.push_back(std::make_unique<ThreadsCommunicator>(world, rank, "world"));
  return all;
}

std::unique_ptr<Communicator> make_self_communicator(const CommunicatorOptions& options) {
  return std::move(make_threads_communicators(std::make_shared<ThreadsRun>(1, options.deadline))[0]);
}

}  // namespace llm
