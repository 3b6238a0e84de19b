// Messages of MPI under way, and operations made of them; for mpi_communicator.cpp.
//
// An operation is a row of phases. A phase posts sends and receives; when all of them are done the next phase
// begins. `MpiRun::progress` looks at all operations of this process, not only at the one waited for: another
// rank may need the second phase of an older one.
#pragma once

#include <mpi.h>

#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "common/parallel/operation.h"

namespace llm {

/// Messages of at most this many bytes; larger ones are cut. MPI counts with an int.
inline constexpr std::size_t kMpiMessage = std::size_t{1} << 30;

/// The ranks of a communicator, as processes, and the tags that are its own.
struct MpiGroup {
  std::string name;
  std::vector<int> processes;  // of rank i
  int me = 0;
  int first_tag = 0, tags = 0;  // [first_tag, first_tag + tags)
};

struct MpiOperation {
  Operation call;
  std::shared_ptr<const MpiGroup> group;
  struct Message {
    MPI_Request request;
    int peer;  // rank in the group
    bool receives;
    int bytes;
  };
  std::vector<Message> messages;             // of the current phase, not yet done
  std::deque<std::function<void()>> phases;  // still to come
  std::vector<Tensor> kept;                  // what the messages read and write
  bool finished = false;
  std::string failure;  // thrown to who waits for this operation, and not by what else looks at it

  void send(const void* from, std::size_t bytes, int peer, int tag);
  void recv(void* to, std::size_t bytes, int peer, int tag);
};

/// Everything of MPI that this process has: there is one.
class MpiRun {
 public:
  MpiRun();

  double deadline = 60;
  int next_group = 1;       // groups are numbered so that no two that share two ranks have the same number
  int groups_possible = 0;  // tags are divided among so many
  int tags_per_group = 0;

  /// Begins the first phase.
  void start(const std::shared_ptr<MpiOperation>& operation);
  void wait(MpiOperation& operation);
  bool done(MpiOperation& operation);
  void throw_if_failed() const {
    if (!failure_.empty()) throw Error(failure_);
  }

 private:
  void progress();
  bool progress(MpiOperation& operation);
  bool look_at(const MpiOperation& operation);

  std::list<std::shared_ptr<MpiOperation>> under_way_;
  std::string failure_;  // of this rank: it does not work any more
};

/// Error, with MPI's own words, unless `code` says success.
void check_mpi(int code, const char* what);

}  // namespace llm
