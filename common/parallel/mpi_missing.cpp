// In place of mpi_communicator.cpp where there is no MPI.
#include "common/parallel/mpi_communicator.h"

namespace llm {

namespace {
constexpr const char* kSentence =
    "mpirun started this program, but it was built without MPI; install MPI (libopenmpi-dev and "
    "openmpi-bin), "
    "configure and build again, or start it without mpirun: its ranks are threads then";
}

std::unique_ptr<Communicator> make_mpi_communicator(const CommunicatorOptions&) {
  throw Error(kSentence);
}

void abort_mpi(const std::string& sentence, int) {
  throw Error(sentence);
}

}  // namespace llm
