// The planted faults of simt_faults_test.cu.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "common/core/tensor.h"
#include "common/simt/report.h"

namespace llm::simt_test {

struct Planted {
  std::string name;  // also of the kernel
  simt::FaultKind kind;
  std::function<void()> run;
  bool also_plain = false;  // the plain build sees it too, if without the line
};

inline void PrintTo(const Planted& planted, std::ostream* out) {
  *out << planted.name;
}

std::vector<Planted> planted_faults();

}  // namespace llm::simt_test
