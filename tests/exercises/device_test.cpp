#include "tests/exercises/device_test.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/core/device_memory.h"
#include "common/core/error.h"
#include "tests/exercises/report.h"

#ifndef LLM_CUDA
#include "common/simt/report.h"
#endif

namespace llm::exercises {
namespace {

#ifndef LLM_CUDA
std::string_view hint_for(simt::FaultKind kind) {
  switch (kind) {
    case simt::FaultKind::race:
      return "what one thread writes and another reads needs a __syncthreads() between the two, and so does "
             "what is written again where others may still be reading";
    case simt::FaultKind::divergent_barrier:
      return "all threads of a block must come to the same __syncthreads(); does it stand within an if, or "
             "after a return?";
    case simt::FaultKind::missing_lane:
      return "all lanes that the mask names must come to the shuffle; does it stand within an if, or in a "
             "loop that some lanes leave earlier?";
    case simt::FaultKind::out_of_bounds:
      return "there may be more threads than elements, and the last tile may be a part of one: ask if the "
             "index is inside before reading or writing";
    case simt::FaultKind::uninitialised:
      return "nobody has written what is read here, or not yet: is a __syncthreads() missing before, or is a "
             "part of a tile left out?";
    case simt::FaultKind::early_read:
      return "wait for the copy with __pipeline_wait_prior, then __syncthreads()";
    case simt::FaultKind::deadlock:
      return "some threads wait for others that have gone elsewhere";
    case simt::FaultKind::trap:
      break;
  }
  return "";
}
#endif

}  // namespace

Tensor on_device(std::span<const float> numbers) {
  return Tensor::from(numbers, {static_cast<std::int64_t>(numbers.size())}).to(Device::cuda);
}

Tensor rubbish_on_device(std::size_t count) {
  return on_device(std::vector<float>(count, std::nanf("")));
}

std::vector<float> from_device(const Tensor& array) {
  const Tensor host = array.to(Device::cpu);
  return {host.data(), host.data() + host.numel()};
}

bool kernels_watched() {
#ifdef LLM_CUDA
  return false;
#else
  return simt::checked();
#endif
}

bool kernels_run(const std::function<void()>& body, Work* work) {
#ifdef LLM_CUDA
  body();
  device_synchronize();
  if (work != nullptr) ++work->launches;
  return true;
#else
  simt::clear_counts();
  try {
    body();
  } catch (const Error& error) {
    const simt::Fault fault = simt::last_fault();
    if (fault.sentence != error.what()) throw;
    ADD_FAILURE() << fault.sentence << kHintMark << hint_for(fault.kind);
    return false;
  }
  if (work == nullptr) return true;
  work->known = kernels_watched();
  for (const simt::Counts& counts : simt::counted_launches()) {
    ++work->launches;
    work->loaded += counts.global_load_bytes;
    work->stored += counts.global_store_bytes;
    work->loaded_sectors += counts.global_load_sectors;
    work->stored_sectors += counts.global_store_sectors;
    work->shared += counts.shared_loads + counts.shared_stores;
    work->atomics += counts.atomics;
  }
  return true;
#endif
}

void expect_at_most(std::int64_t got, std::int64_t limit, std::string_view what, std::string_view hint) {
  if (got > limit)
    ADD_FAILURE() << what << ": " << got << ", expected at most " << limit << kHintMark << hint;
}

}  // namespace llm::exercises
