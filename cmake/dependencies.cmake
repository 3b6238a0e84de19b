# The libraries the book stands on. `./book doctor` says which are missing and installs them.
find_package(Threads REQUIRED)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(fmt REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(ZLIB REQUIRED)
find_package(GTest REQUIRED)
find_package(benchmark REQUIRED)
find_package(PkgConfig REQUIRED)
if(NOT LLM_CUDA)  # the software GPU's fibers
  find_package(Boost 1.71 REQUIRED COMPONENTS context)
endif()
pkg_check_modules(zstd REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(utf8proc REQUIRED IMPORTED_TARGET libutf8proc)
if(LLM_SERVING)
  pkg_check_modules(httplib REQUIRED IMPORTED_TARGET cpp-httplib)
endif()

# MPI and NCCL carry what ranks say to each other in chapter 6; without them ranks are threads. Programs for other
# machines do not lean on what may not be there.
set(LLM_MPI OFF)
set(LLM_NCCL OFF)
if(NOT LLM_PORTABLE)
  set(MPI_CXX_SKIP_MPICXX ON)  # C's functions are all we call
  find_package(MPI QUIET COMPONENTS CXX)
  if(MPI_CXX_FOUND)
    set(LLM_MPI ON)
  endif()
  if(LLM_CUDA)
    find_path(LLM_NCCL_INCLUDE nccl.h HINTS /usr/local/cuda/include)
    find_library(LLM_NCCL_LIBRARY nccl HINTS /usr/local/cuda/lib64)
    if(LLM_NCCL_INCLUDE AND LLM_NCCL_LIBRARY)
      set(LLM_NCCL ON)
    endif()
  endif()
endif()
message(STATUS "Ranks of chapter 6: threads; MPI ${LLM_MPI}, NCCL ${LLM_NCCL}")

# Who multiplies matrices on the CPU. The built-in product is the default: it runs within some 5% of oneDNN 2.6 on the
# sizes of GPT-2 124M, ahead of it in the forward pass of small models and behind in their weight gradients, and
# nearly everywhere ahead of OpenBLAS 0.3.21 and Eigen 3.4 (`ch03_attention_bench --benchmark_filter=linear_product`).
# It needs nothing, and no bit of its results depends on how the work is shared out. Debian's packages of the others:
# libdnnl-dev, libopenblas-serial-dev. What was asked for and is not there is an error, never replaced.
set(LLM_BLAS builtin CACHE STRING "Matrix products on the CPU: builtin, eigen, onednn or openblas")
set_property(CACHE LLM_BLAS PROPERTY STRINGS builtin eigen onednn openblas)
set(LLM_BLAS_LIBRARIES)
if(LLM_BLAS STREQUAL "onednn")
  find_package(dnnl REQUIRED)
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  set(LLM_BLAS_LIBRARIES DNNL::dnnl OpenMP::OpenMP_CXX)
elseif(LLM_BLAS STREQUAL "openblas")
  pkg_check_modules(openblas REQUIRED IMPORTED_TARGET openblas)
  set(LLM_BLAS_LIBRARIES PkgConfig::openblas)
elseif(NOT LLM_BLAS MATCHES "^(builtin|eigen)$")
  message(FATAL_ERROR "LLM_BLAS is '${LLM_BLAS}'; it must be builtin, eigen, onednn or openblas")
endif()
