#include "common/core/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "common/core/error.h"

namespace llm {

namespace fs = std::filesystem;

namespace {

/// Opens a regular file for reading and gives its size.
int open_for_reading(const fs::path& path, std::uint64_t& size) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  check(file >= 0, "cannot open {}: {}", path.string(), std::strerror(errno));
  struct stat info {};
  if (fstat(file, &info) != 0 || S_ISDIR(info.st_mode)) {
    close(file);
    fail("{} is a folder, expected a file", path.string());
  }
  size = static_cast<std::uint64_t>(info.st_size);
  return file;
}

void sync_folder(const fs::path& path) {
  const int folder = open(path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  fsync(folder);
  close(folder);
}

void create_folder(const fs::path& path) {
  if (path.empty()) return;
  std::error_code error;
  fs::create_directories(path, error);
  check(!error && fs::is_directory(path), "cannot create the folder {}: {}", path.string(),
        error ? error.message() : std::string("a file of that name is in the way"));
}

}  // namespace

std::string read_file(const fs::path& path, std::uint64_t max_bytes) {
  std::uint64_t size = 0;
  const int file = open_for_reading(path, size);
  std::string text;
  // Pipes and /proc files say size 0: read to the end, whatever the size said.
  text.resize(size + 1);
  std::size_t used = 0;
  while (true) {
    if (used == text.size()) text.resize(text.size() * 2);
    const ssize_t got = read(file, text.data() + used, text.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 || used + static_cast<std::size_t>(got) > max_bytes) {
      const int why = errno;
      close(file);
      if (got < 0) fail("cannot read {}: {}", path.string(), std::strerror(why));
      fail("{} is larger than {} bytes", path.string(), max_bytes);
    }
    if (got == 0) break;
    used += static_cast<std::size_t>(got);
  }
  close(file);
  text.resize(used);
  return text;
}

MappedFile::MappedFile(const fs::path& path) {
  std::uint64_t size = 0;
  const int file = open_for_reading(path, size);
  size_ = size;
  if (size_ > 0) {
    void* memory = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
    const int why = errno;
    close(file);
    check(memory != MAP_FAILED, "cannot map {}: {}", path.string(), std::strerror(why));
    data_ = static_cast<const std::byte*>(memory);
  } else {
    close(file);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)) {
  create_folder(path_.parent_path());
  check(!fs::is_directory(path_), "cannot write {}: it is a folder", path_.string());
  // One fixed temporary name per target: what a killed process left is overwritten by the next.
  temporary_ = path_;
  temporary_ += ".partial";
  file_ = open(temporary_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  check(file_ >= 0, "cannot write {}: {}", path_.string(), std::strerror(errno));
}

AtomicFile::~AtomicFile() {
  if (file_ < 0) return;
  close(file_);
  unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void AtomicFile::write(std::string_view text) {
  buffer_.append(text);
  size_ += text.size();
  if (buffer_.size() >= (std::size_t{1} << 20)) flush();
}

void AtomicFile::flush() {
  std::size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t put = ::write(file_, buffer_.data() + done, buffer_.size() - done);
    if (put < 0 && errno == EINTR) continue;
    check(put >= 0, "cannot write {}: {}", path_.string(), std::strerror(errno));
    done += static_cast<std::size_t>(put);
  }
  buffer_.clear();
}

void AtomicFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  flush();
  check(offset + bytes.size() <= size_, "cannot overwrite bytes of {} that are not written yet",
        path_.string());
  const ssize_t put = pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
  check(put == static_cast<ssize_t>(bytes.size()), "cannot write {}: {}", path_.string(),
        std::strerror(errno));
}

void AtomicFile::commit() {
  flush();
  check(fsync(file_) == 0, "cannot write {}: {}", path_.string(), std::strerror(errno));
  const int closed = close(std::exchange(file_, -1));
  const int renamed = closed == 0 ? std::rename(temporary_.c_str(), path_.c_str()) : -1;
  if (renamed != 0) {
    const int why = errno;
    unlink(temporary_.c_str());
    fail("cannot write {}: {}", path_.string(), std::strerror(why));
  }
  sync_folder(path_.parent_path());
}

void write_file(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void write_folder(const fs::path& path, const std::function<void(const fs::path& fresh)>& fill) {
  check(!fs::exists(path) || fs::is_directory(path), "cannot write the folder {}: a file is in the way",
        path.string());
  fs::path target = path;
  if (!target.has_filename()) target = target.parent_path();  // "dir/" -> "dir"
  const fs::path fresh = target.string() + ".partial";
  const fs::path old = target.string() + ".old";
  std::error_code ignored;
  // A process killed between the two renames below left `old` as the only copy: put it back.
  if (!fs::exists(target) && fs::exists(old)) fs::rename(old, target, ignored);
  fs::remove_all(fresh, ignored);
  fs::remove_all(old, ignored);
  create_folder(fresh);
  try {
    fill(fresh);
  } catch (...) {
    fs::remove_all(fresh, ignored);
    throw;
  }
  if (fs::exists(target)) {
    // Swaps the two names in one step where the kernel can; else two renames.
    if (renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) {
      fs::remove_all(fresh, ignored);
      sync_folder(target.parent_path());
      return;
    }
    check(std::rename(target.c_str(), old.c_str()) == 0, "cannot replace {}: {}", target.string(),
          std::strerror(errno));
  }
  check(std::rename(fresh.c_str(), target.c_str()) == 0, "cannot write {}: {}", target.string(),
        std::strerror(errno));
  sync_folder(target.parent_path());
  fs::remove_all(old, ignored);
}

std::uint64_t checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}
std::uint64_t checksum(std::string_view text) {
  return XXH3_64bits(text.data(), text.size());
}

}  // namespace llm
