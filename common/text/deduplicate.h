// Finding documents that stand in a corpus more than once.
//
// A model learns what it sees twice by heart, and a validation text that is also a training text measures
// memory, not understanding. Exact copies are found by their 64-bit hash (XXH3); near copies, which differ in
// some words, by MinHash (Broder 1997, "On the resemblance and containment of documents"): the share of equal
// minima under many hash functions estimates the share of word triples that two documents have in common.
// Chapter 1 explains it.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "common/text/documents.h"

namespace llm {

/// Remembers texts by their hash.
class SeenTexts {
 public:
  /// True the first time a text comes. (That two different texts share a hash: 2^-64 per pair.)
  bool insert(std::string_view text) { return hashes_.insert(checksum(text)).second; }
  std::int64_t size() const { return static_cast<std::int64_t>(hashes_.size()); }

 private:
  std::unordered_set<std::uint64_t> hashes_;
};

/// Removes exact copies, keeping the first of each; returns how many were removed.
std::int64_t remove_exact_copies(std::vector<Document>& documents);

struct NearCopyOptions {
  double similarity =
      0.8;         ///< documents at least this alike (Jaccard index of their word triples) are copies
  int bands = 16;  ///< of `rows` minima each; more bands find less similar pairs
  int rows = 8;
};

/// Removes documents that are nearly a copy of an earlier one that stays; returns how many were removed.
/// Candidates share the minima of a band; they are compared by their whole signatures.
std::int64_t remove_near_copies(std::vector<Document>& documents, const NearCopyOptions& options = {});

/// `size` minima over the hashes of the text's word triples; a text of fewer words counts as one such triple.
std::vector<std::uint32_t> minhash_signature(std::string_view text, int size);

}  // namespace llm
