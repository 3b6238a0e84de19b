// Ranks as threads of one process: no MPI, no network, no GPU needed.
//
// A rank publishes its tensors when it calls an operation; once all ranks have, whoever waits first does the
// work, piece by piece, and ranks that wait at the same time share the pieces. So a rank can go on computing
// while its operation completes. Calls that do not match are found when the ranks meet. Chapter 6 explains
// it.
#pragma once

#include <functional>
#include <memory>

#include "common/parallel/communicator.h"

namespace llm {

/// One rank, alone: operations copy or do nothing.
std::unique_ptr<Communicator> make_self_communicator(const CommunicatorOptions& options = {});

/// Runs `body` on `n` threads, each with its communicator "world", and returns when all are done. If a rank
/// throws, the others end at their next or pending operation, and the first error is thrown here with the
/// rank in front ("rank 2: ..."), UsageError as UsageError. A rank that returns while others still wait for
/// it is an error as well. While it runs with n > 1, `parallel_for` uses one thread.
void run_ranks(int n, const CommunicatorOptions& options, const std::function<void(Communicator&)>& body);

}  // namespace llm
