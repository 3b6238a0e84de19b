#include "common/parallel/nccl_communicator.h"

#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <thread>
#include <utility>

#include "common/core/cuda_call.h"
#include "common/core/device_memory.h"
#include "common/parallel/operation.h"

namespace llm {

namespace {

using Kind = Operation::Kind;

/// What the NCCL communicators of this process share.
class NcclRun {
 public:
  NcclRun(std::unique_ptr<Communicator> news, double seconds);
  ~NcclRun();
  NcclRun(const NcclRun&) = delete;
  NcclRun& operator=(const NcclRun&) = delete;

  const double deadline;
  cudaStream_t stream = nullptr;  // of all operations: they run in the order of the calls, on every rank
  std::vector<ncclComm_t> comms;

  void throw_if_failed() const {
    if (!failure_.empty()) throw Error(failure_);
  }
  /// Waits until `over()`, with an eye on NCCL, on the others and on the clock.
  template <typename Over>
  void wait(ncclComm_t comm, const Operation& call, const std::string& name, const Over& over);
  /// After every call of NCCL's: until the call itself has been carried out.
  void settle(ncclResult_t result, ncclComm_t comm, const Operation& call, const std::string& name);
  /// Throws if NCCL, or another rank, has failed. True if NCCL has nothing in progress.
  bool look(ncclComm_t comm, const Operation& call, const std::string& name);
  /// Tells the others, aborts, throws.
  template <typename E>
  [[noreturn]] void fail_all(const E& error);

 private:
  void tell(int code, const std::string& sentence);
  void listen();
  void abort();

  static constexpr std::int64_t kWords = 128;  // of a piece of news: a code, then text
  struct News {
    int from;
    Tensor words;
    Work work;
    bool arrived = false;
  };
  std::unique_ptr<Communicator> host_;
  std::vector<News> news_;  // one to come from each of the others
  std::vector<Work> told_;
  std::string failure_;
};

NcclRun::NcclRun(std::unique_ptr<Communicator> news, double seconds)
    : deadline(seconds), host_(std::move(news)) {
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  for (int from = 0; from < host_->size(); ++from) {
    if (from == host_->rank()) continue;
    News& one = news_.emplace_back();
    one.from = from;
    one.words = Tensor({kWords}, DType::i32);
    one.work = host_->recv(one.words, from);
  }
}

// The end of a good run: all say so, then NCCL may be taken down. Of any other: nobody waits for anybody.
NcclRun::~NcclRun() {
  try {
    if (failure_.empty() && std::uncaught_exceptions() > 0) {
      tell(1, "it ended early");
      failure_ = "ended early";
    }
    if (failure_.empty()) {
      tell(0, "");
      for (Work& work : told_) work.wait();
      for (News& one : news_)
        if (!one.arrived) one.work.wait();
      const Operation end{.kind = Kind::barrier};
      for (const ncclComm_t comm : comms) {
        settle(ncclCommFinalize(comm), comm, end, "world");
        ncclCommDestroy(comm);
      }
      comms.clear();
    }
  } catch (const Error&) {  // a destructor must not throw; those who wait for this rank have their deadlines
  }
  abort();
  cudaStreamDestroy(stream);
}

/// The news is on its way to everybody.
void NcclRun::tell(int code, const std::string& sentence) {
  const Tensor words({kWords}, DType::i32);
  words.data<std::int32_t>()[0] = code;
  std::memcpy(words.data<std::int32_t>() + 1, sentence.data(),
              std::min<std::size_t>(sentence.size(), (kWords - 2) * sizeof(std::int32_t)));
  for (const News& one : news_) told_.push_back(host_->send(words, one.from));
}

/// Throws if there is bad news.
void NcclRun::listen() {
  for (News& one : news_) {
    if (one.arrived || !one.work.done()) continue;
    one.work.wait();
    one.arrived = true;
    const auto* words = one.words.data<std::int32_t>();
    if (words[0] == 0) continue;
    failure_ =
        fmt::format("ended because rank {} failed: {}", one.from, reinterpret_cast<const char*>(words + 1));
    abort();
    throw PeerError(failure_);
  }
}

void NcclRun::abort() {
  for (const ncclComm_t comm : std::exchange(comms, {})) ncclCommAbort(comm);
}

template <typename E>
void NcclRun::fail_all(const E& error) {
  failure_ = error.what();
  try {
    tell(1, failure_);
    Patience patience(1);  // for the news to leave; who does not take it has its own deadline
    const auto left = [](Work& work) { return work.done(); };
    while (!std::ranges::all_of(told_, left) && !patience.over())
      std::this_thread::sleep_for(std::chrono::microseconds(200));
  } catch (const Error&) {  // the host has failed as well: they know
  }
  abort();
  throw E(error);
}

bool NcclRun::look(ncclComm_t comm, const Operation& call, const std::string& name) {
  throw_if_failed();
  listen();
  ncclResult_t state = ncclSuccess;
  ncclResult_t asked = ncclCommGetAsyncError(comm, &state);
  if (asked == ncclSuccess) asked = state;
  if (asked != ncclSuccess && asked != ncclInProgress)
    fail_all(Error(fmt::format("{} failed in NCCL: {} ({})", describe(call, name), ncclGetErrorString(asked),
                               ncclGetLastError(comm))));
  return asked == ncclSuccess;
}

template <typename Over>
void NcclRun::wait(ncclComm_t comm, const Operation& call, const std::string& name, const Over& over) {
  Patience patience(deadline);
  for (int looks = 0;; ++looks) {
    const bool idle = look(comm, call, name);
    if (idle && over()) return;
    if (patience.over()) fail_all(deadline_error(call, name, deadline, "another rank"));
    if (looks < 1000)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

void NcclRun::settle(ncclResult_t result, ncclComm_t comm, const Operation& call, const std::string& name) {
  if (result != ncclSuccess && result != ncclInProgress)
    fail_all(Error(fmt::format("{} failed in NCCL: {} ({})", describe(call, name), ncclGetErrorString(result),
                               ncclGetLastError(comm))));
  wait(comm, call, name, [] { return true; });
}

struct NcclState : Work::State {
  NcclState(std::shared_ptr<NcclRun> r, ncclComm_t c, const Operation& o, std::string n,
            std::vector<Tensor> k)
      : run(std::move(r)), comm(c), call(o), name(std::move(n)), kept(std::move(k)) {
    check_cuda(cudaEventCreateWithFlags(&end, cudaEventDisableTiming), "cudaEventCreate");
  }
  ~NcclState() override { cudaEventDestroy(end); }
  bool over() {
    const cudaError_t state = query_event(end);
    if (state != cudaSuccess && state != cudaErrorNotReady)
      run->fail_all(
          Error(fmt::format("{} failed on the GPU: {}", describe(call, name), cudaGetErrorString(state))));
    return state == cudaSuccess;
  }
  void wait() override {
    run->wait(comm, call, name, [this] { return over(); });
  }
  bool done() override { return run->look(comm, call, name) && over(); }

  std::shared_ptr<NcclRun> run;
  ncclComm_t comm;
  Operation call;
  std::string name;
  std::vector<Tensor> kept;  // alive until the GPU is done with them
  cudaEvent_t end = nullptr;
};

ncclDataType_t nccl_type(DType dtype) {
  return dtype == DType::f32 ? ncclFloat32 : dtype == DType::bf16 ? ncclBfloat16 : ncclInt32;
}

std::size_t count_of(const Tensor& x) {
  return static_cast<std::size_t>(x.numel());
}

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::shared_ptr<NcclRun> run, std::unique_ptr<Communicator> host, ncclComm_t comm)
      : run_(std::move(run)), host_(std::move(host)), comm_(comm) {}

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  const std::string& name() const override { return host_->name(); }

  Work all_reduce(const Tensor& x, ReduceOp op) override {
    return collective(all_reduce_operation(x, op), {x}, [&] {
      return ncclAllReduce(x.raw(), x.raw(), count_of(x), nccl_type(x.dtype()),
                           op == ReduceOp::sum ? ncclSum : ncclMax, comm_, run_->stream);
    });
  }
  Work reduce_scatter(const Tensor& part, const Tensor& x) override {
    return collective(reduce_scatter_operation(part, x, size()), {part, x}, [&] {
      return ncclReduceScatter(x.raw(), part.raw(), count_of(part), nccl_type(x.dtype()), ncclSum, comm_,
                               run_->stream);
    });
  }
  Work all_gather(const Tensor& all, const Tensor& part) override {
    return collective(all_gather_operation(all, part, size()), {all, part}, [&] {
      return ncclAllGather(part.raw(), all.raw(), count_of(part), nccl_type(all.dtype()), comm_,
                           run_->stream);
    });
  }
  Work broadcast(const Tensor& x, int root) override {
    return collective(broadcast_operation(x, root, size()), {x}, [&] {
      return ncclBroadcast(x.raw(), x.raw(), count_of(x), nccl_type(x.dtype()), root, comm_, run_->stream);
    });
  }
  Work exchange(std::span<const Transfer> transfers) override;
  void barrier() override;
  std::unique_ptr<Communicator> split(int colour, int key, std::string name) override;
  void abort(const std::string& why) override {
    try {
      run_->fail_all(Error(why));
    } catch (const Error&) {  // the next operation throws it
    }
    host_->abort(why);
  }

 private:
  template <typename Issue>
  Work collective(Operation call, std::vector<Tensor> tensors, const Issue& issue) {
    call.sequence = ++sequence_;
    return start(call, std::move(tensors), issue);
  }
  /// `issue` calls NCCL; it comes after what the device's stream has been given so far.
  template <typename Issue>
  Work start(const Operation& call, std::vector<Tensor> tensors, const Issue& issue) {
    run_->throw_if_failed();
    for (const Tensor& x : tensors)
      check(x.device() == Device::cuda || x.numel() == 0,
            "{}: NCCL moves memory of the GPU, and this tensor is on the host", describe(call, name()));
    auto state = std::make_unique<NcclState>(run_, comm_, call, name(), std::move(tensors));
    check_cuda(cudaEventRecord(state->end, device_stream()), "cudaEventRecord");
    check_cuda(cudaStreamWaitEvent(run_->stream, state->end, 0), "cudaStreamWaitEvent");
    run_->settle(issue(), comm_, call, name());
    check_cuda(cudaEventRecord(state->end, run_->stream), "cudaEventRecord");
    return Work(std::move(state));
  }

  std::shared_ptr<NcclRun> run_;
  std::unique_ptr<Communicator> host_;  // the same ranks
  ncclComm_t comm_;
  std::int64_t sequence_ = 0;  // of the last collective operation
};

Work NcclCommunicator::exchange(std::span<const Transfer> transfers) {
  Operation call{.kind = Kind::exchange};
  std::vector<Tensor> tensors;
  for (const auto& [kind, x, peer] : transfers) {
    const Operation one =
        kind == Transfer::Kind::send ? send_operation(x, peer, size()) : recv_operation(x, peer, size());
    if (transfers.size() == 1) call = one;
    tensors.push_back(x);
  }
  return start(call, std::move(tensors), [&] {
    ncclResult_t result = ncclGroupStart();
    for (const auto& [kind, x, peer] : transfers) {
      if (result != ncclSuccess && result != ncclInProgress) break;
      if (x.numel() == 0) continue;
      result = kind == Transfer::Kind::send
                   ? ncclSend(x.raw(), count_of(x), nccl_type(x.dtype()), peer, comm_, run_->stream)
                   : ncclRecv(x.raw(), count_of(x), nccl_type(x.dtype()), peer, comm_, run_->stream);
    }
    const ncclResult_t ended = ncclGroupEnd();
    return result == ncclSuccess || result == ncclInProgress ? ended : result;
  });
}

// Of the host, waited for here so that bad news ends it too: an all_reduce of one number.
void NcclCommunicator::barrier() {
  const Tensor one({1}, DType::i32);
  Work work = host_->all_reduce(one);
  run_->wait(comm_, {.kind = Kind::barrier, .sequence = ++sequence_}, name(), [&] { return work.done(); });
  work.wait();
}

std::unique_ptr<Communicator> NcclCommunicator::split(int colour, int key, std::string name) {
  const Operation call{.kind = Kind::split, .sequence = ++sequence_};
  barrier();  // all are here, so that no call below waits for a rank that never comes
  auto host = host_->split(colour, key, name);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t part = nullptr;
  run_->settle(ncclCommSplit(comm_, colour, host->rank(), &part, &config), comm_, call, this->name());
  run_->comms.push_back(part);
  run_->settle(ncclSuccess, part, call, this->name());
  return std::make_unique<NcclCommunicator>(run_, std::move(host), part);
}

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host,
                                                     const CommunicatorOptions& options) {
  auto run = std::make_shared<NcclRun>(host->split(0, host->rank(), host->name()), options.deadline);
  const Operation call{.kind = Kind::broadcast};
  ncclUniqueId id{};
  if (host->rank() == 0) {
    const ncclResult_t result = ncclGetUniqueId(&id);
    if (result != ncclSuccess)
      run->fail_all(Error(fmt::format("NCCL does not start: {}", ncclGetErrorString(result))));
  }
  const Tensor carried({(static_cast<std::int64_t>(sizeof id) + 3) / 4}, DType::i32);
  std::memcpy(carried.raw(), &id, sizeof id);
  host->broadcast(carried, 0).wait();
  std::memcpy(&id, carried.raw(), sizeof id);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t comm = nullptr;
  const ncclResult_t result = ncclCommInitRankConfig(&comm, host->size(), id, host->rank(), &config);
  run->comms.push_back(comm);
  run->settle(result, comm, call, "the start of NCCL");
  return std::make_unique<NcclCommunicator>(std::move(run), std::move(host), comm);
}

}  // namespace llm
