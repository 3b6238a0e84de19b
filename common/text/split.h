// Which text is for training and which for validation.
//
// A document goes to one side whole, and which side is decided by its text and the seed alone: the same
// document lands on the same side whatever else is in the corpus and in whatever order, and two copies of it
// can never end on both. A corpus of one document (a book) is cut near its end instead. Chapter 1 explains
// it.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "common/text/documents.h"

namespace llm {

/// True if the document belongs to validation: its hash counts a Philox draw of (seed, "split"), uniform in
/// [0, 1), that is below `fraction`.
bool is_validation(std::string_view text, double fraction, std::uint64_t seed);

struct Split {
  std::vector<Document> train;
  std::vector<Document> val;
};

/// Splits documents; a single one by `split_text`. With two or more, each side gets at least one. A fraction
/// of 0 leaves validation empty. Error unless 0 <= fraction < 1, there are documents, and not all are the
/// same text.
Split split_documents(std::vector<Document> documents, double fraction, std::uint64_t seed);

/// (front, tail): the tail begins at character int((1 - fraction) * characters), never within a character's
/// bytes.
std::pair<std::string_view, std::string_view> split_text(std::string_view text, double fraction);

}  // namespace llm
