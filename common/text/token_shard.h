// Token shards: a corpus as a file of 16-bit token ids, in llm.c's format (Karpathy 2024, dev/data).
//
// 256 int32 of header (magic 20240520, version 1, number of tokens, the rest zero), then the tokens as
// uint16, all little-endian. A shard is mapped, not read: opening one of 10 GB costs nothing, and the
// pages that training touches are the only ones that leave the disk. Chapter 1 explains it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "common/core/file.h"

namespace llm {

inline constexpr std::int32_t kShardMagic = 20240520;
inline constexpr std::int32_t kShardVersion = 1;
inline constexpr std::int64_t kShardHeaderBytes = 256 * 4;
inline constexpr std::int64_t kShardMaxVocabulary = 65536;
inline constexpr std::int64_t kShardMaxTokens = 2147483647;  // the count is an int32

/// Error unless ids of a vocabulary of this size fit in a shard's 16 bits.
void check_fits_in_shard(std::int64_t vocabulary_size);

/// A shard, mapped read-only. Error, naming file and fault, if it is short, foreign, of another version, or
/// if its size does not agree with its count.
class TokenShard {
 public:
  explicit TokenShard(const std::filesystem::path& path);

  std::span<const std::uint16_t> tokens() const { return tokens_; }
  std::int64_t size() const { return static_cast<std::int64_t>(tokens_.size()); }
  const std::filesystem::path& path() const { return path_; }

  /// Reads all tokens. Error, naming the first one, if a token is not below `vocabulary_size`.
  void check_vocabulary(std::int64_t vocabulary_size) const;

 private:
  std::filesystem::path path_;
  MappedFile file_;
  std::span<const std::uint16_t> tokens_;
};

/// Writes a shard piece by piece; nothing stands under its name until `commit`.
class TokenShardWriter {
 public:
  explicit TokenShardWriter(const std::filesystem::path& path);

  /// Error if an id does not fit in 16 bits.
  void write(std::span<const std::int32_t> tokens);
  void write(std::span<const std::uint16_t> tokens);
  std::int64_t size() const { return count_; }
  void commit();

 private:
  std::filesystem::path path_;
  AtomicFile file_;
  std::int64_t count_ = 0;
};

}  // namespace llm
