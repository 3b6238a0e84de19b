#include "common/core/device.h"

#include <fstream>

#include "common/core/threads.h"

namespace llm {

namespace {

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown processor";
}

/// The widest vector instructions this processor has among those that matter for matrix products.
std::string_view vector_instructions() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return "AVX-512";
  if (__builtin_cpu_supports("avx2")) return "AVX2";
  return "SSE2";
#elif defined(__aarch64__)
  return "NEON";
#else
  return "no vector instructions known";
#endif
}

}  // namespace

std::string describe_cpu() {
  return fmt::format("cpu: {}, {} thread{}, {}", processor_name(), thread_count(),
                     thread_count() == 1 ? "" : "s", vector_instructions());
}

}  // namespace llm
