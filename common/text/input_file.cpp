#include "common/text/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/core/error.h"

namespace llm {

namespace fs = std::filesystem;

struct InputFile::Source {
  virtual ~Source() = default;
  virtual std::size_t read(char* out, std::size_t size) = 0;
};

namespace {

struct PlainFile : InputFile::Source {
  explicit PlainFile(fs::path p) : path(std::move(p)), file(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    check(file >= 0, "cannot open {}: {}", path.string(), std::strerror(errno));
    struct stat info {};
    if (fstat(file, &info) == 0 && S_ISDIR(info.st_mode)) {
      close(file);
      fail("{} is a folder, expected a file", path.string());
    }
  }
  ~PlainFile() override { close(file); }
  PlainFile(const PlainFile&) = delete;
  PlainFile& operator=(const PlainFile&) = delete;

  std::size_t read(char* out, std::size_t size) override {
    while (true) {
      const ssize_t got = ::read(file, out, size);
      if (got < 0 && errno == EINTR) continue;
      check(got >= 0, "cannot read {}: {}", path.string(), std::strerror(errno));
      return static_cast<std::size_t>(got);
    }
  }

  fs::path path;
  int file;
};

/// Packed bytes waiting to be unpacked.
struct Packed {
  explicit Packed(const fs::path& path) : file(path) {}
  /// Makes sure that there is a byte; false at the end of the file.
  bool fill() {
    if (begin < end) return true;
    begin = 0;
    end = file.read(bytes.data(), bytes.size());
    return end > 0;
  }
  PlainFile file;
  std::array<char, 1 << 16> bytes;
  std::size_t begin = 0, end = 0;
};

struct GzipFile : InputFile::Source {
  explicit GzipFile(const fs::path& path) : packed(path) {
    constexpr int kGzipOnly = 16;
    check(inflateInit2(&stream, MAX_WBITS + kGzipOnly) == Z_OK, "cannot unpack {}: no memory", path.string());
  }
  ~GzipFile() override { inflateEnd(&stream); }
  GzipFile(const GzipFile&) = delete;
  GzipFile& operator=(const GzipFile&) = delete;

  std::size_t read(char* out, std::size_t size) override {
    const auto wanted = static_cast<uInt>(std::min<std::size_t>(size, 1U << 30));
    stream.next_out = reinterpret_cast<Bytef*>(out);
    stream.avail_out = wanted;
    while (stream.avail_out == wanted && wanted > 0) {
      if (!packed.fill()) {
        check(between_members, "{} is cut short: the gzip data end early", packed.file.path.string());
        return 0;
      }
      if (between_members && any_member) inflateReset(&stream);  // several members: one text behind the other
      between_members = false;
      stream.next_in = reinterpret_cast<Bytef*>(packed.bytes.data() + packed.begin);
      stream.avail_in = static_cast<uInt>(packed.end - packed.begin);
      const int status = inflate(&stream, Z_NO_FLUSH);
      packed.begin = packed.end - stream.avail_in;
      check(status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR, "{} is {}: {}",
            packed.file.path.string(), any_member || stream.total_out > 0 ? "damaged" : "not a gzip file",
            stream.msg != nullptr ? stream.msg : "it cannot be unpacked");
      if (status == Z_STREAM_END) between_members = any_member = true;
    }
    return wanted - stream.avail_out;
  }

  Packed packed;
  z_stream stream{};
  bool between_members = false, any_member = false;
};

struct ZstdFile : InputFile::Source {
  explicit ZstdFile(const fs::path& path) : packed(path), stream(ZSTD_createDStream()) {
    check(stream != nullptr, "cannot unpack {}: no memory", path.string());
  }
  ~ZstdFile() override { ZSTD_freeDStream(stream); }
  ZstdFile(const ZstdFile&) = delete;
  ZstdFile& operator=(const ZstdFile&) = delete;

  std::size_t read(char* out, std::size_t size) override {
    ZSTD_outBuffer output{out, size, 0};
    while (output.pos == 0 && size > 0) {
      // A frame may have output left though all its input is taken.
      const bool more = packed.fill();
      if (!more && frame_ended) return 0;
      ZSTD_inBuffer input{packed.bytes.data() + packed.begin, packed.end - packed.begin, 0};
      const std::size_t status = ZSTD_decompressStream(stream, &output, &input);
      packed.begin += input.pos;
      check(!ZSTD_isError(status), "{} is {}: {}", packed.file.path.string(),
            any_output ? "damaged" : "no Zstandard file, or damaged", ZSTD_getErrorName(status));
      frame_ended = status == 0;
      any_output = any_output || output.pos > 0;
      check(more || output.pos > 0 || frame_ended, "{} is cut short: the Zstandard data end early",
            packed.file.path.string());
    }
    return output.pos;
  }

  Packed packed;
  ZSTD_DStream* stream;
  bool frame_ended = false, any_output = false;
};

}  // namespace

InputFile::InputFile(const fs::path& path) {
  const fs::path extension = path.extension();
  if (extension == ".gz")
    source_ = std::make_unique<GzipFile>(path);
  else if (extension == ".zst")
    source_ = std::make_unique<ZstdFile>(path);
  else
    source_ = std::make_unique<PlainFile>(path);
}

InputFile::~InputFile() = default;

std::size_t InputFile::read(char* out, std::size_t size) {
  if (at_ < buffer_.size()) {
    const std::size_t n = std::min(size, buffer_.size() - at_);
    std::memcpy(out, buffer_.data() + at_, n);
    at_ += n;
    return n;
  }
  return source_->read(out, size);
}

std::string InputFile::read_all() {
  std::string text;
  std::size_t used = 0;
  while (true) {
    if (used == text.size()) text.resize(std::max<std::size_t>(1 << 20, text.size() * 2));
    const std::size_t got = read(text.data() + used, text.size() - used);
    if (got == 0) break;
    used += got;
  }
  text.resize(used);
  return text;
}

bool InputFile::read_line(std::string& line) {
  line.clear();
  while (true) {
    if (at_ == buffer_.size()) {
      buffer_.resize(1 << 18);
      buffer_.resize(source_->read(buffer_.data(), buffer_.size()));
      at_ = 0;
      if (buffer_.empty()) break;
    }
    const std::size_t end = buffer_.find('\n', at_);
    const std::size_t stop = std::min(end, buffer_.size());
    line.append(buffer_, at_, stop - at_);
    at_ = stop;
    if (end != std::string::npos) {
      ++at_;
      if (line.ends_with('\r')) line.pop_back();
      return true;
    }
  }
  if (line.empty()) return false;
  if (line.ends_with('\r')) line.pop_back();
  return true;
}

fs::path without_compression(const fs::path& path) {
  const fs::path extension = path.extension();
  return extension == ".gz" || extension == ".zst" ? fs::path(path).replace_extension() : path;
}

}  // namespace llm
