# How this project's targets are made: the flags they share, one static library per folder of common/,
# one program per chapter.

add_library(llm_flags INTERFACE)
target_compile_features(llm_flags INTERFACE cxx_std_20)
target_include_directories(llm_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(llm_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${LLM_WERROR}>>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 sees overlapping copies in std::string where there are none (GCC bug 105329); where its header is precompiled,
  # too long ones as well.
  target_compile_options(llm_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
  if(NOT CMAKE_DISABLE_PRECOMPILE_HEADERS)
    target_compile_options(llm_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-array-bounds;-Wno-stringop-overflow>)
  endif()
endif()
if(LLM_CUDA)
  target_compile_definitions(llm_flags INTERFACE LLM_CUDA=1)
  # By hand: CMake 3.25 does not know yet that nvcc has C++20, nor fmt 9 that nvcc has constexpr.
  target_compile_options(llm_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20;-DFMT_USE_CONSTEXPR=1;--expt-relaxed-constexpr>
    $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<NOT:$<BOOL:${LLM_PORTABLE}>>>:-lineinfo>
    $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${LLM_WERROR}>>:-Werror;all-warnings>)
endif()
if(LLM_PORTABLE)  # nothing of this machine: not its processor, not its folders (tools/gpu/pack)
  set(from_here -ffile-prefix-map=${CMAKE_SOURCE_DIR}=.)
  target_compile_options(llm_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=x86-64-v3;${from_here}>
                                             $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${from_here}>)
  target_link_options(llm_flags INTERFACE -s)
  set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
  set(CMAKE_INSTALL_RPATH $ORIGIN/../../../deps/usr/lib/${CMAKE_LIBRARY_ARCHITECTURE} /usr/local/cuda/lib64)
elseif(LLM_NATIVE)
  target_compile_options(llm_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
endif()
if(LLM_SANITIZE)
  # Without checks that take a fifth of the time to compile and whose accesses the address sanitizer reports itself: of null
  # pointers, object sizes, virtual calls. In the tests' own files neither what is undefined is looked for nor the use of
  # what is out of scope. The kernels would run at a tenth of their speed if each vector of an inner loop lay in memory that
  # is marked as dead and alive again every time, or each address were computed twice; accesses beyond an array, on the
  # stack too, are seen all the same.
  target_compile_options(llm_flags INTERFACE -fsanitize=${LLM_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all -fno-sanitize=null,object-size,vptr
    $<$<BOOL:$<TARGET_PROPERTY:LLM_TEST>>:-fno-sanitize=undefined;-fno-sanitize-address-use-after-scope>
    $<$<BOOL:$<TARGET_PROPERTY:LLM_INNER_LOOPS>>:-O2;-fno-sanitize-address-use-after-scope;-fno-sanitize=pointer-overflow,alignment>)
  target_link_options(llm_flags INTERFACE -fsanitize=${LLM_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # what sanitizers add confuses this warning; without them it stays
    target_compile_options(llm_flags INTERFACE -Wno-maybe-uninitialized)
  endif()
endif()

# Headers that nearly every file includes, parsed once instead of each time, which took half of the compiler's time. Targets with
# the same options share the result (REUSE_FROM). A file still includes what it uses; that it does is seen by a build with
# -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON.
set(llm_headers <algorithm> <array> <chrono> <cmath> <cstdint> <filesystem> <fstream> <functional> <map> <memory> <mutex>
                <optional> <set> <span> <string> <string_view> <thread> <unordered_map> <utility> <vector> <fmt/format.h>)

# llm_library(ops DEPENDS llm_core Eigen3::Eigen): all .cpp files of common/ops as the library llm_ops.
# What stands behind DEPENDS is all it may include; a wrong include does not link.
function(llm_library name)
  cmake_parse_arguments(arg "" "" "DEPENDS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/common/${name}/*.cpp)
  if(sources)
    add_library(llm_${name} STATIC ${sources})
    target_link_libraries(llm_${name} PUBLIC llm_flags ${arg_DEPENDS})
    if(name STREQUAL "core" OR name STREQUAL "ops")  # the latter has options of its own
      target_precompile_headers(llm_${name} PRIVATE ${llm_headers})
    else()
      target_precompile_headers(llm_${name} REUSE_FROM llm_core)
    endif()
  else()  # headers only
    add_library(llm_${name} INTERFACE)
    target_link_libraries(llm_${name} INTERFACE llm_flags ${arg_DEPENDS})
  endif()
endfunction()

# llm_device_sources(llm_ops a.cu b.cu): adds .cu files to a target. With LLM_CUDA nvcc compiles them; otherwise the C++
# compiler does, for the software GPU. In a target with the property LLM_CHECKED they are compiled so that the software GPU
# sees each load and store: with the calls that -fsanitize=thread and -fsanitize=bounds put there, but with our own functions
# to answer them (common/simt/emulator/tsan.cpp and ubsan.cpp) in place of those sanitizers. A program should link either plain or checked kernels.
# -fstack-clash-protection: a frame larger than the page that guards a thread's stack cannot step over it into another's.
# -O2: no slower here than -O3, and compiled in half the time.
# There is no checked build with nvcc or under the real sanitizers: LLM_CAN_CHECK says so.
set(LLM_CAN_CHECK ON)
if(LLM_CUDA OR LLM_SANITIZE)
  set(LLM_CAN_CHECK OFF)
endif()
# -O1 and the rest keep one line to a call, and compile in half the time; the calls take most of the time anyway. What
# they add confuses g++ 12's warning about uninitialised variables, as real sanitizers do. -fno-tree-sra: a load of a
# float4 stays one access of 16 bytes, and is counted so.
set(llm_checked_options -fsanitize=thread,bounds-strict --param=tsan-instrument-func-entry-exit=0 -g1 -O1
                        -fno-optimize-sibling-calls -fno-ipa-icf -fno-tree-sra -Wno-tsan -Wno-maybe-uninitialized
                        -Wno-uninitialized)
function(llm_device_sources target)
  target_sources(${target} PRIVATE ${ARGN})
  if(NOT LLM_CUDA)
    set(checked $<BOOL:$<TARGET_PROPERTY:LLM_CHECKED>>)
    set_source_files_properties(${ARGN} TARGET_DIRECTORY ${target} PROPERTIES
      LANGUAGE CXX
      COMPILE_OPTIONS "-Wno-unknown-pragmas;-fstack-clash-protection;$<$<CONFIG:Release>:-O2>;$<${checked}:${llm_checked_options}>")
  endif()
endfunction()

# llm_chapter(ch01_data): the program bin/ch01_data of the folder's main.cpp, walk_*.cpp and walk_*.cu, and the benchmark
# bin/ch01_data_bench of its bench*.cpp (not with sanitizers).
function(llm_chapter name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${name}/main.cpp ${CMAKE_SOURCE_DIR}/${name}/walk_*.cpp)
  if(LLM_SERVING)  # one of the two says that there is no server
    list(FILTER sources EXCLUDE REGEX "/walk_no_server")
  else()
    list(FILTER sources EXCLUDE REGEX "/walk_serve")
  endif()
  string(SUBSTRING ${name} 0 4 chapter)
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE llm_until_${chapter} llm_cli)
  target_precompile_headers(${name} REUSE_FROM llm_core)
  file(GLOB kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${name}/walk_*.cu)
  if(kernels)
    llm_device_sources(${name} ${kernels})
    if(LLM_CAN_CHECK)  # a walk with kernels tells what they move
      set_target_properties(${name} PROPERTIES LLM_CHECKED ON)
      set_source_files_properties(${kernels} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)  # they have other options
      target_link_libraries(${name} PRIVATE llm_ops_checked)
    endif()
  endif()
  # CLI11 is all headers; optimising it doubles the time to compile it and gains nothing.
  set_source_files_properties(${CMAKE_SOURCE_DIR}/${name}/main.cpp PROPERTIES COMPILE_OPTIONS -O1)
  file(GLOB benches CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${name}/bench*.cpp)
  set(programs ${name})
  add_dependencies(programs ${name})
  if(benches AND NOT LLM_SANITIZE)
    add_executable(${name}_bench ${benches})
    target_link_libraries(${name}_bench PRIVATE llm_until_${chapter} llm_cli benchmark::benchmark_main)
    target_precompile_headers(${name}_bench REUSE_FROM llm_core)
    list(APPEND programs ${name}_bench)
  endif()
  set_target_properties(${programs} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
endfunction()
