// The walk of chapter 1, station by station: stories and their judge, the corpus, what a loss can be,
// cleaning, the split, windows, shards.
#include <fmt/core.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ch01_data/walk.h"
#include "common/cli/format.h"
#include "common/cli/progress.h"
#include "common/cli/svg.h"
#include "common/cli/table.h"
#include "common/cli/text_plot.h"
#include "common/core/error.h"
#include "common/text/batches.h"
#include "common/text/documents.h"
#include "common/text/story.h"
#include "common/text/story_labels.h"

namespace llm::ch01 {

namespace fs = std::filesystem;

namespace {

void heading(std::string_view text) {
  fmt::print("\n== {} ==\n\n", text);
}

/// Prints a text in lines of at most 100 columns, indented.
void print_wrapped(std::string_view text) {
  std::string line;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t end = std::min(text.find(' ', i), text.size());
    if (!line.empty() && line.size() + 1 + (end - i) > 96) {
      fmt::print("    {}\n", line);
      line.clear();
    }
    if (!line.empty()) line += ' ';
    line += text.substr(i, end - i);
    i = end + 1;
  }
  if (!line.empty()) fmt::print("    {}\n", line);
}

/// The text in quotes, with all that could not be seen as an escape.
std::string visible(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', true);
}

// ---- stories -------------------------------------------------------------------------------------------

void show_stories(std::uint64_t seed) {
  heading("Stories, and their judge");
  for (std::uint64_t i = 0; i < 3; ++i) {
    const Story story = generate_story(seed, i);
    const Verdict verdict = judge_story(story.text);
    print_wrapped(story.text);
    fmt::print("  The judge: {}; its probability is e^{:.2f}, one in {:.0e}.\n\n",
               verdict.valid ? "valid" : verdict.reason, verdict.log_probability,
               std::exp(-verdict.log_probability));
  }
  const Preference broken = make_preference(seed, 0);
  fmt::print("The next one differs from a valid story in one word:\n\n");
  print_wrapped(broken.prompt + broken.rejected);
  fmt::print("  The judge: {}.\n", judge_story(broken.prompt + broken.rejected).reason);
}

// ---- the corpus ----------------------------------------------------------------------------------------

/// Calls body(word) for each run of letters (ASCII, apostrophes within), in lower case.
template <typename Body>
void for_each_word(std::string_view text, const Body& body) {
  std::string word;
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  for (const char c : text) {
    if (is_letter(c)) {
      word += static_cast<char>(c | 0x20);
    } else if (!word.empty()) {
      body(word);
      word.clear();
    }
  }
  if (!word.empty()) body(word);
}

void show_words(const std::vector<Document>& documents) {
  std::unordered_map<std::string, std::int64_t> counts;
  std::int64_t total = 0;
  for (const Document& document : documents)
    for_each_word(document.text, [&](const std::string& word) { ++counts[word], ++total; });
  std::vector<std::pair<std::string, std::int64_t>> sorted(counts.begin(), counts.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  fmt::print("{} words, {} of them different. The most frequent, in % of all:\n\n", with_commas(total),
             with_commas(static_cast<std::int64_t>(sorted.size())));
  BarChart chart;
  for (std::size_t i = 0; i < std::min<std::size_t>(12, sorted.size()); ++i) {
    chart.labels.push_back(sorted[i].first);
    chart.values.push_back(
        std::round(1e4 * static_cast<double>(sorted[i].second) / static_cast<double>(total)) / 100);
  }
  fmt::print("{}\n", text_plot(chart));
}

void show_lengths(const std::vector<Document>& documents, const fs::path& folder) {
  Histogram histogram;
  histogram.title = "How long the stories are";
  histogram.x_label = "bytes";
  histogram.y_label = "stories";
  for (const Document& document : documents)
    histogram.values.push_back(static_cast<double>(document.text.size()));
  write_file(folder / "lengths.svg", svg(histogram));
  const auto [shortest, longest] = std::minmax_element(histogram.values.begin(), histogram.values.end());
  histogram.low = std::floor(*shortest / 20) * 20;
  histogram.high = std::ceil(*longest / 20) * 20;
  histogram.bins = static_cast<int>(*histogram.high - *histogram.low) / 20;
  fmt::print("Bytes per story (also drawn in {}):\n\n{}\n", (folder / "lengths.svg").string(),
             text_plot(histogram));
}

// ---- how well the next byte can be told ------------------------------------------------------------------

/// Nats per byte of an n-gram model: the distribution of a byte after the `order` bytes before it, counted on
/// `train` (plus 0.01 for each of the 256 bytes, so that nothing is impossible), measured on `val`.
double ngram_loss(std::string_view train, std::string_view val, int order) {
  const std::size_t contexts = std::size_t{1} << (8 * order);
  std::vector<float> counts(contexts * 256, 0.01F);
  std::vector<float> totals(contexts, 2.56F);
  std::size_t context = 0;
  for (const char c : train) {
    const auto byte = static_cast<unsigned char>(c);
    counts[context * 256 + byte] += 1;
    totals[context] += 1;
    context = ((context << 8) | byte) & (contexts - 1);
  }
  double nats = 0;
  context = 0;
  for (const char c : val) {
    const auto byte = static_cast<unsigned char>(c);
    nats -=
        std::log(static_cast<double>(counts[context * 256 + byte]) / static_cast<double>(totals[context]));
    context = ((context << 8) | byte) & (contexts - 1);
  }
  return nats / static_cast<double>(val.size());
}

/// What Zstandard makes of the validation text when it may look things up in the training text.
double zstd_loss(std::string_view train, std::string_view val) {
  const std::string_view dictionary =
      train.substr(train.size() - std::min<std::size_t>(train.size(), 4 << 20));
  ZSTD_CCtx* context = ZSTD_createCCtx();
  check(context != nullptr, "no memory to compress");
  std::string packed(ZSTD_compressBound(val.size()), '\0');
  const std::size_t size = ZSTD_compress_usingDict(context, packed.data(), packed.size(), val.data(),
                                                   val.size(), dictionary.data(), dictionary.size(), 9);
  ZSTD_freeCCtx(context);
  check(!ZSTD_isError(size), "cannot compress: {}", ZSTD_getErrorName(size));
  return static_cast<double>(size) * 8 * std::log(2.0) / static_cast<double>(val.size());
}

std::string joined(const std::vector<Document>& documents) {
  std::string text;
  for (const Document& document : documents) text.append(document.text).append("\n");
  return text;
}

void show_losses(const std::vector<Document>& train, const std::vector<Document>& val,
                 const DocumentsAbout& about, MetricsWriter& metrics) {
  heading("How well can the next byte be told?");
  const std::string train_text = joined(train);
  const std::string val_text = joined(val);
  Table table({"who tells the next byte of val.jsonl", "nats per byte", "bits per byte"});
  const auto add = [&](const std::string& who, double nats) {
    table.add({who, fmt::format("{:.3f}", nats), fmt::format("{:.3f}", nats / std::log(2.0))});
    metrics.write({{"predictor", who}, {"nats_per_byte", nats}});
  };
  add("nobody: all 256 bytes alike", std::log(256.0));
  add("who knows how frequent each byte is", ngram_loss(train_text, val_text, 0));
  add("... and sees the byte before", ngram_loss(train_text, val_text, 1));
  add("... and the two before", ngram_loss(train_text, val_text, 2));
  add("Zstandard, looking at training stories", zstd_loss(train_text, val_text));
  if (about.floor) add("who knows how stories are made: the floor", about.floor->nats_per_byte);
  table.print();
  if (about.floor)
    fmt::print(
        "\nThe floor is exact: the generator knows the probability of each story. On the {} validation "
        "stories the\n"
        "mean of -log p is {:.3f} nats per story; for all stories it is that within {:.3f} (one standard "
        "error).\n",
        with_commas(about.val_documents), about.floor->nats_per_story, about.floor->standard_error);
}

// ---- cleaning, windows -----------------------------------------------------------------------------------

void show_cleaning() {
  heading("Cleaning");
  Table table({"as it comes", "as it is kept", "why"});
  const auto add = [&](const std::string& text, const std::string& why) {
    table.add({visible(text), visible(normalise(text)), why});
  };
  add("Mia ran.\r\nTom hid.", "line endings of other systems");
  add("\xEF\xBB\xBFOnce", "a byte order mark (3 bytes that nobody sees)");
  add("cafe\xCC\x81", "two code points that look like one; NFC");
  add("the end.  \n", "spaces that nobody sees");
  add("be\x07 quiet", "control characters");
  table.print();
  try {
    (void)normalise("caf\xE9");
  } catch (const Error& error) {
    fmt::print("\nWhat is not UTF-8 is refused, not guessed: {}\n", error.what());
  }
}

void show_windows(const std::string& text) {
  heading("Windows: every position is an exercise");
  std::vector<std::int32_t> tokens;
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  const auto letters = [](std::span<const std::int32_t> ids) {
    std::string result;
    for (const std::int32_t id : ids) result += static_cast<char>(id);
    return visible(result);
  };
  fmt::print("The text {}, a byte as a token, windows of 6 tokens:\n\n", visible(text));
  for (const std::int64_t stride : {1, 3, 6}) {
    const auto starts = sliding_starts(static_cast<std::int64_t>(tokens.size()), 6, stride);
    const Batch batch = make_batch(tokens, starts, 6);
    fmt::print("  stride {}: {} windows\n", stride, starts.size());
    for (std::size_t row = 0; row < std::min<std::size_t>(starts.size(), 3); ++row)
      fmt::print("    {} -> {}\n", letters(batch.inputs.span<std::int32_t>().subspan(row * 6, 6)),
                 letters(batch.targets.span<std::int32_t>().subspan(row * 6, 6)));
  }
  const Batch batch = make_batch(tokens, std::array<std::int64_t, 1>{0}, 6);
  fmt::print("\nOne window holds as many exercises as it has tokens:\n\n");
  for (std::size_t t = 0; t < 6; ++t)
    fmt::print("    {:<10} is followed by {}\n", letters(batch.inputs.span<std::int32_t>().first(t + 1)),
               letters(batch.targets.span<std::int32_t>().subspan(t, 1)));
}

/// The documents in the folder, if it is one and not of the story world.
std::optional<DocumentsAbout> foreign_documents(const fs::path& folder) {
  if (!fs::exists(folder / "about.json")) return std::nullopt;
  DocumentsAbout about = read_documents_about(folder);
  if (about.source == "story world") return std::nullopt;
  return about;
}

}  // namespace

void walk(const fs::path& folder, std::uint64_t seed, MetricsWriter& metrics) {
  show_stories(seed);

  heading("The corpus");
  if (const auto foreign = foreign_documents(folder)) {
    fmt::print("{} holds documents made of {}; they stay. To look at the story world, give another --work.\n",
               folder.string(), foreign->source);
    return;
  }
  StoryCorpusOptions options;
  options.seed = seed;
  generate(folder, options, metrics);
  const std::vector<Document> train = read_documents({folder / "train.jsonl"});
  const std::vector<Document> val = read_documents({folder / "val.jsonl"});
  fmt::print("\n");
  show_words(train);
  show_lengths(train, folder);

  const DocumentsAbout about = read_documents_about(folder);
  show_losses(train, val, about, metrics);
  show_cleaning();

  heading("The split");
  fmt::print(
      "A story's own text decides, with the seed, on which side it falls: {} of {} stories are for\n"
      "validation ({:.1f}%), none is on both sides, and more stories would move none of these.\n",
      with_commas(about.val_documents), with_commas(about.train_documents + about.val_documents),
      100 * static_cast<double>(about.val_documents) /
          static_cast<double>(about.train_documents + about.val_documents));

  show_windows("Mia had a kite.");
  fmt::print("\nNext: ch02_tokenizer turns {} into tokens.\n", folder.string());
}

}  // namespace llm::ch01
