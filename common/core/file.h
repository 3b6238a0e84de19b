// Files, read and written so that a crash cannot leave half of one.
//
// Writing goes to a temporary name in the same folder, is synced, then renamed over the target: a
// reader sees the old file or the new one, never part of one. Every failure is one sentence that
// names the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace llm {

/// The whole file. Error if it is missing, a folder, unreadable or larger than `max_bytes`.
std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes = std::uint64_t{1} << 36);

/// A file mapped read-only. An empty file maps to an empty span.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// A file being written. Nothing stands under its name until `commit`; without it, the destructor
/// removes what was written. Also removed: leftovers of a killed process for the same target.
class AtomicFile {
 public:
  /// Creates the parent folder if it is missing.
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /// Overwrites bytes already written (a header whose counts are known only at the end).
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);
  std::uint64_t size() const { return size_; }
  /// Flushes, syncs and renames. After it the file is there, whole, also if the machine loses power.
  void commit();

 private:
  void flush();
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int file_ = -1;
  std::uint64_t size_ = 0;
  std::string buffer_;
};

/// Writes a whole small file atomically.
void write_file(const std::filesystem::path& path, std::string_view text);

/// Writes a folder atomically: `fill` writes into a fresh folder beside `path`, which then takes its
/// place (the old one is removed). If `fill` throws, or the process is killed, `path` is as it was.
void write_folder(const std::filesystem::path& path,
                  const std::function<void(const std::filesystem::path& fresh)>& fill);

/// 64-bit checksum (XXH3).
std::uint64_t checksum(std::span<const std::byte> bytes);
std::uint64_t checksum(std::string_view text);

}  // namespace llm
