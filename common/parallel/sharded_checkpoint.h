// Checkpoints of a run on many ranks, which any other layout can go on from.
//
//   FOLDER/manifest.json              which step is the checkpoint, the run's settings, the shard files and
//                                     their checksums
//   FOLDER/step-00001000/shard-00000-of-00008.ckpt, ...
//                                     what each rank wrote
//
// A shard file says of each piece which tensor of the whole model it belongs to, that tensor's shape, and
// which of its elements these are. So nothing in a checkpoint depends on the layout but how it is cut. Each
// rank writes its shard under a temporary name, syncs and renames it; when all have, rank 0 replaces the
// manifest. Whenever a rank dies before that, the manifest still names the checkpoint before. The ranks need
// one file system. Chapter 6 explains it.
//
//   "LLMSHRD1" | header bytes (u64) | header checksum (u64) | header, JSON | zeros to a multiple of 64 | f32s
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/parallel/communicator.h"
#include "common/parallel/sharded_stage.h"
#include "common/training/checkpoint.h"

namespace llm {

/// Writes a checkpoint; all ranks of `world` call it together. `layout` is for people.
void save_sharded_checkpoint(const std::filesystem::path& folder, const CheckpointInfo& info,
                             const std::string& layout, const std::vector<ShardedStage::StatePiece>& pieces,
                             Communicator& world);

/// The step and the settings, without the tensors. Error if there is none, or the manifest is damaged.
CheckpointInfo read_sharded_info(const std::filesystem::path& folder);
bool has_sharded_checkpoint(const std::filesystem::path& folder);

/// Reads the pieces that this rank needs, from whatever shards they lie in. Every check comes before the
/// first change: Error, one sentence that names the file, if one is missing, damaged or cut off, or if an
/// element of a piece is in none.
CheckpointInfo load_sharded_checkpoint(const std::filesystem::path& folder,
                                       const std::vector<ShardedStage::StatePiece>& pieces);

}  // namespace llm
