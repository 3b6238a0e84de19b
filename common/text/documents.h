// Documents: the pieces of text a corpus is made of, in files that others can read too.
//
// A document is what belongs together: a story, an article, a book. Two formats: a `.txt` file is one
// document; a JSON lines file (`.jsonl`) has an object per line whose member `text` is one. Either may be
// packed (.gz, .zst). What is read is what stands there, byte for byte; cleaning is a step of its own
// (normalise.h). Chapter 1 explains it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/core/file.h"

namespace llm {

struct Document {
  std::string text;    ///< UTF-8
  std::string source;  ///< where it was read, "corpus.jsonl, line 12"; empty if it was made
};

/// What to do with bytes that are not UTF-8.
enum class InvalidText { fail, replace };

/// "fail" or "replace"; anything else is a UsageError.
InvalidText parse_invalid_text(const std::string& name);

/// What happened while reading.
struct ReadReport {
  std::int64_t files = 0;
  std::int64_t documents = 0;
  std::int64_t bytes = 0;            ///< of all documents' text
  std::int64_t skipped_files = 0;    ///< in folders, with an extension that is not read
  std::int64_t empty_documents = 0;  ///< left out
  std::int64_t replaced = 0;         ///< ill-formed pieces replaced with U+FFFD
};

using Paths = std::vector<std::filesystem::path>;

/// The files that `inputs` stand for, in the order in which they are read: a file is itself; a folder is all
/// its .txt, .jsonl and .ndjson files, at any depth, by name. Error if an input does not exist or no file is
/// left.
Paths list_document_files(const Paths& inputs, ReadReport* report = nullptr);

/// Calls `take` with each document of the inputs, in order, reading JSON lines as they come. A file named by
/// itself is JSON lines if it is called .jsonl, .ndjson or .json, and otherwise text. Documents without any
/// text are left out and counted. Errors name file and line, or file and byte offset.
ReadReport for_each_document(const Paths& inputs, const std::function<void(Document&&)>& take,
                             InvalidText invalid = InvalidText::fail);

/// All of them. Error if there are none.
std::vector<Document> read_documents(const Paths& inputs, InvalidText invalid = InvalidText::fail,
                                     ReadReport* report = nullptr);

/// Writes documents as JSON lines, one {"text": ...} each; nothing stands under the name until `commit`.
class DocumentWriter {
 public:
  explicit DocumentWriter(const std::filesystem::path& path) : file_(path) {}
  /// Error if the text is not UTF-8.
  void write(std::string_view text);
  std::int64_t documents() const { return documents_; }
  std::int64_t text_bytes() const { return text_bytes_; }
  void commit() { file_.commit(); }

 private:
  AtomicFile file_;
  std::string line_;
  std::int64_t documents_ = 0;
  std::int64_t text_bytes_ = 0;
};

void write_documents(const std::filesystem::path& path, std::span<const Document> documents);

/// Appends `text` as a JSON string with its quotes. The text must be UTF-8.
void append_json_string(std::string& out, std::string_view text);

}  // namespace llm
