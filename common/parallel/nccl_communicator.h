// Ranks as processes with a GPU each: NVIDIA's NCCL moves the numbers from GPU to GPU.
//
// NCCL neither finds its peers nor tells when one of them has died: a kernel of the others then waits for
// ever. So a communicator of the host (MPI) goes along. It carries the id with which the ranks find each
// other, and, when a rank fails, the news: every rank looks at it, at NCCL's asynchronous error and at the
// clock while it waits, and on bad news all abort. Order of the sums, and so the last bit, is NCCL's.
// Chapter 6 explains it.
#pragma once

#include <memory>

#include "common/parallel/communicator.h"

namespace llm {

/// `host` has a rank per GPU, and goes with the communicator; the current GPU is used. Tensors are on
/// Device::cuda. Error if this build has no NCCL.
std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host,
                                                     const CommunicatorOptions& options);

}  // namespace llm
