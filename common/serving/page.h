// The page to talk to a model, page.html, as CMake put it into the program.
#pragma once

#include <string_view>

namespace llm {

extern const std::string_view kServerPage;

}  // namespace llm
