// Where in the source an instruction stands, and what a function is called: asked of `addr2line`, which comes
// with the compiler's binutils, only when there is something to report.
#pragma once

#include <string>

#include "common/simt/emulator/cuda_types.h"

namespace llm::simt {

struct Place {
  std::string file;  // as the compiler was given it, or empty
  int line = 0;
};

/// The line of the call or access before `return_address`. Of functions that were inlined there, the
/// innermost that is not the library's own (common/simt).
Place place_before(const void* return_address);

/// "tile_sum" for a function's address, "?" if unknown: without namespaces and parameters.
std::string function_name(const void* function);

/// "Tiles" for the mangled name of a type: without the project's namespaces.
std::string type_name(const char* mangled);

/// " at exercises.cu:88", or nothing.
std::string at(const Place& place);

/// "2", or "(2, 0)" or "(2, 0, 1)" where `of` has more than one dimension: a block or a thread as reports
/// name it.
std::string spell(uint3 i, dim3 of);
/// The thread with this number in a block.
std::string spell_thread(unsigned number, dim3 block);

}  // namespace llm::simt
