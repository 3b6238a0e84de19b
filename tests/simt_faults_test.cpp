// Every kind of fault is seen, with the kernel and the right line, and the next launch works as if nothing
// had been.
#include <gtest/gtest.h>

#include <fstream>

#include "tests/simt_faults.h"
#include "tests/simt_kernels.h"

#ifndef LLM_CUDA  // on a GPU these kernels do as they please

#if defined(__SANITIZE_ADDRESS__)
// A kernel that goes wrong is left where it stands: what the stacks of its fibers hold is not given back.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:llm::simt::\nleak:fmt::";  // (of a sentence only libfmt is seen on the stack)
}
#endif

namespace llm {
namespace {

using namespace simt_test;

std::string source() {
  const std::string here = __FILE__;
  return here.substr(0, here.rfind('.')) + ".cu";
}

/// The line that ends in "// `tag`", or 0.
int line_of(const std::string& tag) {
  std::ifstream file(source());
  int number = 1;
  for (std::string line; std::getline(file, line); ++number)
    if (line.ends_with("// " + tag)) return number;
  return 0;
}

/// All of them in the checked build. Real sanitizers stop a wild access before it happens.
std::vector<Planted> faults_this_build_sees() {
  auto faults = planted_faults();
  if (!simt::checked()) std::erase_if(faults, [](const Planted& planted) { return !planted.also_plain; });
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  std::erase_if(faults,
                [](const Planted& planted) { return planted.kind == simt::FaultKind::out_of_bounds; });
#endif
  return faults;
}

class PlantedFault : public testing::TestWithParam<Planted> {};

TEST_P(PlantedFault, IsSeenWithItsLine) {
  const Planted& planted = GetParam();
  std::string sentence;
  try {
    planted.run();
  } catch (const Error& error) {
    sentence = error.what();
  }
  ASSERT_NE(sentence, "") << "nothing was reported";
  if (std::getenv("LLM_SHOW_FAULTS") != nullptr) std::printf("%s\n", sentence.c_str());
  const simt::Fault fault = simt::last_fault();
  EXPECT_EQ(fault.sentence, sentence);
  EXPECT_EQ(fault.kind, planted.kind) << sentence;
  EXPECT_EQ(fault.kernel, planted.name) << sentence;
  if (simt::checked()) {
    // Of two accesses either may be the one that is met second.
    const int line = line_of("FAULT " + planted.name), other = line_of("OTHER " + planted.name);
    if (line != 0) {
      EXPECT_TRUE(fault.file.ends_with("tests/simt_faults_test.cu")) << fault.file;
      EXPECT_TRUE(fault.line == line || fault.line == other) << sentence;
      for (const int each : {line, other}) {
        if (each == 0) continue;
        EXPECT_TRUE(sentence.find(fmt::format("simt_faults_test.cu:{}", each)) != std::string::npos)
            << sentence << " does not name line " << each;
      }
    }
  }
  // The next launch is not disturbed.
  const Tensor visits({96}, DType::i32, Device::cuda);
  early_return(visits, 40);
  EXPECT_EQ(visits.to(Device::cpu).data<std::int32_t>()[7], 111);
}

INSTANTIATE_TEST_SUITE_P(Simt, PlantedFault, testing::ValuesIn(faults_this_build_sees()),
                         [](const auto& test) { return test.param.name; });

TEST(SimtFaultDeathTest, TheHostMustNotTouchDeviceMemory) {
  if (!simt::checked()) GTEST_SKIP() << "only the checked build sees it";
  const Tensor t({4}, DType::f32, Device::cuda);
  EXPECT_DEATH(*static_cast<volatile float*>(t.raw()) = 1, "the host touched device memory; copy it");
}

}  // namespace
}  // namespace llm

#endif
