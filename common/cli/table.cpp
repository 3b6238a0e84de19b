#include "common/cli/table.h"

#include <algorithm>
#include <cctype>
#include <cstdio>

#include "common/cli/format.h"
#include "common/core/error.h"

namespace llm {
namespace {

bool looks_numeric(const std::string& cell) {
  const std::size_t first = cell.find_first_not_of("+-<>~ ");
  return first != std::string::npos &&
         (std::isdigit(static_cast<unsigned char>(cell[first])) != 0 || cell[first] == '.');
}

// Which columns hold numbers (or nothing) in every row below the header.
std::vector<bool> numeric_columns(const std::vector<std::vector<std::string>>& rows) {
  std::vector<bool> numeric(rows[0].size(), rows.size() > 1);
  std::vector<bool> any(rows[0].size(), false);
  for (std::size_t r = 1; r < rows.size(); ++r)
    for (std::size_t c = 0; c < rows[r].size(); ++c) {
      const std::string& cell = rows[r][c];
      if (cell.empty() || cell == "-" || cell == "–") continue;
      any[c] = true;
      if (!looks_numeric(cell)) numeric[c] = false;
    }
  for (std::size_t c = 0; c < any.size(); ++c) numeric[c] = numeric[c] && any[c];
  return numeric;
}

std::vector<int> column_widths(const std::vector<std::vector<std::string>>& rows) {
  std::vector<int> widths(rows[0].size(), 0);
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], display_width(row[c]));
  return widths;
}

}  // namespace

Table::Table(std::vector<std::string> headers) {
  rows_.push_back(std::move(headers));
}

void Table::add(std::vector<std::string> cells) {
  check(cells.size() <= rows_[0].size(), "a table row has {} cells, but there are {} columns", cells.size(),
        rows_[0].size());
  cells.resize(rows_[0].size());
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  const std::vector<bool> numeric = numeric_columns(rows_);
  const std::vector<int> widths = column_widths(rows_);
  std::string out;
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    std::string line;
    for (std::size_t c = 0; c < rows_[r].size(); ++c)
      line += (c == 0 ? "" : "  ") + pad(rows_[r][c], widths[c], numeric[c]);
    while (!line.empty() && line.back() == ' ') line.pop_back();
    out += line + "\n";
    if (r > 0) continue;
    for (std::size_t c = 0; c < widths.size(); ++c) {
      out += c == 0 ? "" : "  ";
      for (int i = 0; i < widths[c]; ++i) out += "─";
    }
    out += "\n";
  }
  return out;
}

std::string Table::markdown() const {
  const std::vector<bool> numeric = numeric_columns(rows_);
  std::string out;
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    out += "|";
    for (const std::string& cell : rows_[r]) {
      std::string safe;
      for (const char c : cell) safe += c == '|' ? "\\|" : std::string(1, c);
      out += " " + safe + " |";
    }
    out += "\n";
    if (r > 0) continue;
    out += "|";
    for (std::size_t c = 0; c < numeric.size(); ++c) out += numeric[c] ? "---:|" : "---|";
    out += "\n";
  }
  return out;
}

void Table::print() const {
  std::fputs(text().c_str(), stdout);
}

}  // namespace llm
