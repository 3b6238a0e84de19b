// A file's bytes, one after the other, whether it is plain, gzip (.gz) or Zstandard (.zst).
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>

namespace llm {

/// Reads a file from front to back, unpacking it if its name ends in .gz or .zst. Errors name the file:
/// missing, a folder, not gzip, damaged, cut short.
class InputFile {
 public:
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  /// Up to `size` unpacked bytes; 0 at the end.
  std::size_t read(char* out, std::size_t size);

  /// All that is left.
  std::string read_all();

  /// The next line without its line break ("\n" or "\r\n"); false at the end. `line` is reused.
  bool read_line(std::string& line);

  struct Source;  // one of the three

 private:
  std::unique_ptr<Source> source_;
  std::string buffer_;
  std::size_t at_ = 0;
};

/// The path without .gz or .zst: "corpus.jsonl.zst" -> "corpus.jsonl".
std::filesystem::path without_compression(const std::filesystem::path& path);

}  // namespace llm
