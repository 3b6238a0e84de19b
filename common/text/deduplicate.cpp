#include "common/text/deduplicate.h"

#include <algorithm>
#include <span>
#include <unordered_map>
#include <utility>

#include "common/core/error.h"
#include "common/core/threads.h"

namespace llm {

namespace {

/// Keeps the documents whose flag is set, in order.
void keep_only(std::vector<Document>& documents, const std::vector<bool>& keep) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < documents.size(); ++i) {
    if (!keep[i]) continue;
    if (kept != i) documents[kept] = std::move(documents[i]);
    ++kept;
  }
  documents.resize(kept);
}

/// A hash function for each `which`: a multiply and two shifts (the finalizer of splitmix64, Steele 2014).
std::uint32_t mixed(std::uint64_t hash, std::uint64_t which) {
  std::uint64_t x = hash ^ (which * 0x9E3779B97F4A7C15u);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return static_cast<std::uint32_t>(x >> 32);
}

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t';
}

std::vector<std::uint64_t> word_triples(std::string_view text) {
  std::vector<std::string_view> words;
  for (std::size_t i = 0; i < text.size();) {
    while (i < text.size() && is_space(text[i])) ++i;
    const std::size_t begin = i;
    while (i < text.size() && !is_space(text[i])) ++i;
    if (i > begin) words.push_back(text.substr(begin, i - begin));
  }
  std::vector<std::uint64_t> triples;
  // From the first byte of one word to the last of the third; spaces in between count, which is no harm.
  for (std::size_t w = 0; w + 3 <= words.size(); ++w) {
    const char* first = words[w].data();
    triples.push_back(checksum(std::string_view(
        first, static_cast<std::size_t>(words[w + 2].data() + words[w + 2].size() - first))));
  }
  if (triples.empty()) triples.push_back(checksum(text));
  return triples;
}

}  // namespace

std::int64_t remove_exact_copies(std::vector<Document>& documents) {
  SeenTexts seen;
  std::vector<bool> keep(documents.size());
  for (std::size_t i = 0; i < documents.size(); ++i) keep[i] = seen.insert(documents[i].text);
  const std::size_t before = documents.size();
  keep_only(documents, keep);
  return static_cast<std::int64_t>(before - documents.size());
}

std::vector<std::uint32_t> minhash_signature(std::string_view text, int size) {
  std::vector<std::uint32_t> minima(static_cast<std::size_t>(size), 0xFFFFFFFFu);
  for (const std::uint64_t triple : word_triples(text))
    for (std::size_t k = 0; k < minima.size(); ++k) minima[k] = std::min(minima[k], mixed(triple, k + 1));
  return minima;
}

std::int64_t remove_near_copies(std::vector<Document>& documents, const NearCopyOptions& options) {
  check(options.bands >= 1 && options.rows >= 1, "MinHash needs at least one band of one row, got {} of {}",
        options.bands, options.rows);
  const int size = options.bands * options.rows;
  std::vector<std::vector<std::uint32_t>> signatures(documents.size());
  parallel_for(static_cast<std::int64_t>(documents.size()), 16, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      signatures[i] = minhash_signature(documents[i].text, size);
  });

  const auto needed = options.similarity * size;
  const auto alike = [&](std::size_t a, std::size_t b) {
    int equal = 0;
    for (int k = 0; k < size; ++k)
      equal +=
          signatures[a][static_cast<std::size_t>(k)] == signatures[b][static_cast<std::size_t>(k)] ? 1 : 0;
    return equal >= needed;
  };
  // bucket: documents that stay and share the minima of one band
  std::unordered_map<std::uint64_t, std::vector<std::size_t>> buckets;
  const auto band_of = [&](std::size_t i, int band) {
    const auto* rows = signatures[i].data() + static_cast<std::ptrdiff_t>(band) * options.rows;
    return checksum(std::as_bytes(std::span(rows, static_cast<std::size_t>(options.rows)))) +
           static_cast<std::uint64_t>(band);
  };
  std::vector<bool> keep(documents.size(), true);
  for (std::size_t i = 0; i < documents.size(); ++i) {
    for (int band = 0; band < options.bands && keep[i]; ++band) {
      const auto bucket = buckets.find(band_of(i, band));
      if (bucket == buckets.end()) continue;
      keep[i] = std::none_of(bucket->second.begin(), bucket->second.end(),
                             [&](std::size_t j) { return alike(i, j); });
    }
    if (!keep[i]) continue;
    for (int band = 0; band < options.bands; ++band) buckets[band_of(i, band)].push_back(i);
  }
  const std::size_t before = documents.size();
  keep_only(documents, keep);
  return static_cast<std::int64_t>(before - documents.size());
}

}  // namespace llm
