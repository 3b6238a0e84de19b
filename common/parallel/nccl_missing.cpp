// In place of nccl_communicator.cpp where there is no NCCL.
#include "common/parallel/nccl_communicator.h"

namespace llm {

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator>,
                                                     const CommunicatorOptions&) {
  fail(
      "this program was built without NCCL; install it (libnccl-dev) and configure the preset cuda again, or "
      "use the MPI backend, which copies through the host");
}

}  // namespace llm
