// The safetensors format: named tensors in one file (https://huggingface.co/docs/safetensors).
//
//   8 bytes   N, the length of the header, little-endian
//   N bytes   JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...}
//   the rest  the tensors' bytes, row-major, one after the other without gaps
//
// A reader that trusts a header can be led anywhere in memory, so everything is checked before anything is
// read. Chapter 4 explains it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/core/file.h"
#include "common/core/tensor.h"

namespace llm {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // as in the file: "F32", "BF16", "I64", ...
  Shape shape;
  std::uint64_t begin = 0, end = 0;  // bytes, from the end of the header
};

/// A file whose header has been checked: lengths, JSON, dtypes, shapes, and that the tensors fill the file
/// without gap or overlap. Error (one sentence that names the file) otherwise.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  /// In the order of their bytes in the file.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  /// nullptr if there is none of that name.
  const SafetensorsEntry* find(std::string_view name) const;
  /// Converts a tensor's elements to f32, into `out` of as many. Error unless it is F32, F16 or BF16, and if
  /// an element is NaN or infinite.
  void read(const SafetensorsEntry& entry, std::span<float> out) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  MappedFile file_;
  std::uint64_t data_begin_ = 0;
  std::vector<SafetensorsEntry> entries_;
};

/// One tensor to be written. `values` is called when its turn comes, so that copies made for writing
/// (transposed, say) need not all exist at once.
struct TensorToWrite {
  std::string name;
  Shape shape;  // of the result of `values`
  std::function<Tensor()> values;
};

/// Writes f32 tensors atomically, in the given order.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors);

}  // namespace llm
