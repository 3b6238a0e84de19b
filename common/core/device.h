// Where a tensor lives.
#pragma once

#include <string>
#include <string_view>

#include "common/core/error.h"

namespace llm {

enum class Device { cpu, cuda };

inline std::string_view name(Device device) {
  return device == Device::cpu ? "cpu" : "cuda";
}

/// Parses "cpu" or "cuda"; anything else is a UsageError.
inline Device parse_device(const std::string& text) {
  if (text == "cpu") return Device::cpu;
  if (text == "cuda") return Device::cuda;
  fail_usage("there is no device '{}'; use cpu or cuda", text);
}

/// What this process computes with, in one line for a program's first output:
/// "cpu: Intel(R) Xeon(R) ..., 2 threads, AVX-512".
std::string describe_cpu();

}  // namespace llm
