#include "common/parallel/mpi_progress.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

namespace llm {

namespace {

// mpirun ends the other ranks with SIGTERM when one has died. A rank that waits then says for whom.
volatile std::sig_atomic_t told_to_end = 0;

void note_signal(int) {
  told_to_end = 1;
}

/// First lets others have the processor, then sleeps: ranks may be more than cores.
void relax(int looks) {
  if (looks < 1000)
    sched_yield();
  else
    usleep(looks < 3000 ? 50 : 500);
}

std::vector<int> missing_ranks(const MpiOperation& operation) {
  std::vector<int> ranks;
  for (const bool receives : {true, false}) {  // a send that is not done says less than a receive
    for (const auto& message : operation.messages)
      if (message.receives == receives) ranks.push_back(message.peer);
    if (!ranks.empty()) break;
  }
  std::ranges::sort(ranks);
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  return ranks;
}

}  // namespace

void check_mpi(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail("{} failed: {}", what, std::string(text, static_cast<std::size_t>(length)));
}

void MpiOperation::send(const void* from, std::size_t bytes, int peer, int tag) {
  const auto* begin = static_cast<const std::byte*>(from);
  for (std::size_t at = 0; at == 0 || at < bytes; at += kMpiMessage) {
    const int size = static_cast<int>(std::min(kMpiMessage, bytes - at));
    auto& message = messages.emplace_back(Message{MPI_REQUEST_NULL, peer, false, size});
    check_mpi(MPI_Isend(begin + at, size, MPI_BYTE, group->processes[static_cast<std::size_t>(peer)], tag,
                        MPI_COMM_WORLD, &message.request),
              "MPI_Isend");
  }
}

void MpiOperation::recv(void* to, std::size_t bytes, int peer, int tag) {
  auto* begin = static_cast<std::byte*>(to);
  for (std::size_t at = 0; at == 0 || at < bytes; at += kMpiMessage) {
    const int size = static_cast<int>(std::min(kMpiMessage, bytes - at));
    auto& message = messages.emplace_back(Message{MPI_REQUEST_NULL, peer, true, size});
    check_mpi(MPI_Irecv(begin + at, size, MPI_BYTE, group->processes[static_cast<std::size_t>(peer)], tag,
                        MPI_COMM_WORLD, &message.request),
              "MPI_Irecv");
  }
}

MpiRun::MpiRun() {
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (!initialized) {
    int provided = 0;
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init");
    std::atexit([] { MPI_Finalize(); });
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  void* value = nullptr;
  int known = 0;
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &value, &known);
  const int largest = known ? *static_cast<int*>(value) : 32767;
  groups_possible = largest >= 1 << 24 ? 4096 : 64;
  tags_per_group = largest / groups_possible;
  std::signal(SIGTERM, note_signal);
}

void MpiRun::start(const std::shared_ptr<MpiOperation>& operation) {
  throw_if_failed();
  under_way_.push_back(operation);
  progress();
}

/// True if it finished.
bool MpiRun::progress(MpiOperation& operation) {
  while (true) {
    std::erase_if(operation.messages, [&](MpiOperation::Message& message) {
      int over = 0, bytes = 0;
      MPI_Status status;
      const int code = MPI_Test(&message.request, &over, &status);
      if (code == MPI_SUCCESS && !over) return false;
      if (code == MPI_SUCCESS && message.receives) MPI_Get_count(&status, MPI_BYTE, &bytes);
      if (code != MPI_SUCCESS || (message.receives && bytes != message.bytes))
        fail("{}: rank {} sends another number of bytes than the {} expected; it calls something else",
             describe(operation.call, operation.group->name), message.peer, message.bytes);
      return true;
    });
    if (!operation.messages.empty()) return false;
    if (operation.phases.empty()) {
      operation.kept.clear();
      return operation.finished = true;
    }
    const auto next = std::move(operation.phases.front());
    operation.phases.pop_front();
    next();
  }
}

// An operation that failed stays, for its other messages may still be on their way into its tensors.
void MpiRun::progress() {
  for (auto i = under_way_.begin(); i != under_way_.end();) {
    MpiOperation& operation = **i;
    bool over = false;
    try {
      over = operation.failure.empty() && progress(operation);
    } catch (const Error& e) {
      operation.failure = e.what();
    }
    i = over ? under_way_.erase(i) : std::next(i);
  }
}

/// True if it finished; throws if it failed.
bool MpiRun::look_at(const MpiOperation& operation) {
  progress();
  if (operation.failure.empty()) return operation.finished;
  failure_ = operation.failure;
  throw Error(failure_);
}

void MpiRun::wait(MpiOperation& operation) {
  throw_if_failed();
  Patience patience(deadline);
  for (int looks = 0; !look_at(operation); ++looks) {
    const bool late = patience.over();
    if (told_to_end || late) {
      const std::string whom = describe_ranks(missing_ranks(operation), operation.group->processes);
      const DeadlineError error =
          deadline_error(operation.call, operation.group->name, told_to_end ? -1 : deadline, whom);
      failure_ = error.what();
      throw error;
    }
    relax(looks);
  }
}

bool MpiRun::done(MpiOperation& operation) {
  throw_if_failed();
  return look_at(operation);
}

}  // namespace llm
