// The checked build's checker: hears of every load and store (from tsan.cpp), judges them with the notes in
// shadow.h, counts them with tally.h, and ends the launch with a sentence where something is wrong.
#pragma once

#include <cstddef>

namespace llm::simt {

/// Starts watching, once, before main; from then on the host must not touch device memory.
void start_watching();

/// True on the thread of the host that runs a checked kernel.
extern constinit thread_local bool watching;

/// The running thread loads or stores; `where` is the address after the call that says so.
void saw_access(const void* address, std::size_t bytes, bool write, bool atomic, const void* where);
/// An atomic operation took effect.
void saw_atomic();

}  // namespace llm::simt
