#include "common/parallel/sharded_checkpoint.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "common/core/error.h"
#include "common/core/file.h"

namespace llm {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Piece = ShardedStage::StatePiece;

constexpr std::string_view kMagic = "LLMSHRD1";
constexpr std::uint64_t kPrefix = 24;  // magic, header bytes, header checksum
constexpr std::uint64_t kAlign = 64;
constexpr std::uint64_t kMaxHeader = std::uint64_t{1} << 30;
constexpr std::uint64_t kMaxManifest = std::uint64_t{1} << 28;
constexpr int kParts = 3;  // value and two moments

std::uint64_t aligned(std::uint64_t n) {
  return (n + kAlign - 1) / kAlign * kAlign;
}

std::span<const std::byte> bytes_of(const Tensor& t) {
  return {static_cast<const std::byte*>(t.raw()), t.bytes()};
}

/// The piece's tensors; moments are undefined where the optimizer has none.
std::array<Tensor, kParts> parts_of(const Piece& piece) {
  return {piece.value, piece.first_moment, piece.second_moment};
}

std::string step_folder(std::int64_t step) {
  return fmt::format("step-{:08}", step);
}

// ---- writing -----------------------------------------------------------------------------------

/// Writes this rank's shard and returns the checksum of its header, which has those of the tensors.
std::uint64_t write_shard(const fs::path& path, std::int64_t step, const std::vector<Piece>& pieces) {
  json header;
  header["step"] = step;
  header["pieces"] = json::array();
  for (const Piece& piece : pieces) {
    const Parameter& p = *piece.parameter;
    json slices = json::array();
    for (const Slice& slice : p.slices) slices.push_back({slice.begin, slice.end});
    json sums = json::array();
    for (const Tensor& t : parts_of(piece))
      if (t.defined()) sums.push_back(checksum(bytes_of(t.to(Device::cpu))));
    header["pieces"].push_back({{"name", p.name},
                                {"whole", p.whole},
                                {"shape", p.shape},
                                {"split_dim", p.split_dim},
                                {"slices", slices},
                                {"begin", piece.begin},
                                {"count", piece.value.numel()},
                                {"checksums", sums}});
  }
  const std::string text = header.dump();
  const std::uint64_t sum = checksum(text);
  const std::array<std::uint64_t, 2> words = {text.size(), sum};
  const std::string zeros(kAlign, '\0');
  AtomicFile file(path);
  file.write(kMagic);
  file.write(std::as_bytes(std::span(words)));
  file.write(text);
  file.write(std::string_view(zeros).substr(0, aligned(file.size()) - file.size()));
  for (const Piece& piece : pieces)
    for (const Tensor& t : parts_of(piece))
      if (t.defined()) {
        const Tensor here = t.to(Device::cpu);
        file.write(bytes_of(here));
      }
  file.commit();
  return sum;
}

/// Each rank's number, on all ranks.
std::vector<std::uint64_t> gather_words(std::uint64_t word, Communicator& world) {
  const auto n = static_cast<std::size_t>(world.size());
  const std::array<std::int32_t, 2> halves = {
      static_cast<std::int32_t>(static_cast<std::uint32_t>(word)),
      static_cast<std::int32_t>(static_cast<std::uint32_t>(word >> 32))};
  const Tensor all(Shape{2 * world.size()}, DType::i32);
  world.all_gather(all, Tensor::from(halves, {2})).wait();
  std::vector<std::uint64_t> words;
  const auto values = all.span<std::int32_t>();
  for (std::size_t i = 0; i < n; ++i)
    words.push_back((std::uint64_t{static_cast<std::uint32_t>(values[2 * i + 1])} << 32) |
                    static_cast<std::uint32_t>(values[2 * i]));
  return words;
}

/// "step-00001000", or another name if the manifest names that already: what is valid is not written over.
std::string folder_to_write(const fs::path& folder, std::int64_t step) {
  const std::string name = step_folder(step);
  if (!has_sharded_checkpoint(folder)) return name;
  const json manifest = json::parse(read_file(folder / "manifest.json", kMaxManifest), nullptr, false);
  return manifest.is_object() && manifest.value("folder", "") == name ? name + "-again" : name;
}

// ---- reading -----------------------------------------------------------------------------------

/// The elements of a piece that are contiguous in the whole tensor, and where they stand in the piece.
std::vector<ParameterRun> runs_of_piece(const Parameter& p, std::int64_t begin, std::int64_t count) {
  std::vector<ParameterRun> result;
  for (const ParameterRun& run : runs(p)) {
    const std::int64_t first = std::max(run.here, begin),
                       last = std::min(run.here + run.count, begin + count);
    if (first < last) result.push_back({run.whole + first - run.here, first - begin, last - first});
  }
  return result;
}

/// A piece as it lies in a file.
struct StoredPiece {
  const fs::path* path;
  std::array<std::span<const std::byte>, kParts> parts;
  std::array<std::uint64_t, kParts> sums{};
  int count_parts = 0;
  bool verified = false;
};
struct StoredRun {
  std::int64_t whole, here, count;
  StoredPiece* piece;
};
struct StoredTensor {
  Shape whole;
  std::vector<StoredRun> runs;  // ascending
};

struct Shard {
  Shard(fs::path p) : path(std::move(p)), file(path) {}
  fs::path path;
  MappedFile file;
  std::vector<std::unique_ptr<StoredPiece>> pieces;
};

json parse_manifest(const fs::path& folder) {
  const fs::path path = folder / "manifest.json";
  check(fs::exists(path), "{} has no manifest.json: there is no checkpoint", folder.string());
  const json j = json::parse(read_file(path, kMaxManifest), nullptr, false);
  check(j.is_object() && j.value("format", "") == kMagic, "{} is not the manifest of a checkpoint",
        path.string());
  return j;
}

CheckpointInfo info_of(const json& manifest, const fs::path& folder) {
  try {
    CheckpointInfo info;
    info.step = manifest.at("step").get<std::int64_t>();
    info.settings = manifest.at("settings").get<std::map<std::string, std::string>>();
    check(info.step >= 0, "{} says that {} steps are done", (folder / "manifest.json").string(), info.step);
    return info;
  } catch (const json::exception& e) {
    fail("{} is damaged: {}", (folder / "manifest.json").string(), e.what());
  }
}

std::uint64_t word_at(std::span<const std::byte> file, std::size_t offset) {
  std::uint64_t value = 0;
  std::memcpy(&value, file.data() + offset, sizeof value);
  return value;
}

/// Opens a shard, checks its header and its length, and adds its pieces to `tensors`.
std::unique_ptr<Shard> open_shard(const fs::path& file_path, std::int64_t step, std::uint64_t expected_sum,
                                  std::map<std::string, StoredTensor>& tensors) {
  const std::string path = file_path.string();
  check(fs::exists(file_path), "{} is missing, though the manifest names it", path);
  auto shard = std::make_unique<Shard>(file_path);
  const auto file = shard->file.bytes();
  check(file.size() >= kPrefix && std::memcmp(file.data(), kMagic.data(), kMagic.size()) == 0,
        "{} is not a shard of a checkpoint: it does not begin with {}", path, kMagic);
  const std::uint64_t header_bytes = word_at(file, 8);
  check(header_bytes <= kMaxHeader && file.size() >= kPrefix + header_bytes,
        "{} is cut off or damaged: its header claims {} bytes, the file has {}", path, header_bytes,
        file.size());
  const auto text = file.subspan(kPrefix, header_bytes);
  check(checksum(text) == word_at(file, 16), "{} is damaged: its header's checksum is wrong", path);
  check(checksum(text) == expected_sum, "{} belongs to another checkpoint than the manifest", path);
  try {
    const json header = json::parse(reinterpret_cast<const char*>(text.data()),
                                    reinterpret_cast<const char*>(text.data()) + text.size());
    check(header.at("step").get<std::int64_t>() == step, "{} is of another step than the manifest", path);
    std::uint64_t offset = aligned(kPrefix + header_bytes);
    for (const json& j : header.at("pieces")) {
      Parameter p{.name = j.at("name").get<std::string>(), .shape = j.at("shape").get<Shape>()};
      p.whole = j.at("whole").get<Shape>();
      p.split_dim = j.at("split_dim").get<int>();
      for (const json& slice : j.at("slices"))
        p.slices.push_back({slice.at(0).get<std::int64_t>(), slice.at(1).get<std::int64_t>()});
      const auto begin = j.at("begin").get<std::int64_t>(), count = j.at("count").get<std::int64_t>();
      check(begin >= 0 && count >= 0 && begin + count <= element_count(p.shape) && p.split_dim >= 0 &&
                static_cast<std::size_t>(p.split_dim) < p.whole.size(),
            "{} is damaged: its piece of {} is none", path, p.name);
      auto piece = std::make_unique<StoredPiece>();
      piece->path = &shard->path;
      const std::uint64_t bytes = static_cast<std::uint64_t>(count) * sizeof(float);
      for (const json& sum : j.at("checksums")) {
        check(piece->count_parts < kParts && offset + bytes <= file.size(), "{} is cut off: it has {} bytes",
              path, file.size());
        const auto part = static_cast<std::size_t>(piece->count_parts++);
        piece->parts[part] = file.subspan(offset, bytes);
        piece->sums[part] = sum.get<std::uint64_t>();
        offset += bytes;
      }
      StoredTensor& tensor = tensors[p.name];
      if (tensor.whole.empty()) tensor.whole = p.whole;
      check(tensor.whole == p.whole, "{} is damaged: {} has shape {} there and {} elsewhere", path, p.name,
            to_string(p.whole), to_string(tensor.whole));
      for (const ParameterRun& run : runs_of_piece(p, begin, count))
        tensor.runs.push_back({run.whole, run.here, run.count, piece.get()});
      shard->pieces.push_back(std::move(piece));
    }
    check(offset == file.size() || shard->pieces.empty(), "{} is damaged: expected {} bytes, found {}", path,
          offset, file.size());
  } catch (const json::exception& e) {
    fail("{} is damaged: its header does not hold what it should ({})", path, e.what());
  }
  return shard;
}

/// Elements [from, from + count) of a stored piece are those [to, to + count) of one that is wanted.
struct Copy {
  StoredPiece* source;
  const Piece* target;
  std::int64_t from, to, count;
};

/// Where each element of a wanted piece lies. Error if one is nowhere.
void find_sources(const Piece& wanted, const StoredTensor& tensor, const std::string& folder,
                  std::vector<Copy>& copies) {
  const Parameter& p = *wanted.parameter;
  check(tensor.whole == p.whole, "{} was made by a model of another size: {} has shape {}, expected {}",
        folder, p.name, to_string(tensor.whole), to_string(p.whole));
  for (const ParameterRun& run : runs_of_piece(p, wanted.begin, wanted.value.numel())) {
    auto stored = std::upper_bound(tensor.runs.begin(), tensor.runs.end(), run.whole,
                                   [](std::int64_t place, const StoredRun& r) { return place < r.whole; });
    if (stored != tensor.runs.begin()) --stored;
    for (std::int64_t done = 0; done < run.count; ++stored) {
      const std::int64_t place = run.whole + done;
      check(stored != tensor.runs.end() && stored->whole <= place && place < stored->whole + stored->count,
            "{} lacks element {} of {}", folder, place, p.name);
      const std::int64_t skipped = place - stored->whole;
      const std::int64_t count = std::min(run.count - done, stored->count - skipped);
      copies.push_back({stored->piece, &wanted, stored->here + skipped, run.here + done, count});
      done += count;
    }
  }
}

}  // namespace

void save_sharded_checkpoint(const fs::path& folder, const CheckpointInfo& info, const std::string& layout,
                             const std::vector<Piece>& pieces, Communicator& world) {
  const auto file_name = [&](int rank) {
    return fmt::format("shard-{:05}-of-{:05}.ckpt", rank, world.size());
  };
  const std::string name = folder_to_write(folder, info.step);
  const fs::path step = folder / name;
  const std::uint64_t sum = write_shard(step / file_name(world.rank()), info.step, pieces);
  const std::vector<std::uint64_t> sums = gather_words(sum, world);  // all shards are there
  if (world.rank() == 0) {
    json manifest;
    manifest["format"] = kMagic;
    manifest["step"] = info.step;
    manifest["settings"] = info.settings;
    manifest["layout"] = layout;
    manifest["folder"] = name;
    manifest["shards"] = json::array();
    for (int rank = 0; rank < world.size(); ++rank)
      manifest["shards"].push_back(
          {{"file", file_name(rank)}, {"header_checksum", sums[static_cast<std::size_t>(rank)]}});
    write_file(folder / "manifest.json", manifest.dump(2) + "\n");
    // Only now are earlier checkpoints of no use.
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.is_directory() && entry.path().filename().string().starts_with("step-") &&
          entry.path().filename() != name) {
        std::error_code ignored;
        fs::remove_all(entry.path(), ignored);
      }
  }
  world.barrier();
}

bool has_sharded_checkpoint(const fs::path& folder) {
  return fs::exists(folder / "manifest.json");
}

CheckpointInfo read_sharded_info(const fs::path& folder) {
  return info_of(parse_manifest(folder), folder);
}

CheckpointInfo load_sharded_checkpoint(const fs::path& folder, const std::vector<Piece>& pieces) {
  const json manifest = parse_manifest(folder);
  const CheckpointInfo info = info_of(manifest, folder);
  std::map<std::string, StoredTensor> tensors;
  std::vector<std::unique_ptr<Shard>> shards;
  try {
    const auto step = manifest.at("folder").get<std::string>();
    check(step.starts_with(step_folder(info.step)) && fs::path(step).filename() == step,
          "{} is damaged: it names the folder {}", (folder / "manifest.json").string(), step);
    for (const json& shard : manifest.at("shards")) {
      const fs::path name = shard.at("file").get<std::string>();
      check(!name.empty() && name == name.filename(), "{} is damaged: it names the file {}",
            (folder / "manifest.json").string(), name.string());
      shards.push_back(open_shard(folder / step / name, info.step,
                                  shard.at("header_checksum").get<std::uint64_t>(), tensors));
    }
  } catch (const json::exception& e) {
    fail("{} is damaged: {}", (folder / "manifest.json").string(), e.what());
  }
  for (auto& [name, tensor] : tensors)
    std::sort(tensor.runs.begin(), tensor.runs.end(),
              [](const StoredRun& a, const StoredRun& b) { return a.whole < b.whole; });

  std::vector<Copy> copies;
  for (const Piece& wanted : pieces) {
    const auto found = tensors.find(wanted.parameter->name);
    check(found != tensors.end(), "{} has no tensor {}", folder.string(), wanted.parameter->name);
    find_sources(wanted, found->second, folder.string(), copies);
  }
  for (const Copy& copy : copies) {
    StoredPiece& piece = *copy.source;
    const auto parts = parts_of(*copy.target);
    const auto wanted = std::ranges::count_if(parts, [](const Tensor& t) { return t.defined(); });
    check(piece.count_parts == wanted, "{} has {} tensors per parameter, expected {}", piece.path->string(),
          piece.count_parts, wanted);
    if (std::exchange(piece.verified, true)) continue;
    for (std::size_t part = 0; part < static_cast<std::size_t>(piece.count_parts); ++part)
      check(checksum(piece.parts[part]) == piece.sums[part],
            "{} is damaged: the checksum of its piece of {} is wrong", piece.path->string(),
            copy.target->parameter->name);
  }
  for (const Copy& copy : copies) {
    const auto parts = parts_of(*copy.target);
    for (std::size_t part = 0; part < static_cast<std::size_t>(copy.source->count_parts); ++part) {
      const Tensor here = Tensor::uninitialized({copy.count});
      std::memcpy(here.raw(),
                  copy.source->parts[part].data() + static_cast<std::size_t>(copy.from) * sizeof(float),
                  here.bytes());
      parts[part].range(copy.to, {copy.count}).copy_from(here);
    }
  }
  return info;
}

}  // namespace llm
