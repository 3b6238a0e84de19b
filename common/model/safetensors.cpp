#include "common/model/safetensors.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "common/core/error.h"

namespace llm {

namespace {

static_assert(std::endian::native == std::endian::little, "safetensors stores little-endian numbers");

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

struct DTypeSize {
  std::string_view name;
  std::uint64_t bytes;
};
constexpr DTypeSize kDTypes[] = {{"F32", 4}, {"F16", 2},     {"BF16", 2},    {"BOOL", 1}, {"U8", 1},
                                 {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"I16", 2},  {"U16", 2},
                                 {"I32", 4}, {"U32", 4},     {"F64", 8},     {"I64", 8},  {"U64", 8}};

/// IEEE half precision: 5 bits of exponent, 10 of fraction.
float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t fraction = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  const std::uint32_t widened = exponent == 31 ? 255u : exponent + 112u;
  return std::bit_cast<float>(sign | widened << 23 | fraction << 13);
}

float bfloat_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

std::uint64_t dtype_bytes(const std::string& file, const std::string& tensor, const std::string& dtype) {
  for (const DTypeSize& known : kDTypes)
    if (known.name == dtype) return known.bytes;
  fail("{}: tensor \"{}\" has the unknown dtype \"{}\"", file, tensor, dtype);
}

/// A number of the header that must be a whole number, not negative.
std::uint64_t whole_number(const std::string& file, const std::string& tensor, const nlohmann::json& value) {
  check(value.is_number_unsigned(), "{}: tensor \"{}\" has {} where a whole number was expected", file,
        tensor, value.dump());
  return value.get<std::uint64_t>();
}

SafetensorsEntry parse_entry(const std::string& file, const std::string& name, const nlohmann::json& json) {
  check(json.is_object() && json.contains("dtype") && json.contains("shape") && json.contains("data_offsets"),
        "{}: tensor \"{}\" needs \"dtype\", \"shape\" and \"data_offsets\" in the header", file, name);
  const nlohmann::json& offsets = json["data_offsets"];
  check(json["dtype"].is_string() && json["shape"].is_array() && offsets.is_array() && offsets.size() == 2,
        "{}: the header entry of tensor \"{}\" is malformed: {}", file, name, json.dump().substr(0, 200));
  SafetensorsEntry entry{.name = name, .dtype = json["dtype"].get<std::string>(), .shape = {}};
  std::uint64_t bytes = dtype_bytes(file, name, entry.dtype);
  for (const nlohmann::json& size : json["shape"]) {
    const std::uint64_t n = whole_number(file, name, size);
    check(n < (std::uint64_t{1} << 46) && !__builtin_mul_overflow(bytes, n, &bytes),
          "{}: tensor \"{}\" has an absurd shape {}", file, name, json["shape"].dump());
    entry.shape.push_back(static_cast<std::int64_t>(n));
  }
  entry.begin = whole_number(file, name, offsets[0]);
  entry.end = whole_number(file, name, offsets[1]);
  check(entry.begin <= entry.end && entry.end - entry.begin == bytes,
        "{}: tensor \"{}\" of shape {} and dtype {} needs {} bytes, but its offsets are {} to {}", file, name,
        to_string(entry.shape), entry.dtype, bytes, entry.begin, entry.end);
  return entry;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path), file_(path) {
  const std::string file = path.string();
  const std::span<const std::byte> bytes = file_.bytes();
  check(bytes.size() >= kLengthBytes, "{} is no safetensors file: it has only {} bytes", file, bytes.size());
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), kLengthBytes);
  check(header_bytes <= kMaxHeaderBytes, "{} is no safetensors file: its header would have {} bytes", file,
        header_bytes);
  check(header_bytes <= bytes.size() - kLengthBytes,
        "{} is truncated: its header has {} bytes, but only {} are there", file, header_bytes,
        bytes.size() - kLengthBytes);
  data_begin_ = kLengthBytes + header_bytes;
  const std::uint64_t data_bytes = bytes.size() - data_begin_;

  const std::string_view text = file_.text().substr(kLengthBytes, header_bytes);
  const nlohmann::json header = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  check(header.is_object(), "{} is no safetensors file: its header is no JSON object", file);
  for (const auto& [name, json] : header.items())
    if (name != "__metadata__") entries_.push_back(parse_entry(file, name, json));

  std::sort(entries_.begin(), entries_.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t expected = 0;
  for (const SafetensorsEntry& entry : entries_) {
    check(entry.begin == expected, "{}: tensor \"{}\" begins at byte {}, expected {}: tensors {}", file,
          entry.name, entry.begin, expected, entry.begin < expected ? "overlap" : "leave a gap");
    check(entry.end <= data_bytes, "{} is truncated: tensor \"{}\" ends at byte {} of {}", file, entry.name,
          entry.end, data_bytes);
    expected = entry.end;
  }
  check(expected == data_bytes, "{} has {} bytes of tensors, but its header accounts for {}", file,
        data_bytes, expected);
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  for (const SafetensorsEntry& entry : entries_)
    if (entry.name == name) return &entry;
  return nullptr;
}

void SafetensorsFile::read(const SafetensorsEntry& entry, std::span<float> out) const {
  check(out.size() == static_cast<std::size_t>(element_count(entry.shape)),
        "{}: tensor \"{}\" has shape {}, which is not {} elements", path_.string(), entry.name,
        to_string(entry.shape), out.size());
  const std::byte* data = file_.bytes().data() + data_begin_ + entry.begin;
  // The bytes may stand at any address: memcpy, not a cast.
  const auto widen = [&](auto convert) {
    for (std::size_t i = 0; i < out.size(); ++i) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, data + 2 * i, 2);
      out[i] = convert(bits);
    }
  };
  if (entry.dtype == "F32") {
    if (!out.empty()) std::memcpy(out.data(), data, out.size_bytes());
  } else if (entry.dtype == "F16") {
    widen(half_to_float);
  } else if (entry.dtype == "BF16") {
    widen(bfloat_to_float);
  } else {
    fail("{}: tensor \"{}\" has dtype {}, expected F32, F16 or BF16", path_.string(), entry.name,
         entry.dtype);
  }
  for (std::size_t i = 0; i < out.size(); ++i)
    check(std::isfinite(out[i]), "{}: tensor \"{}\" has {} as element {}; a model's weights must be finite",
          path_.string(), entry.name, out[i], i);
}

void write_safetensors(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};  // transformers refuses files without it
  std::uint64_t offset = 0;
  for (const TensorToWrite& t : tensors) {
    const std::uint64_t end = offset + static_cast<std::uint64_t>(element_count(t.shape)) * sizeof(float);
    header[t.name] = {{"dtype", "F32"}, {"shape", t.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the tensors begin at a multiple of 8
  const std::uint64_t length = text.size();

  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const TensorToWrite& t : tensors) {
    const Tensor values = t.values();
    check(values.shape() == t.shape, "tensor \"{}\" was announced with shape {}, but has {}", t.name,
          to_string(t.shape), to_string(values.shape()));
    file.write(std::as_bytes(std::span<const float>(values.span())));
  }
  file.commit();
}

}  // namespace llm
