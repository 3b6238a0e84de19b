// The functions that kernels call (machine.h), each for the running thread.
#include "common/simt/emulator/machine.h"

#include "common/core/error.h"
#include "common/simt/emulator/multiprocessor.h"

using llm::simt::Multiprocessor;

// The address after the call, which a report turns into the line of the kernel.
#define LLM_CALLER __builtin_return_address(0)

void __syncthreads() {
  Multiprocessor::of_this_thread().barrier(LLM_CALLER, 0);
}

int __syncthreads_count(int predicate) {
  return Multiprocessor::of_this_thread().barrier(LLM_CALLER, predicate).predicates;
}

int __syncthreads_and(int predicate) {
  const auto arrived = Multiprocessor::of_this_thread().barrier(LLM_CALLER, predicate);
  return arrived.predicates == arrived.threads ? 1 : 0;
}

int __syncthreads_or(int predicate) {
  return Multiprocessor::of_this_thread().barrier(LLM_CALLER, predicate).predicates > 0 ? 1 : 0;
}

namespace llm::simt {

void* shared_object(const char* type_name, std::size_t bytes, std::size_t alignment) {
  return Multiprocessor::of_this_thread().shared_object(type_name, bytes, alignment);
}

void join(Collective what, const char* name, std::uint32_t mask, Lane& lane) {
  Multiprocessor::of_this_thread().join(what, name, mask, lane, LLM_CALLER);
}

int lane_index() {
  return static_cast<int>(Multiprocessor::of_this_thread().thread().number % kWarp);
}

std::uint32_t active_mask() {
  auto& mp = Multiprocessor::of_this_thread();
  return ~mp.warp(mp.thread().number / kWarp).gone;
}

void on_atomic() {
  auto& mp = Multiprocessor::of_this_thread();
  mp.thread().where = LLM_CALLER;
  mp.spin();
}

void trap() {
  RawFault fault;
  fault.text = "called __trap()";
  fault.where = LLM_CALLER;
  Multiprocessor::of_this_thread().fail(std::move(fault));
}

}  // namespace llm::simt
