#include "common/text/split.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "common/core/error.h"
#include "common/core/philox.h"
#include "common/text/utf8.h"

namespace llm {

namespace {

/// Uniform in [0, 1): the draw that decides on which side a text lands.
double split_draw(std::string_view text, std::uint64_t seed) {
  const auto words = Philox{seed, stream_id("split")}.block(checksum(text));
  return (static_cast<double>(words[0]) + static_cast<double>(words[1]) * 0x1p-32) * 0x1p-32;
}

void check_fraction(double fraction) {
  check(fraction >= 0 && fraction < 1, "the fraction for validation must be at least 0 and below 1, got {}",
        fraction);
}

}  // namespace

bool is_validation(std::string_view text, double fraction, std::uint64_t seed) {
  return split_draw(text, seed) < fraction;
}

std::pair<std::string_view, std::string_view> split_text(std::string_view text, double fraction) {
  check_fraction(fraction);
  const auto characters = static_cast<double>(count_characters(text));
  const std::size_t cut = character_offset(text, static_cast<std::int64_t>((1 - fraction) * characters));
  return {text.substr(0, cut), text.substr(cut)};
}

Split split_documents(std::vector<Document> documents, double fraction, std::uint64_t seed) {
  check_fraction(fraction);
  check(!documents.empty(), "there are no documents to split");
  Split split;
  if (documents.size() == 1) {
    const Document& whole = documents[0];
    const auto [front, tail] = split_text(whole.text, fraction);
    if (!front.empty()) split.train.push_back({std::string(front), whole.source});
    if (!tail.empty()) split.val.push_back({std::string(tail), whole.source});
    return split;
  }
  std::vector<double> draws(documents.size());
  std::transform(documents.begin(), documents.end(), draws.begin(),
                 [&](const Document& document) { return split_draw(document.text, seed); });
  // In a small corpus chance may leave a side empty; the lowest or highest draw then goes there.
  const auto [lowest, highest] = std::minmax_element(draws.begin(), draws.end());
  check(fraction == 0 || *lowest < *highest, "all {} documents are the same text: none can be held out",
        documents.size());
  double limit = fraction;
  if (fraction > 0 && *lowest >= limit) limit = std::nextafter(*lowest, 2.0);
  if (fraction > 0 && *highest < limit) limit = *highest;
  for (std::size_t i = 0; i < documents.size(); ++i)
    (draws[i] < limit ? split.val : split.train).push_back(std::move(documents[i]));
  return split;
}

}  // namespace llm
