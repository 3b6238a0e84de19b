#include "common/parallel/launch.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "common/parallel/mpi_communicator.h"
#include "common/parallel/nccl_communicator.h"
#include "common/parallel/threads_communicator.h"
#include "common/parallel/wrappers.h"

namespace llm {

namespace {

/// The first of these variables that is a number; -1: none is.
int number_in_environment(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const char* text = std::getenv(name);
    char* end = nullptr;
    if (text == nullptr || *text == '\0') continue;
    const long number = std::strtol(text, &end, 10);
    if (*end == '\0' && number >= 0 && number < 1'000'000) return static_cast<int>(number);
  }
  return -1;
}

std::string with_history(const DeadlineError& e) {
  if (e.history.empty()) return e.what();
  return fmt::format("{}\nThe last operations of this rank:\n{}", e.what(), e.history);
}

std::unique_ptr<Communicator> make_world_of_processes(const WorldOptions& options) {
  auto world = make_mpi_communicator(options.communicator);
  if (!options.nccl && !options.check) return world;
  auto control = options.check ? world->split(0, world->rank(), "world") : nullptr;
  if (options.nccl) world = make_nccl_communicator(std::move(world), options.communicator);
  return options.check ? make_checking_communicator(std::move(world), std::move(control)) : std::move(world);
}

void run_processes(const WorldOptions& options, const std::function<void(Communicator&)>& body) {
  const auto die = [](const std::string& sentence, int code) {
    abort_mpi(fmt::format("rank {}: {}", rank_under_mpirun(), sentence), code);
  };
  try {
    const auto world = make_world_of_processes(options);
    body(*world);
    world->barrier();  // a rank that has ended would let the others wait
  } catch (const DeadlineError& e) {
    die(with_history(e), 1);
  } catch (const UsageError& e) {
    die(e.what(), 2);
  } catch (const std::exception& e) {
    die(e.what(), 1);
  } catch (...) {
    die("something that is not a std::exception was thrown", 1);
  }
}

}  // namespace

int ranks_started_by_mpirun() {
  // Open MPI's mpirun; MPICH's, and srun --mpi=pmi2; srun --mpi=pmix.
  int ranks = number_in_environment({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"});
  if (ranks < 0 && std::getenv("PMIX_RANK") != nullptr) ranks = number_in_environment({"SLURM_NTASKS"});
  return std::max(ranks, 0);
}

int rank_under_mpirun() {
  return std::max(0, number_in_environment({"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"}));
}

void choose_gpu_under_mpirun() {
  if (ranks_started_by_mpirun() == 0) return;
  const int local = number_in_environment({"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"});
  std::vector<std::string> gpus;
  if (const char* given = std::getenv("CUDA_VISIBLE_DEVICES")) {  // by a scheduler: those of the job
    std::istringstream list(given);
    for (std::string gpu; std::getline(list, gpu, ',');) gpus.push_back(gpu);
  } else {
    while (std::filesystem::exists(fmt::format("/dev/nvidia{}", gpus.size())))
      gpus.push_back(fmt::format("{}", gpus.size()));
  }
  if (local < 0 || gpus.size() < 2) return;
  setenv("CUDA_VISIBLE_DEVICES", gpus[static_cast<std::size_t>(local) % gpus.size()].c_str(), 1);
}

void run_world(const WorldOptions& options, const std::function<void(Communicator&)>& body) {
  const int started = ranks_started_by_mpirun();
  if (started > 0) {
    if (options.ranks != 0 && options.ranks != started)
      fail_usage("mpirun started {} ranks, but {} are asked for", started, options.ranks);
    return run_processes(options, body);
  }
  if (options.nccl)
    fail_usage("NCCL needs one process per GPU; start the program with mpirun -n {}",
               std::max(1, options.ranks));
  try {
    run_ranks(std::max(1, options.ranks), options.communicator, body);
  } catch (const DeadlineError& e) {
    throw Error(with_history(e));
  }
}

}  // namespace llm
