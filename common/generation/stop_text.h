// Text that arrives in pieces and ends before the first of some strings. Chapter 7 uses it.
//
// A string to stop at may itself arrive in pieces, so what could be its beginning is held back until it is
// known not to be.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace llm {

class StopText {
 public:
  /// Empty strings stop nothing.
  explicit StopText(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  /// Takes some more text; returns what is certain to stand before any stop.
  std::string push(std::string_view text);
  /// At the end of the text: what was held back.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace llm
