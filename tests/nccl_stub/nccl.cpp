// The stand-in's body: each operation runs on a communicator of threads, on copies of the device's memory;
// its end is found by those who ask for the event behind it.
#include "nccl.h"

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/core/device_memory.h"
#include "common/parallel/threads_run.h"

using namespace llm;

namespace {

struct Pending {
  std::vector<Tensor> keep;
  std::vector<std::pair<void*, Tensor>> results;  // where they go on the device
  Work work;
  bool over = false, hangs = false;
};

std::atomic<int> aborts = 0, destroys = 0;
thread_local nccl_stub::Faults thread_faults;
thread_local cudaError_t last_error = cudaSuccess;

/// Operations that nobody waits for any more; waiting for them in a destructor would last.
void bury(std::vector<std::shared_ptr<Pending>> dead) {
  static std::mutex mutex;
  static auto* graves = new std::vector<std::shared_ptr<Pending>>;
  const std::lock_guard lock(mutex);
  graves->insert(graves->end(), dead.begin(), dead.end());
}

/// The runs of threads that unique ids stand for.
struct Meeting {
  std::shared_ptr<ThreadsRun> run;
  std::vector<std::unique_ptr<Communicator>> worlds;
};
std::mutex meetings_mutex;
std::map<std::string, Meeting> meetings;

struct Grouped {
  bool open = false;
  std::vector<Transfer> transfers;
  std::vector<std::pair<void*, Tensor>> results;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
};
thread_local Grouped grouped;

}  // namespace

struct ncclComm {
  std::unique_ptr<Communicator> threads;
  int polls_left = 0;
  ncclResult_t error = ncclSuccess;
};
struct CUstream_st {
  std::vector<std::shared_ptr<Pending>> operations;
};
struct CUevent_st {
  std::shared_ptr<Pending> after;
};

namespace {

DType type_of(ncclDataType_t type) {
  return type == ncclFloat32 ? DType::f32 : type == ncclBfloat16 ? DType::bf16 : DType::i32;
}

Tensor from_device(const void* from, std::size_t count, ncclDataType_t type) {
  Tensor t({static_cast<std::int64_t>(count)}, type_of(type));
  if (from != nullptr) copy_to_host(t.raw(), from, t.bytes());
  return t;
}

/// Every operation passes here: faults, then the work of `begin`.
template <typename Begin>
ncclResult_t issue(ncclComm_t comm, cudaStream_t stream, const Begin& begin) {
  auto& f = thread_faults;
  const bool now = f.calls_until_fault == 0;
  if (f.calls_until_fault >= 0) --f.calls_until_fault;
  if (now && f.error_at_once) return f.error;
  auto pending = std::make_shared<Pending>();
  if (now && f.error == ncclInProgress)
    pending->hangs = true;
  else if (now)
    comm->error = f.error, pending->hangs = true;
  else
    begin(*pending);
  stream->operations.push_back(std::move(pending));
  comm->polls_left = f.polls_in_progress;
  return comm->polls_left > 0 ? ncclInProgress : ncclSuccess;
}

bool over(Pending& p) {
  if (p.over) return true;
  if (p.hangs || !p.work.done()) return false;
  p.work.wait();
  for (const auto& [to, from] : p.results) copy_to_device(to, from.raw(), from.bytes());
  return p.over = true;
}

}  // namespace

namespace nccl_stub {
Faults& faults() {
  return thread_faults;
}
int aborted() {
  return aborts;
}
int destroyed() {
  return destroys;
}
void reset_counts() {
  aborts = destroys = 0;
}
}  // namespace nccl_stub

// ---- Streams and events ----

const char* cudaGetErrorString(cudaError_t) {
  return "an error of CUDA";
}
const char* cudaGetErrorName(cudaError_t) {
  return "cudaErrorOfTheStub";
}
cudaError_t cudaGetLastError() {
  return std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  std::vector<std::shared_ptr<Pending>> dead;
  for (auto& p : stream->operations)
    if (!p->over) dead.push_back(p);
  bury(std::move(dead));
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const bool none = stream == nullptr || stream->operations.empty();  // the software GPU's own stream is null
  event->after = none ? nullptr : stream->operations.back();
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (event->after == nullptr || over(*event->after)) return cudaSuccess;
  return last_error = cudaErrorNotReady;  // as the real one keeps it
}

// ---- Communicators ----

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited or there was a network error" : "another error";
}
const char* ncclGetLastError(ncclComm_t) {
  return "the stand-in says so";
}
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::atomic<int> next = 0;
  std::snprintf(id->internal, sizeof id->internal, "run %d", ++next);
  return ncclSuccess;
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidUsage;
  const std::lock_guard lock(meetings_mutex);
  Meeting& meeting = meetings[id.internal];
  if (meeting.worlds.empty()) {
    meeting.run = std::make_shared<ThreadsRun>(ranks, 20);
    meeting.worlds = make_threads_communicators(meeting.run);
  }
  *comm = new ncclComm;
  (*comm)->threads = std::move(meeting.worlds[static_cast<std::size_t>(rank)]);
  (*comm)->polls_left = thread_faults.polls_in_progress;
  return (*comm)->polls_left > 0 ? ncclInProgress : ncclSuccess;
}
ncclResult_t ncclCommSplit(ncclComm_t comm, int colour, int key, ncclComm_t* part, ncclConfig_t*) {
  *part = new ncclComm;
  (*part)->threads = comm->threads->split(colour, key, "part");
  (*part)->polls_left = comm->polls_left = thread_faults.polls_in_progress;
  return comm->polls_left > 0 ? ncclInProgress : ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  *state = comm->error != ncclSuccess ? comm->error : comm->polls_left > 0 ? ncclInProgress : ncclSuccess;
  if (comm->polls_left > 0) --comm->polls_left;
  return ncclSuccess;
}
ncclResult_t ncclCommFinalize(ncclComm_t) {
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  ++destroys;
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  ++aborts;
  delete comm;
  return ncclSuccess;
}

// ---- Operations ----

ncclResult_t ncclAllReduce(const void* send, void* recv, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return issue(comm, stream, [&](Pending& p) {
    const Tensor x = from_device(send, count, type);
    p.results = {{recv, x}};
    p.work = comm->threads->all_reduce(x, op == ncclSum ? ReduceOp::sum : ReduceOp::max);
  });
}
ncclResult_t ncclReduceScatter(const void* send, void* recv, std::size_t count, ncclDataType_t type,
                               ncclRedOp_t, ncclComm_t comm, cudaStream_t stream) {
  return issue(comm, stream, [&](Pending& p) {
    const Tensor x = from_device(send, count * static_cast<std::size_t>(comm->threads->size()), type);
    const Tensor part = from_device(nullptr, count, type);
    p.keep = {x};
    p.results = {{recv, part}};
    p.work = comm->threads->reduce_scatter(part, x);
  });
}
ncclResult_t ncclAllGather(const void* send, void* recv, std::size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  return issue(comm, stream, [&](Pending& p) {
    const Tensor part = from_device(send, count, type);
    const Tensor all = from_device(nullptr, count * static_cast<std::size_t>(comm->threads->size()), type);
    p.keep = {part};
    p.results = {{recv, all}};
    p.work = comm->threads->all_gather(all, part);
  });
}
ncclResult_t ncclBroadcast(const void* send, void* recv, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  return issue(comm, stream, [&](Pending& p) {
    const Tensor x = from_device(send, count, type);
    p.results = {{recv, x}};
    p.work = comm->threads->broadcast(x, root);
  });
}
ncclResult_t ncclSend(const void* send, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  if (!grouped.open) return ncclInvalidUsage;  // this project always groups
  grouped.transfers.push_back({Transfer::Kind::send, from_device(send, count, type), peer});
  grouped.comm = comm;
  grouped.stream = stream;
  return ncclSuccess;
}
ncclResult_t ncclRecv(void* recv, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  if (!grouped.open) return ncclInvalidUsage;
  const Tensor x = from_device(nullptr, count, type);
  grouped.transfers.push_back({Transfer::Kind::recv, x, peer});
  grouped.results.emplace_back(recv, x);
  grouped.comm = comm;
  grouped.stream = stream;
  return ncclSuccess;
}
ncclResult_t ncclGroupStart() {
  grouped.open = true;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  const Grouped all = std::exchange(grouped, {});
  if (all.transfers.empty()) return ncclSuccess;
  return issue(all.comm, all.stream, [&](Pending& p) {
    p.results = all.results;
    p.work = all.comm->threads->exchange(all.transfers);
  });
}
