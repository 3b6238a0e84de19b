// Checkpoints: everything a run needs to go on to the same bits, in one file.
//
//   "LLMCKPT1" | header bytes (u64) | header checksum (u64) | header, JSON | zeros to a multiple of 64 |
//   tensors
//
// The header holds the number of finished steps, the settings that determine the run's numbers, and for each
// tensor its name, count, offset and checksum. The file appears whole or not at all (AtomicFile), and a
// reader checks all of it before it changes anything. Little-endian, as every machine this runs on. Chapter 5
// explains it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/core/tensor.h"

namespace llm {

struct CheckpointInfo {
  std::int64_t step = 0;                        // optimizer steps finished
  std::map<std::string, std::string> settings;  // name -> value; a run that resumes must have the same
};

/// A tensor (f32) of the training state under its name.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// Writes the file atomically: if it fails (a full disk), the previous checkpoint of that name is still
/// there.
void save_checkpoint(const std::filesystem::path& path, const CheckpointInfo& info,
                     const std::vector<NamedTensor>& tensors);

/// Reads `tensors` from the file and returns the rest. Every check comes before the first change: Error, one
/// sentence, if the file is missing, is no checkpoint, is of another version, is shorter or longer than it
/// says, or if a checksum, a tensor's name or count does not agree.
CheckpointInfo load_checkpoint(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors);

/// The header alone, with its own checksum verified.
CheckpointInfo read_checkpoint_info(const std::filesystem::path& path);

/// Error that names the first setting that differs between a checkpoint and the run that wants to resume it.
void check_same_settings(const std::filesystem::path& path, const std::map<std::string, std::string>& saved,
                         const std::map<std::string, std::string>& wanted);

}  // namespace llm
