// The commands of ch01_data: generate, prepare and judge.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "ch01_data/walk.h"
#include "common/cli/format.h"
#include "common/cli/progress.h"
#include "common/cli/table.h"
#include "common/core/error.h"
#include "common/core/threads.h"
#include "common/text/deduplicate.h"
#include "common/text/documents.h"
#include "common/text/input_file.h"
#include "common/text/split.h"
#include "common/text/story.h"

namespace llm::ch01 {

namespace fs = std::filesystem;

namespace {

void print_split(const fs::path& folder, const DocumentsAbout& about) {
  Table table({"file", "documents", "bytes of text"});
  table.add({(folder / "train.jsonl").string(), with_commas(about.train_documents),
             with_commas(about.train_bytes)});
  table.add(
      {(folder / "val.jsonl").string(), with_commas(about.val_documents), with_commas(about.val_bytes)});
  table.print();
}

MetricRecord record_of(const DocumentsAbout& about) {
  MetricRecord record = {{"source", about.source},
                         {"seed", about.seed},
                         {"train_documents", about.train_documents},
                         {"val_documents", about.val_documents},
                         {"train_bytes", about.train_bytes},
                         {"val_bytes", about.val_bytes},
                         {"copies", about.copies}};
  if (about.floor) {
    record.emplace_back("floor_nats_per_story", about.floor->nats_per_story);
    record.emplace_back("floor_nats_per_byte", about.floor->nats_per_byte);
  }
  return record;
}

/// "one thing", "3 things": nothing for none.
void say_count(std::int64_t n, const std::string& one, const std::string& many) {
  if (n > 0) fmt::print("  {} {}\n", with_commas(n), n == 1 ? one : many);
}

std::string quantity(std::int64_t n, const std::string& one, const std::string& many) {
  return fmt::format("{} {}", with_commas(n), n == 1 ? one : many);
}

/// The stories of a file. In a text file an empty line stands between two, and a line break within one is a
/// space.
std::vector<Document> read_stories(const fs::path& file) {
  std::vector<Document> stories = read_documents({file});
  const fs::path extension = without_compression(file).extension();
  if (extension == ".jsonl" || extension == ".ndjson" || extension == ".json") return stories;
  NormaliseOptions options;
  options.collapse_lines = true;
  const std::string text = normalise(stories[0].text, options);
  stories.clear();
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find("\n\n", begin), text.size());
    std::string story = text.substr(begin, end - begin);
    std::replace(story.begin(), story.end(), '\n', ' ');
    stories.push_back({std::move(story), file.string()});
    begin = end + 2;
  }
  check(!stories.empty(), "{} holds no text", file.string());
  return stories;
}

}  // namespace

void generate(const fs::path& folder, const StoryCorpusOptions& options, MetricsWriter& metrics) {
  Progress progress("telling stories", options.bytes, "B");
  const DocumentsAbout about = write_story_corpus(
      folder, options, [&](std::int64_t bytes) { progress.update(std::min(bytes, options.bytes)); });
  progress.finish();
  print_split(folder, about);
  fmt::print("{} labelled stories, {} questions and {} preferences for chapter 7\n",
             with_commas(options.labels), with_commas(options.questions), with_commas(options.preferences));
  if (about.floor)
    fmt::print("entropy floor of val.jsonl: {:.4f} nats per story ({:.5f} per byte); below it is only luck\n",
               about.floor->nats_per_story, about.floor->nats_per_byte);
  if (about.copies > 0)
    fmt::print("{} stories are told twice; ask for fewer bytes\n", with_commas(about.copies));
  metrics.write(record_of(about));
}

void prepare(const fs::path& folder, const PrepareOptions& options, MetricsWriter& metrics) {
  for (const fs::path& input : options.inputs) {
    std::error_code ignored;
    if (fs::equivalent(input, folder, ignored))
      fail_usage("{} is both input and output; choose another --out", folder.string());
  }
  ReadReport report;
  std::vector<Document> documents = read_documents(options.inputs, options.invalid, &report);
  fmt::print("read {}: {}, {}\n", quantity(report.files, "file", "files"),
             quantity(report.documents, "document", "documents"),
             byte_text(static_cast<double>(report.bytes)));
  say_count(report.skipped_files, "file skipped: not .txt or .jsonl", "files skipped: not .txt or .jsonl");
  say_count(report.empty_documents, "document without text left out", "documents without text left out");
  say_count(report.replaced, "piece that is not UTF-8 replaced", "pieces that are not UTF-8 replaced");

  DocumentsAbout about;
  if (options.clean) {
    NormaliseReport cleaned;
    for (Document& document : documents) {
      document.text = normalise(document.text, options.normalise, &cleaned);
      if (document.text.find_first_not_of(" \t\n") == std::string::npos) document.text.clear();
    }
    std::erase_if(documents, [](const Document& document) { return document.text.empty(); });
    fmt::print("cleaned: {} changed\n", quantity(cleaned.changed_texts, "document", "documents"));
    say_count(cleaned.byte_order_marks, "byte order mark dropped", "byte order marks dropped");
    say_count(cleaned.line_endings, "line ending became \\n", "line endings became \\n");
    say_count(cleaned.control_characters, "control character dropped", "control characters dropped");
    say_count(cleaned.trimmed_lines, "line with spaces at its end trimmed",
              "lines with spaces at their ends trimmed");
    say_count(cleaned.composed_texts, "document composed (NFC)", "documents composed (NFC)");
    check(!documents.empty(), "nothing but white space is left of the text after cleaning");
  }
  if (options.copies != PrepareOptions::Copies::keep) about.copies += remove_exact_copies(documents);
  if (options.copies == PrepareOptions::Copies::near) about.copies += remove_near_copies(documents);
  if (about.copies > 0)
    fmt::print("removed {}\n", quantity(about.copies, "copy of a document", "copies of documents"));

  for (const fs::path& input : options.inputs)
    about.source += (about.source.empty() ? "" : ", ") + input.filename().string();
  about.seed = options.seed;
  about.val_fraction = options.val_fraction;
  const bool single = documents.size() == 1;
  const Split split = split_documents(std::move(documents), options.val_fraction, options.seed);
  check(!split.train.empty() && (!split.val.empty() || options.val_fraction == 0),
        "the text is too short to hold out {:g} of it for validation", options.val_fraction);
  about = write_documents_folder(folder, split, about);
  if (single && options.val_fraction > 0) fmt::print("one document only: its tail is for validation\n");
  print_split(folder, about);
  metrics.write(record_of(about));
}

void judge(const fs::path& file, MetricsWriter& metrics) {
  const std::vector<Document> stories = read_stories(file);
  std::vector<Verdict> verdicts(stories.size());
  parallel_for(static_cast<std::int64_t>(stories.size()), 16, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      verdicts[i] = judge_story(stories[i].text);
  });

  std::int64_t valid = 0;
  double nats = 0, bytes = 0;
  for (std::size_t i = 0; i < stories.size(); ++i) {
    const Verdict& verdict = verdicts[i];
    const std::string number = fmt::format("{:>{}}", i + 1, std::to_string(stories.size()).size());
    if (verdict.valid) {
      ++valid;
      nats -= verdict.log_probability;
      bytes += static_cast<double>(stories[i].text.size());
      fmt::print("{}  valid   {:6.2f} nats  {}\n", number, -verdict.log_probability,
                 shorten(stories[i].text, 70));
    } else {
      fmt::print("{}  broken  at character {}: {}\n", number, verdict.offset + 1, verdict.reason);
    }
    MetricRecord record = {{"story", i + 1}, {"valid", verdict.valid}};
    if (verdict.valid) {
      record.emplace_back("log_probability", verdict.log_probability);
    } else {
      record.emplace_back("reason", verdict.reason);
      record.emplace_back("offset", verdict.offset);
    }
    metrics.write(record);
  }
  const auto all = static_cast<double>(stories.size());
  fmt::print("{} of {} valid ({:.1f}%)", with_commas(valid),
             quantity(static_cast<std::int64_t>(stories.size()), "story is", "stories are"),
             100 * static_cast<double>(valid) / all);
  if (valid > 0)
    fmt::print("; on average {:.2f} nats, {:.4f} per byte", nats / static_cast<double>(valid), nats / bytes);
  fmt::print("\n");
  metrics.write({{"stories", static_cast<std::int64_t>(stories.size())},
                 {"valid_stories", valid},
                 {"valid_share", static_cast<double>(valid) / all}});
}

}  // namespace llm::ch01
