// Fibers: several flows of control on one thread of the host, which pass it on to each other by name.
//
// A thread of a kernel must be able to stop at a barrier in the middle of a function and go on later. A fiber
// can: it has a stack of its own, and switching saves a handful of registers on one stack and loads them from
// another, some 5 nanoseconds (Boost.Context; the system's swapcontext also asks the kernel for the signal
// mask, which takes 80 times as long). Chapter 3 explains it.
#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>

namespace llm::simt {

struct Thread;

struct Fiber {
  boost::context::detail::fcontext_t context = nullptr;  // where it goes on
  Thread* starts = nullptr;                              // the thread it shall run when it is woken idle
  std::byte* stack = nullptr;                            // its lowest address; null for the host's own stack
  std::size_t stack_bytes = 0;
  void* sanitizer = nullptr;  // what a sanitizer keeps about a stack that sleeps
};

/// Gives `fiber` a stack and lets its next run begin in `entry`, which must call arrived() first and never
/// return.
void make_fiber(Fiber& fiber, std::size_t number, void (*entry)(boost::context::detail::transfer_t));
/// Lets it begin anew, whatever it was doing; what lies on its stack is forgotten, not destroyed.
void reset_fiber(Fiber& fiber, void (*entry)(boost::context::detail::transfer_t));
void free_fiber(Fiber& fiber);

/// Goes on in `to`; returns when somebody switches back to `from`.
void switch_fiber(Fiber& from, Fiber& to);
/// The first thing a fiber does.
void arrived(Fiber& self, boost::context::detail::transfer_t transfer);
/// Goes on in `to` for good: `from` will be reset.
[[noreturn]] void leave_fiber(Fiber& from, Fiber& to);

}  // namespace llm::simt
