// Where in the source an instruction stands, and what a function is called: asked of `addr2line`, which comes
// with the compiler's binutils, only when there is something to report.
#pragma once

#include <string>

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

/// "llm::Tiles" for the mangled name of a type, without "llm::" and "(anonymous namespace)::".
std::string type_name(const char* mangled);

/// " at exercises.cu:88", or nothing.
std::string at(const Place& place);

}  // namespace llm::simt
