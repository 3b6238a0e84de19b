// One program, three ways to have ranks: threads, processes under mpirun, processes with a GPU each.
//
//   run_world({.ranks = 4}, [&](Communicator& world) { ... });
//
// runs the body on 4 threads, or, if `mpirun -n 4` started the program, in its 4 processes. Chapter 6
// explains it.
#pragma once

#include <functional>

#include "common/parallel/communicator.h"

namespace llm {

struct WorldOptions {
  int ranks = 0;  // 0: as many as mpirun started; without mpirun, 1
  CommunicatorOptions communicator;
  bool check = true;  // under mpirun: that all ranks call the same operations (threads find that anyway)
  bool nccl = false;  // under mpirun: numbers go from GPU to GPU
};

/// Returns when the body is over on all ranks. If it throws on one, all end: threads with the first error,
/// thrown here with its rank in front; processes with the error on stderr, said once, and exit code 1, or 2
/// for a UsageError. Error, or UsageError, if there cannot be such ranks.
void run_world(const WorldOptions& options, const std::function<void(Communicator&)>& body);

/// How many processes mpirun (or srun with PMI) started; 0: this program was started alone.
int ranks_started_by_mpirun();
/// The rank of this process among them; 0 when started alone. What only one should print, rank 0 prints.
int rank_under_mpirun();

/// Under mpirun: lets this process see one GPU, by its rank on the machine: one of those in
/// CUDA_VISIBLE_DEVICES or, if that is not set, of all. To be called first in main(), before anything looks
/// for a GPU.
void choose_gpu_under_mpirun();

}  // namespace llm
