// __launch_bounds__(n): the most threads a block of this kernel may have, which a launch must find out from
// nothing but the kernel's address.
//
// g++ has no attribute to keep a number with a function, but it can put n no-ops in front of one and list
// where they begin (patchable_function_entry, made for tracing tools; nothing ever runs them). Their distance
// to the function is the number. `sizeof(char[n])` makes g++ 12 accept constants that are not literals.
#pragma once

namespace llm::simt {

/// The threads of __launch_bounds__(threads, blocks on a multiprocessor). A function, because the
/// preprocessor would take the comma in Shape<64, true>::kThreads for the end of an argument.
constexpr int bound_on_threads(int threads, int /*blocks*/ = 1) {
  return threads;
}

}  // namespace llm::simt

#if defined(__GNUC__) && !defined(__clang__)
#define LLM_BOUND(...) sizeof(char[llm::simt::bound_on_threads(__VA_ARGS__)])
#define __launch_bounds__(...) \
  __attribute__((patchable_function_entry(LLM_BOUND(__VA_ARGS__), LLM_BOUND(__VA_ARGS__))))
#else
#define __launch_bounds__(...)
#endif

namespace llm::simt {

/// The bound that `kernel` was declared with, or 0.
unsigned launch_bound(const void* kernel);

}  // namespace llm::simt
