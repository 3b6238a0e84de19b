// Aligned text tables.
#pragma once

#include <string>
#include <vector>

namespace llm {

/// Columns as wide as their content; a column of numbers is aligned to the right.
///
///   Table table({"file", "tokens"});
///   table.add({"val.bin", with_commas(33803)});
///   table.print();
class Table {
 public:
  explicit Table(std::vector<std::string> headers);
  /// A row may have fewer cells than there are headers (the rest is empty), not more (Error).
  void add(std::vector<std::string> cells);
  /// All lines, each ended with a line break.
  std::string text() const;
  /// The same as a Markdown table.
  std::string markdown() const;
  /// `text` on stdout.
  void print() const;

 private:
  std::vector<std::vector<std::string>> rows_;  // row 0: the headers
};

}  // namespace llm
