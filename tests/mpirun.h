// How tests start ranks as processes: as root, and with more of them than cores.
#pragma once

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>

namespace llm {

/// Where the runs of mpirun of this process keep their files, removed at its end. Each run has a folder of
/// its own: Open MPI 4 may fail to make the one that all runs of a user share while another run removes it.
class MpirunFolders {
 public:
  static std::string next() {
    static MpirunFolders folders;
    const std::filesystem::path folder = folders.root_ / std::to_string(folders.count_++);
    std::filesystem::create_directories(folder);
    return folder.string();
  }

 private:
  MpirunFolders()
      : root_(std::filesystem::temp_directory_path() / ("llm_mpirun_" + std::to_string(getpid()))) {}
  ~MpirunFolders() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }

  std::filesystem::path root_;
  std::atomic<int> count_ = 0;
};

inline bool has_mpirun() {
  return std::filesystem::exists(LLM_BIN_DIR "/../tests/mpi_ranks");  // built where there is MPI
}

/// A line of shell that starts what follows, "-n 4 PROGRAM" or "-n 1 PROGRAM : -n 3 ANOTHER". Small messages
/// wait for their receiver as large ones do, so that what could deadlock does. `deadline` is in
/// seconds: short only where it is what ends the run.
inline std::string mpirun(int deadline = 60) {
  return "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 "
         "OMPI_MCA_btl_vader_eager_limit=64 OMPI_MCA_btl=self,vader "
         "OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_orte_tmpdir_base=" +
         MpirunFolders::next() + " ASAN_OPTIONS=detect_leaks=0 LLM_DEADLINE=" + std::to_string(deadline) +
         " timeout -k 5 300 mpirun --map-by :OVERSUBSCRIBE --bind-to none ";
}

}  // namespace llm
