#include "common/parallel/mpi_communicator.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <numeric>
#include <utility>

#include "common/parallel/mpi_progress.h"
#include "common/parallel/reduce.h"

namespace llm {

namespace {

using Kind = Operation::Kind;

MpiRun& mpi() {
  static MpiRun run;
  return run;
}

struct MpiState : Work::State {
  explicit MpiState(std::shared_ptr<MpiOperation> o) : operation(std::move(o)) {}
  void wait() override { mpi().wait(*operation); }
  bool done() override { return mpi().done(*operation); }
  std::shared_ptr<MpiOperation> operation;
};

std::byte* bytes_at(const Tensor& x, std::int64_t element) {
  return static_cast<std::byte*>(x.raw()) + static_cast<std::size_t>(element) * size_of(x.dtype());
}

void copy(const Tensor& to, const Tensor& from) {
  if (to.raw() != from.raw()) to.copy_from(from);
}

class MpiCommunicator final : public Communicator {
 public:
  explicit MpiCommunicator(std::shared_ptr<const MpiGroup> group) : group_(std::move(group)) {}

  int rank() const override { return group_->me; }
  int size() const override { return static_cast<int>(group_->processes.size()); }
  const std::string& name() const override { return group_->name; }

  Work all_reduce(const Tensor& x, ReduceOp op) override;
  Work reduce_scatter(const Tensor& part, const Tensor& x) override;
  Work all_gather(const Tensor& all, const Tensor& part) override;
  Work broadcast(const Tensor& x, int root) override;
  Work exchange(std::span<const Transfer> transfers) override;
  void barrier() override;
  std::unique_ptr<Communicator> split(int colour, int key, std::string name) override;
  void abort(const std::string& why) override { abort_mpi(fmt::format("rank {}: {}", world_rank(), why), 1); }

 private:
  using Pending = std::shared_ptr<MpiOperation>;

  int world_rank() const { return group_->processes[static_cast<std::size_t>(group_->me)]; }

  /// A new collective operation without phases. Its tags: `tag(o, 0)` for its first phase, `tag(o, 1)`.
  Pending begin(Operation call) {
    call.sequence = ++sequence_;
    return begin_any(call);
  }
  Pending begin_any(const Operation& call) {
    auto operation = std::make_shared<MpiOperation>();
    operation->call = call;
    operation->group = group_;
    return operation;
  }
  /// The last tag of a communicator is that of messages; the others are used in turn.
  int tag(const MpiOperation& o, int phase) const {
    return group_->first_tag + static_cast<int>((o.call.sequence * 2 + phase) % (group_->tags - 2));
  }
  int message_tag() const { return group_->first_tag + group_->tags - 1; }

  Work start(Pending operation) {
    mpi().start(operation);
    return Work(std::make_unique<MpiState>(std::move(operation)));
  }

  /// Runs `body(rank)` for all other ranks, beginning behind this one so that not all send to rank 0 first.
  template <typename Body>
  void others(const Body& body) const {
    for (int i = 1; i < size(); ++i) body((rank() + i) % size());
  }

  void add_exchange_phase(MpiOperation* o, const Tensor& x, const std::vector<std::int64_t>& bounds,
                          const Tensor& sum, ReduceOp reduce);
  void add_gather_phase(MpiOperation* o, const Tensor& all, const std::vector<std::int64_t>& bounds,
                        int phase);

  std::shared_ptr<const MpiGroup> group_;
  std::int64_t sequence_ = 0;                    // of the last collective operation
  std::map<int, std::int64_t> sent_, received_;  // messages, by the other rank
};

/// Piece j of x, elements [bounds[j], bounds[j + 1]), goes to rank j; what arrives here is added up into
/// `sum` (which may be this rank's piece of x).
void MpiCommunicator::add_exchange_phase(MpiOperation* o, const Tensor& x,
                                         const std::vector<std::int64_t>& bounds, const Tensor& sum,
                                         ReduceOp reduce) {
  const std::int64_t count = sum.numel();
  const auto arrived = std::make_shared<std::vector<Tensor>>();  // by rank
  o->phases.push_back([=, this] {
    for (int j = 0; j < size(); ++j)
      arrived->push_back(j == rank() ? x.range(bounds[static_cast<std::size_t>(j)], {count})
                                     : Tensor::uninitialized({count}, x.dtype()));
    others(
        [&](int j) { o->recv((*arrived)[static_cast<std::size_t>(j)].raw(), sum.bytes(), j, tag(*o, 0)); });
    others([&](int j) {
      const auto begin = bounds[static_cast<std::size_t>(j)], end = bounds[static_cast<std::size_t>(j) + 1];
      o->send(bytes_at(x, begin), static_cast<std::size_t>(end - begin) * size_of(x.dtype()), j, tag(*o, 0));
    });
  });
  o->phases.push_back([=] {
    std::vector<const void*> from;
    for (const Tensor& piece : *arrived) from.push_back(piece.raw());
    reduce_in_rank_order(sum.raw(), from, count, x.dtype(), reduce);
    arrived->clear();
  });
}

/// This rank's piece of `all` goes to the others, and theirs come here.
void MpiCommunicator::add_gather_phase(MpiOperation* o, const Tensor& all,
                                       const std::vector<std::int64_t>& bounds, int phase) {
  o->phases.push_back([=, this] {
    const auto piece = [&](int j) {
      const auto begin = bounds[static_cast<std::size_t>(j)], end = bounds[static_cast<std::size_t>(j) + 1];
      return std::pair(bytes_at(all, begin), static_cast<std::size_t>(end - begin) * size_of(all.dtype()));
    };
    others([&](int j) { o->recv(piece(j).first, piece(j).second, j, tag(*o, phase)); });
    others([&](int j) { o->send(piece(rank()).first, piece(rank()).second, j, tag(*o, phase)); });
  });
}

/// [0, count * 1 / n, count * 2 / n, ..., count].
std::vector<std::int64_t> even_bounds(std::int64_t count, int n) {
  std::vector<std::int64_t> bounds;
  for (int j = 0; j <= n; ++j) bounds.push_back(count * j / n);
  return bounds;
}

Work MpiCommunicator::all_reduce(const Tensor& x, ReduceOp op) {
  auto o = begin(all_reduce_operation(x, op));
  const Tensor host = x.to(Device::cpu);
  o->kept = {x, host};
  const auto bounds = even_bounds(x.numel(), size());
  const auto me = static_cast<std::size_t>(rank());
  const Tensor mine = host.range(bounds[me], {bounds[me + 1] - bounds[me]});
  add_exchange_phase(o.get(), host, bounds, mine, op);
  add_gather_phase(o.get(), host, bounds, 1);
  o->phases.push_back([=] { copy(x, host); });
  return start(std::move(o));
}

Work MpiCommunicator::reduce_scatter(const Tensor& part, const Tensor& x) {
  auto o = begin(reduce_scatter_operation(part, x, size()));
  const Tensor host = x.to(Device::cpu);
  const Tensor sum = part.device() == Device::cpu ? part : Tensor::uninitialized(part.shape(), part.dtype());
  o->kept = {part, x, host, sum};
  add_exchange_phase(o.get(), host, even_bounds(x.numel(), size()), sum, ReduceOp::sum);
  o->phases.push_back([=] { copy(part, sum); });
  return start(std::move(o));
}

Work MpiCommunicator::all_gather(const Tensor& all, const Tensor& part) {
  auto o = begin(all_gather_operation(all, part, size()));
  const Tensor host = all.device() == Device::cpu ? all : Tensor::uninitialized(all.shape(), all.dtype());
  copy(host.range(rank() * part.numel(), part.shape()), part);
  o->kept = {all, host};
  add_gather_phase(o.get(), host, even_bounds(all.numel(), size()), 0);
  o->phases.push_back([=] { copy(all, host); });
  return start(std::move(o));
}

Work MpiCommunicator::broadcast(const Tensor& x, int root) {
  auto o = begin(broadcast_operation(x, root, size()));
  const Tensor host = x.to(Device::cpu);
  o->kept = {x, host};
  o->phases.push_back([=, this, o = o.get()] {
    if (rank() == root)
      others([&](int j) { o->send(host.raw(), host.bytes(), j, tag(*o, 0)); });
    else
      o->recv(host.raw(), host.bytes(), root, tag(*o, 0));
  });
  if (rank() != root) o->phases.push_back([=] { copy(x, host); });
  return start(std::move(o));
}

Work MpiCommunicator::exchange(std::span<const Transfer> transfers) {
  auto o = begin_any({.kind = Kind::exchange});
  for (const auto& [kind, x, peer] : transfers) {
    const bool sends = kind == Transfer::Kind::send;
    Operation call = sends ? send_operation(x, peer, size()) : recv_operation(x, peer, size());
    call.sequence = ++(sends ? sent_ : received_)[peer];
    if (transfers.size() == 1) o->call = call;
    const Tensor host = x.to(Device::cpu);
    o->kept.insert(o->kept.end(), {x, host});
  }
  const std::vector<Transfer> all(transfers.begin(), transfers.end());
  o->phases.push_back([=, this, o = o.get()] {
    for (const auto kind : {Transfer::Kind::recv, Transfer::Kind::send})
      for (std::size_t i = 0; i < all.size(); ++i) {
        const Tensor& host = o->kept[2 * i + 1];
        if (all[i].kind != kind) continue;
        if (kind == Transfer::Kind::recv)
          o->recv(host.raw(), host.bytes(), all[i].peer, message_tag());
        else
          o->send(host.raw(), host.bytes(), all[i].peer, message_tag());
      }
  });
  o->phases.push_back([=, o = o.get()] {
    for (std::size_t i = 0; i < all.size(); ++i)
      if (all[i].kind == Transfer::Kind::recv) copy(all[i].tensor, o->kept[2 * i + 1]);
  });
  return start(std::move(o));
}

void MpiCommunicator::barrier() {
  auto o = begin({.kind = Kind::barrier});
  o->phases.push_back([=, this, o = o.get()] {
    others([&](int j) { o->recv(nullptr, 0, j, tag(*o, 0)); });
    others([&](int j) { o->send(nullptr, 0, j, tag(*o, 0)); });
  });
  start(std::move(o)).wait();
}

// No call of MPI's: a communicator is a list of processes and a range of tags. Its number is larger than that
// of every communicator that any of its ranks has had, so no two ranks share two with the same number.
std::unique_ptr<Communicator> MpiCommunicator::split(int colour, int key, std::string name) {
  const Tensor mine = Tensor::from(std::vector<std::int32_t>{colour, key, mpi().next_group}, {3});
  const Tensor all({size() * 3}, DType::i32);
  all_gather(all, mine).wait();
  const auto of = [&](int rank, int what) { return all.data<std::int32_t>()[rank * 3 + what]; };
  std::vector<int> ranks, colours;
  int number = 0;
  for (int j = 0; j < size(); ++j) {
    if (of(j, 0) == colour) ranks.push_back(j);
    colours.push_back(of(j, 0));
    number = std::max(number, of(j, 2));
  }
  std::ranges::stable_sort(ranks, {}, [&](int j) { return of(j, 1); });
  std::ranges::sort(colours);
  colours.erase(std::unique(colours.begin(), colours.end()), colours.end());
  mpi().next_group = number + static_cast<int>(colours.size());
  number += static_cast<int>(std::ranges::find(colours, colour) - colours.begin());
  check(mpi().next_group <= mpi().groups_possible, "a run under MPI cannot have more than {} communicators",
        mpi().groups_possible);
  auto group = std::make_shared<MpiGroup>();
  group->name = std::move(name);
  for (const int j : ranks) group->processes.push_back(group_->processes[static_cast<std::size_t>(j)]);
  group->me = static_cast<int>(std::ranges::find(ranks, rank()) - ranks.begin());
  group->tags = mpi().tags_per_group;
  group->first_tag = number * group->tags;
  return std::make_unique<MpiCommunicator>(std::move(group));
}

/// Whether no other rank of this machine has said why the run ends. Who speaks leaves a note in the folder
/// that mpirun keeps for the run and then removes.
bool first_to_speak() {
  const char* folder = std::getenv("PMIX_SERVER_TMPDIR");
  if (folder == nullptr) return true;
  const std::string note = fmt::format("{}/why_it_ends", folder);
  const int file = open(note.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
  return file >= 0 || errno != EEXIST;
}

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(const CommunicatorOptions& options) {
  mpi().deadline = options.deadline;
  int n = 0;
  auto group = std::make_shared<MpiGroup>();
  MPI_Comm_size(MPI_COMM_WORLD, &n);
  MPI_Comm_rank(MPI_COMM_WORLD, &group->me);
  group->name = "world";
  group->processes.resize(static_cast<std::size_t>(n));
  std::iota(group->processes.begin(), group->processes.end(), 0);
  group->tags = mpi().tags_per_group;
  return std::make_unique<MpiCommunicator>(std::move(group));
}

void abort_mpi(const std::string& sentence, int exit_code) {
  if (first_to_speak()) {
    const std::string line = sentence + "\n";
    (void)!write(STDERR_FILENO, line.data(), line.size());
    usleep(100'000);  // mpirun passes on what it has read when the run ends, and no more
  } else {
    usleep(2'000'000);  // who speaks ends us
  }
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace llm
