#include "common/text/documents_folder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/core/threads.h"
#include "common/text/deduplicate.h"
#include "common/text/story.h"
#include "common/text/story_labels.h"

namespace llm {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr std::array<std::string_view, 7> kFiles = {"train.jsonl",  "val.jsonl",       "about.json",
                                                    "labels.jsonl", "questions.jsonl", "preferences.jsonl",
                                                    "lengths.svg"};

/// Replaces the folder as a whole, so only one that holds nothing else may be replaced.
void replace_folder(const fs::path& folder, const std::function<void(const fs::path&)>& fill) {
  std::error_code error;
  const fs::path target = fs::weakly_canonical(folder, error);
  check(!error, "cannot write the folder {}: {}", folder.string(), error.message());
  if (fs::is_directory(target)) {
    for (const fs::directory_entry& entry : fs::directory_iterator(target)) {
      const std::string name = entry.path().filename().string();
      check(std::find(kFiles.begin(), kFiles.end(), name) != kFiles.end(),
            "{} holds {}, which is not part of a documents folder and would be lost; choose another folder",
            folder.string(), name);
    }
  }
  write_folder(target, fill);
}

void write_about(const fs::path& folder, const DocumentsAbout& about) {
  Json json = {{"source", about.source},
               {"seed", about.seed},
               {"val_fraction", about.val_fraction},
               {"train_documents", about.train_documents},
               {"val_documents", about.val_documents},
               {"train_bytes", about.train_bytes},
               {"val_bytes", about.val_bytes},
               {"copies", about.copies}};
  if (about.floor) {
    json["floor"] = {{"nats_per_story", about.floor->nats_per_story},
                     {"standard_error", about.floor->standard_error},
                     {"nats_per_byte", about.floor->nats_per_byte}};
  }
  write_file(folder / "about.json", json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

/// One line of JSON lines: names and texts.
void write_record(AtomicFile& file,
                  std::initializer_list<std::pair<std::string_view, std::string_view>> members) {
  std::string line;
  for (const auto& [name, text] : members) {
    line += line.empty() ? '{' : ',';
    append_json_string(line, name);
    line += ':';
    append_json_string(line, text);
  }
  file.write(line + "}\n");
}

/// make(i) for i in [first, first + count), on all threads.
template <typename Make>
auto make_many(std::int64_t first, std::int64_t count, const Make& make) {
  std::vector<decltype(make(std::uint64_t{0}))> made(static_cast<std::size_t>(count));
  parallel_for(count, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      made[static_cast<std::size_t>(i)] = make(static_cast<std::uint64_t>(first + i));
  });
  return made;
}

/// Mean of -log p over the validation stories, and how sure it is.
class FloorMeter {
 public:
  void add(const Story& story) {
    const double nats = -story.log_probability;
    ++stories_;
    sum_ += nats;
    sum_of_squares_ += nats * nats;
    bytes_ += static_cast<double>(story.text.size());
  }
  EntropyFloor floor() const {
    const double mean = sum_ / stories_;
    const double variance = stories_ > 1 ? (sum_of_squares_ - sum_ * mean) / (stories_ - 1) : 0;
    return {mean, std::sqrt(std::max(0.0, variance) / stories_), sum_ / bytes_};
  }

 private:
  double stories_ = 0, sum_ = 0, sum_of_squares_ = 0, bytes_ = 0;
};

/// Stories 0, 1, 2, ... until there are enough bytes, each to the side on which its text falls.
void write_stories(const fs::path& folder, const StoryCorpusOptions& options, DocumentsAbout& about,
                   const std::function<void(std::int64_t)>& progress) {
  constexpr std::int64_t kBlock = 4096;
  DocumentWriter train(folder / "train.jsonl");
  DocumentWriter val(folder / "val.jsonl");
  FloorMeter meter;
  SeenTexts seen;
  std::int64_t bytes = 0;
  for (std::int64_t first = 0; bytes < options.bytes; first += kBlock) {
    const auto stories =
        make_many(first, kBlock, [&](std::uint64_t i) { return generate_story(options.seed, i); });
    for (const Story& story : stories) {
      if (bytes >= options.bytes) break;
      bytes += static_cast<std::int64_t>(story.text.size());
      if (!seen.insert(story.text)) ++about.copies;
      const bool to_val = is_validation(story.text, options.val_fraction, options.seed);
      (to_val ? val : train).write(story.text);
      if (to_val) meter.add(story);
    }
    if (progress) progress(bytes);
  }
  check(train.documents() > 0 && (val.documents() > 0 || options.val_fraction == 0),
        "none of {} stories fell to {}; ask for more bytes", train.documents() + val.documents(),
        train.documents() > 0 ? "validation" : "training");
  train.commit();
  val.commit();
  about.train_documents = train.documents();
  about.val_documents = val.documents();
  about.train_bytes = train.text_bytes();
  about.val_bytes = val.text_bytes();
  if (val.documents() > 0) about.floor = meter.floor();
}

void write_story_labels(const fs::path& folder, const StoryCorpusOptions& options) {
  AtomicFile labels(folder / "labels.jsonl");
  for (const LabelledStory& made :
       make_many(0, options.labels, [&](std::uint64_t i) { return make_labelled_story(options.seed, i); }))
    write_record(labels, {{"text", made.text}, {"label", made.label}});
  labels.commit();

  AtomicFile questions(folder / "questions.jsonl");
  for (const Question& made :
       make_many(0, options.questions, [&](std::uint64_t i) { return make_question(options.seed, i); }))
    write_record(questions, {{"story", made.story}, {"question", made.question}, {"answer", made.answer}});
  questions.commit();

  AtomicFile preferences(folder / "preferences.jsonl");
  for (const Preference& made :
       make_many(0, options.preferences, [&](std::uint64_t i) { return make_preference(options.seed, i); }))
    write_record(
        preferences,
        {{"prompt", made.prompt}, {"chosen", made.chosen}, {"rejected", made.rejected}, {"why", made.why}});
  preferences.commit();
}

}  // namespace

DocumentsAbout read_documents_about(const fs::path& folder) {
  const fs::path path = folder / "about.json";
  const std::string text = read_file(path, 1 << 20);
  DocumentsAbout about;
  try {
    const Json json = Json::parse(text);
    json.at("source").get_to(about.source);
    json.at("seed").get_to(about.seed);
    json.at("val_fraction").get_to(about.val_fraction);
    json.at("train_documents").get_to(about.train_documents);
    json.at("val_documents").get_to(about.val_documents);
    json.at("train_bytes").get_to(about.train_bytes);
    json.at("val_bytes").get_to(about.val_bytes);
    json.at("copies").get_to(about.copies);
    if (json.contains("floor")) {
      const Json& floor = json.at("floor");
      about.floor =
          EntropyFloor{floor.at("nats_per_story").get<double>(), floor.at("standard_error").get<double>(),
                       floor.at("nats_per_byte").get<double>()};
    }
  } catch (const nlohmann::json::exception&) {
    fail("{} does not say what a documents folder's about.json says; make the folder anew with ch01_data",
         path.string());
  }
  return about;
}

DocumentsAbout write_story_corpus(const fs::path& folder, const StoryCorpusOptions& options,
                                  const std::function<void(std::int64_t)>& progress) {
  check(options.bytes >= 1, "a story corpus needs at least one byte, got {}", options.bytes);
  check(options.val_fraction >= 0 && options.val_fraction < 1,
        "the fraction for validation must be at least 0 and below 1, got {}", options.val_fraction);
  check(options.labels >= 0 && options.questions >= 0 && options.preferences >= 0,
        "the numbers of labels, questions and preferences must not be negative");
  DocumentsAbout about;
  about.source = "story world";
  about.seed = options.seed;
  about.val_fraction = options.val_fraction;
  replace_folder(folder, [&](const fs::path& fresh) {
    write_stories(fresh, options, about, progress);
    write_story_labels(fresh, options);
    write_about(fresh, about);
  });
  return about;
}

DocumentsAbout write_documents_folder(const fs::path& folder, const Split& split, DocumentsAbout about) {
  const auto count = [](const std::vector<Document>& documents, std::int64_t& number, std::int64_t& bytes) {
    number = static_cast<std::int64_t>(documents.size());
    bytes = 0;
    for (const Document& document : documents) bytes += static_cast<std::int64_t>(document.text.size());
  };
  count(split.train, about.train_documents, about.train_bytes);
  count(split.val, about.val_documents, about.val_bytes);
  replace_folder(folder, [&](const fs::path& fresh) {
    write_documents(fresh / "train.jsonl", split.train);
    write_documents(fresh / "val.jsonl", split.val);
    write_about(fresh, about);
  });
  return about;
}

}  // namespace llm
