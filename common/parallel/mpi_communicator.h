// Ranks as processes under mpirun, on one machine or many.
//
// MPI is asked for one thing only: to carry bytes from one process to another without waiting. What is built
// from that stands in mpi_communicator.cpp: all_reduce sends piece j of x to rank j, which adds the pieces up
// in the order of the ranks and sends the sum to all; so the bits are those of every other backend, and each
// rank sends 2 (n-1)/n of x, as a ring would. MPI's own reductions promise no order. Tensors on a GPU are
// copied through the host, so that several ranks can share one.
//
// MPI moves on only when it is called: operations under way progress whenever this rank starts one, waits
// for one or asks whether one is done. Waits poll, and sleep a little between polls. Chapter 6 explains it.
#pragma once

#include <memory>
#include <string>

#include "common/parallel/communicator.h"

namespace llm {

/// All processes, as the communicator "world". Starts MPI at the first call; MPI ends with the program. Error
/// if this build has no MPI.
std::unique_ptr<Communicator> make_mpi_communicator(const CommunicatorOptions& options);

/// Says the sentence on stderr, unless another rank of this machine has said its own, and ends all ranks with
/// this exit code.
[[noreturn]] void abort_mpi(const std::string& sentence, int exit_code);

}  // namespace llm
