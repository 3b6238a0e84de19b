// The checkpoint file. See checkpoint.h for its layout.
#include "common/training/checkpoint.h"

#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "common/core/device_memory.h"
#include "common/core/error.h"
#include "common/core/file.h"

namespace llm {

namespace {

using nlohmann::json;

constexpr std::string_view kMagic = "LLMCKPT1";
constexpr std::uint64_t kPrefix = 24;  // magic, header bytes, header checksum
constexpr std::uint64_t kAlign = 64;
constexpr std::uint64_t kMaxHeader = std::uint64_t{1} << 24;

struct Entry {
  std::string name;
  std::uint64_t count = 0, offset = 0, sum = 0;
};

struct Header {
  CheckpointInfo info;
  std::vector<Entry> entries;
};

std::uint64_t aligned(std::uint64_t n) {
  return (n + kAlign - 1) / kAlign * kAlign;
}

/// Of a tensor on the CPU.
std::span<const std::byte> bytes_of(const Tensor& t) {
  return {static_cast<const std::byte*>(t.raw()), t.bytes()};
}

std::uint64_t word_at(std::span<const std::byte> file, std::size_t offset) {
  std::uint64_t value = 0;
  std::memcpy(&value, file.data() + offset, sizeof value);
  return value;
}

/// Checks prefix and header, and that the file is exactly as long as the header says.
Header parse(const std::string& path, std::span<const std::byte> file) {
  check(file.size() >= kPrefix, "{} is too short for a checkpoint: {} bytes", path, file.size());
  check(std::memcmp(file.data(), kMagic.data(), kMagic.size() - 1) == 0,
        "{} is not a checkpoint of this program: it does not begin with {}", path, kMagic);
  check(file[7] == static_cast<std::byte>(kMagic[7]), "{} is a checkpoint of another version: expected {}",
        path, kMagic);
  const std::uint64_t header_bytes = word_at(file, 8);
  check(header_bytes <= kMaxHeader, "{} is damaged: its header claims {} bytes", path, header_bytes);
  check(file.size() >= kPrefix + header_bytes, "{} is cut off: its header needs {} bytes, the file has {}",
        path, kPrefix + header_bytes, file.size());
  const auto text = file.subspan(kPrefix, header_bytes);
  check(checksum(text) == word_at(file, 16), "{} is damaged: its header's checksum is wrong", path);

  Header header;
  std::uint64_t end = kPrefix + header_bytes;
  try {
    const json j = json::parse(reinterpret_cast<const char*>(text.data()),
                               reinterpret_cast<const char*>(text.data()) + text.size());
    header.info.step = j.at("step").get<std::int64_t>();
    header.info.settings = j.at("settings").get<std::map<std::string, std::string>>();
    for (const json& t : j.at("tensors")) {
      header.entries.push_back({t.at("name").get<std::string>(), t.at("count").get<std::uint64_t>(),
                                aligned(end), t.at("checksum").get<std::uint64_t>()});
      const std::uint64_t count = header.entries.back().count;
      check(count <= (std::uint64_t{1} << 48), "{} is damaged: a tensor claims {} elements", path, count);
      end = aligned(end) + count * sizeof(float);
    }
  } catch (const json::exception& e) {
    fail("{} is damaged: its header does not hold what it should ({})", path, e.what());
  }
  check(file.size() >= end, "{} is cut off: expected {} bytes, found {}", path, end, file.size());
  check(file.size() == end, "{} is damaged: expected {} bytes, found {}", path, end, file.size());
  return header;
}

}  // namespace

void save_checkpoint(const std::filesystem::path& path, const CheckpointInfo& info,
                     const std::vector<NamedTensor>& tensors) {
  json j;
  j["step"] = info.step;
  j["settings"] = info.settings;
  j["tensors"] = json::array();
  for (const NamedTensor& t : tensors) {
    check(t.tensor.dtype() == DType::f32, "the checkpoint's tensor {} must be f32", t.name);
    const Tensor here = t.tensor.to(Device::cpu);
    j["tensors"].push_back(
        {{"name", t.name}, {"count", here.numel()}, {"checksum", checksum(bytes_of(here))}});
  }
  const std::string header = j.dump();
  const std::array<std::uint64_t, 2> words = {header.size(), checksum(header)};
  const std::string zeros(kAlign, '\0');

  AtomicFile file(path);
  file.write(kMagic);
  file.write(std::as_bytes(std::span(words)));
  file.write(header);
  for (const NamedTensor& t : tensors) {
    file.write(std::string_view(zeros).substr(0, aligned(file.size()) - file.size()));
    const Tensor here = t.tensor.to(Device::cpu);
    file.write(bytes_of(here));
  }
  file.commit();
}

CheckpointInfo load_checkpoint(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors) {
  const MappedFile file(path);
  const Header header = parse(path.string(), file.bytes());
  check(header.entries.size() == tensors.size(), "{} holds {} tensors, expected {}", path.string(),
        header.entries.size(), tensors.size());
  std::vector<std::span<const std::byte>> sources;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Entry& entry = header.entries[i];
    const NamedTensor& wanted = tensors[i];
    check(entry.name == wanted.name, "{} holds the tensor {} where {} was expected", path.string(),
          entry.name, wanted.name);
    check(entry.count == static_cast<std::uint64_t>(wanted.tensor.numel()),
          "{} was made by a model of another size: {} has {} elements, expected {}", path.string(),
          entry.name, entry.count, wanted.tensor.numel());
    sources.push_back(file.bytes().subspan(entry.offset, entry.count * sizeof(float)));
    check(checksum(sources.back()) == entry.sum, "{} is damaged: the checksum of {} is wrong", path.string(),
          entry.name);
  }
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (const Tensor& t = tensors[i].tensor; t.device() == Device::cuda)
      copy_to_device(t.raw(), sources[i].data(), sources[i].size());
    else if (!sources[i].empty())
      std::memcpy(t.raw(), sources[i].data(), sources[i].size());
  return header.info;
}

CheckpointInfo read_checkpoint_info(const std::filesystem::path& path) {
  const MappedFile file(path);
  return parse(path.string(), file.bytes()).info;
}

void check_same_settings(const std::filesystem::path& path, const std::map<std::string, std::string>& saved,
                         const std::map<std::string, std::string>& wanted) {
  for (const auto& [name, value] : wanted) {
    const auto found = saved.find(name);
    const std::string was = found == saved.end() ? "not set" : found->second;
    check(was == value, "{} was made with {} = {}, this run has {}; resume with the same settings",
          path.string(), name, was, value);
  }
}

}  // namespace llm
