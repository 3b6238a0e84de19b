// When a kernel touches an address where there is no memory, the system sends a signal; on the software GPU
// that ends the launch with a sentence, as every other fault does, and not the program.
#pragma once

namespace llm::simt {

/// Installs the handler, once. What was installed before stays in force for crashes outside of kernels.
void catch_crashes();
/// Gives the calling thread of the host a stack for the handler, once.
void give_handler_stack();

}  // namespace llm::simt
