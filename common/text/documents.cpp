#include "common/text/documents.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/core/error.h"
#include "common/text/input_file.h"
#include "common/text/utf8.h"

namespace llm {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool is_json_lines(const fs::path& path) {
  const fs::path extension = without_compression(path).extension();
  return extension == ".jsonl" || extension == ".ndjson";
}

bool is_read_in_folders(const fs::path& path) {
  return is_json_lines(path) || without_compression(path).extension() == ".txt";
}

/// Takes the member `text` of an object, and nothing else, out of the stream of a JSON parser: no tree is
/// built, and a line nested a million levels deep costs a million bits, no recursion.
struct TextOfObject : nlohmann::json_sax<nlohmann::json> {
  std::string text;
  bool found = false;
  bool wrong_type = false;
  bool is_object = false;
  std::size_t error_at = 0;

  bool null() override { return scalar(); }
  bool boolean(bool) override { return scalar(); }
  bool number_integer(number_integer_t) override { return scalar(); }
  bool number_unsigned(number_unsigned_t) override { return scalar(); }
  bool number_float(number_float_t, const string_t&) override { return scalar(); }
  bool binary(binary_t&) override { return scalar(); }
  bool string(string_t& value) override {
    if (depth_ == 1 && in_text_) {
      text = std::move(value);
      found = true;
    }
    return true;
  }
  bool start_object(std::size_t) override {
    if (depth_ == 0)
      is_object = true;
    else
      scalar();
    ++depth_;
    return true;
  }
  bool end_object() override { return end(); }
  bool start_array(std::size_t) override {
    if (depth_ > 0) scalar();
    ++depth_;
    return true;
  }
  bool end_array() override { return end(); }
  bool key(string_t& name) override {
    if (depth_ == 1) in_text_ = is_object && name == "text";
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    error_at = position;
    return false;
  }

 private:
  bool scalar() {
    if (depth_ == 1 && in_text_) wrong_type = true;
    return true;
  }
  bool end() {
    --depth_;
    return true;
  }
  int depth_ = 0;
  bool in_text_ = false;
};

/// Checks or repairs `text`, of which the first byte stands at `offset` of the file.
void make_valid(std::string& text, const std::string& where, std::uint64_t offset, InvalidText invalid,
                ReadReport& report) {
  const std::size_t bad = find_invalid_utf8(text);
  if (bad == std::string::npos) return;
  if (invalid == InvalidText::fail) fail("{}: {}", where, describe_invalid_utf8(text, bad, offset + bad));
  text = replace_invalid_utf8(text, report.replaced);
}

void give(Document&& document, ReadReport& report, const std::function<void(Document&&)>& take) {
  if (document.text.empty()) {
    ++report.empty_documents;
    return;
  }
  ++report.documents;
  report.bytes += static_cast<std::int64_t>(document.text.size());
  take(std::move(document));
}

void read_json_lines(const fs::path& path, InvalidText invalid, ReadReport& report,
                     const std::function<void(Document&&)>& take) {
  InputFile file(path);
  std::string line;
  std::uint64_t offset = 0;
  for (std::int64_t number = 1; file.read_line(line); ++number) {
    const std::uint64_t line_size = line.size() + 1;
    if (number == 1 && line.starts_with(kByteOrderMark)) line.erase(0, kByteOrderMark.size());
    if (line.find_first_not_of(" \t\r") != std::string::npos) {
      Document document{{}, fmt::format("{}, line {}", path.string(), number)};
      make_valid(line, document.source, offset, invalid, report);
      TextOfObject found;
      const bool parsed = nlohmann::json::sax_parse(line, &found);
      check(parsed, "{}: this is no JSON object (it goes wrong at character {})", document.source,
            found.error_at);
      check(found.is_object, "{}: expected a JSON object with a member \"text\"", document.source);
      check(!found.wrong_type, "{}: the member \"text\" is no string", document.source);
      check(found.found, "{}: the object has no member \"text\"", document.source);
      document.text = std::move(found.text);
      give(std::move(document), report, take);
    }
    offset += line_size;
  }
}

void read_text(const fs::path& path, InvalidText invalid, ReadReport& report,
               const std::function<void(Document&&)>& take) {
  Document document{InputFile(path).read_all(), path.string()};
  make_valid(document.text, document.source, 0, invalid, report);
  give(std::move(document), report, take);
}

void list_folder(const fs::path& folder, Paths& files, ReadReport& report) {
  std::vector<fs::path> found;
  try {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
      if (!entry.is_regular_file()) continue;
      if (is_read_in_folders(entry.path()))
        found.push_back(entry.path());
      else
        ++report.skipped_files;
    }
  } catch (const fs::filesystem_error& error) {
    fail("cannot read the folder {}: {}", folder.string(), error.code().message());
  }
  std::sort(found.begin(), found.end());
  files.insert(files.end(), found.begin(), found.end());
}

}  // namespace

InvalidText parse_invalid_text(const std::string& name) {
  if (name == "fail") return InvalidText::fail;
  if (name == "replace") return InvalidText::replace;
  fail_usage("'{}' is no way to treat invalid text; use fail or replace", name);
}

Paths list_document_files(const Paths& inputs, ReadReport* report) {
  ReadReport own;
  ReadReport& counts = report != nullptr ? *report : own;
  Paths files;
  for (const fs::path& input : inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    check(fs::exists(status), "there is no file or folder {}", input.string());
    if (fs::is_directory(status))
      list_folder(input, files, counts);
    else
      files.push_back(input);
  }
  if (files.empty()) {
    const std::string names =
        inputs.size() == 1 ? inputs[0].string() : fmt::format("{} inputs", inputs.size());
    fail("{}: no .txt, .jsonl or .ndjson file (plain, .gz or .zst) among {} file{}", names,
         counts.skipped_files, counts.skipped_files == 1 ? "" : "s");
  }
  counts.files += static_cast<std::int64_t>(files.size());
  return files;
}

ReadReport for_each_document(const Paths& inputs, const std::function<void(Document&&)>& take,
                             InvalidText invalid) {
  ReadReport report;
  for (const fs::path& file : list_document_files(inputs, &report)) {
    if (is_json_lines(file) || without_compression(file).extension() == ".json")
      read_json_lines(file, invalid, report, take);
    else
      read_text(file, invalid, report, take);
  }
  return report;
}

std::vector<Document> read_documents(const Paths& inputs, InvalidText invalid, ReadReport* report) {
  std::vector<Document> documents;
  const ReadReport counts = for_each_document(
      inputs, [&](Document&& document) { documents.push_back(std::move(document)); }, invalid);
  check(!documents.empty(), "{} {} no text", inputs.size() == 1 ? inputs[0].string() : "the inputs",
        inputs.size() == 1 ? "holds" : "hold");
  if (report != nullptr) *report = counts;
  return documents;
}

void append_json_string(std::string& out, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out += '"';
  std::size_t plain = 0;  // start of what is not copied yet
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out.append(text.substr(plain, i - plain));
    plain = i + 1;
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        out += "\\u00";
        out += kHex[c >> 4];
        out += kHex[c & 15];
    }
  }
  out.append(text.substr(plain));
  out += '"';
}

void DocumentWriter::write(std::string_view text) {
  const std::size_t bad = find_invalid_utf8(text);
  if (bad != std::string_view::npos)
    fail("document {}: {}", documents_ + 1, describe_invalid_utf8(text, bad, bad));
  line_ = "{\"text\":";
  append_json_string(line_, text);
  line_ += "}\n";
  file_.write(line_);
  ++documents_;
  text_bytes_ += static_cast<std::int64_t>(text.size());
}

void write_documents(const fs::path& path, std::span<const Document> documents) {
  DocumentWriter writer(path);
  for (const Document& document : documents) writer.write(document.text);
  writer.commit();
}

}  // namespace llm
