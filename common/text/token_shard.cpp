#include "common/text/token_shard.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <vector>

#include "common/core/error.h"

namespace llm {

static_assert(std::endian::native == std::endian::little,
              "shards are little-endian and are mapped as they are");

using Header = std::array<std::int32_t, 256>;
static_assert(sizeof(Header) == kShardHeaderBytes);

void check_fits_in_shard(std::int64_t vocabulary_size) {
  check(vocabulary_size <= kShardMaxVocabulary,
        "a token shard holds 16-bit ids, so a vocabulary may have at most 65536 entries; this one has {}",
        vocabulary_size);
}

TokenShard::TokenShard(const std::filesystem::path& path) : path_(path), file_(path) {
  const std::span<const std::byte> bytes = file_.bytes();
  const auto size = static_cast<std::int64_t>(bytes.size());
  check(size >= kShardHeaderBytes, "{} is not a token shard: it has {} bytes, the header alone takes {}",
        path.string(), size, kShardHeaderBytes);
  Header header;
  std::memcpy(header.data(), bytes.data(), kShardHeaderBytes);
  check(header[0] == kShardMagic, "{} is not a token shard: it begins with the number {}, expected {}",
        path.string(), header[0], kShardMagic);
  check(header[1] == kShardVersion, "{} is a token shard of version {}, only version {} is known",
        path.string(), header[1], kShardVersion);
  const std::int64_t count = header[2];
  const std::int64_t body = size - kShardHeaderBytes;
  check(count >= 0, "{} is damaged: its header counts {} tokens", path.string(), count);
  check(body % 2 == 0, "{} is damaged: {} bytes follow the header, which is no whole number of 16-bit tokens",
        path.string(), body);
  check(body / 2 == count, "{} is {}: its header counts {} tokens, {} follow", path.string(),
        body / 2 < count ? "cut short" : "damaged", count, body / 2);
  tokens_ = {reinterpret_cast<const std::uint16_t*>(bytes.data() + kShardHeaderBytes),
             static_cast<std::size_t>(count)};
}

void TokenShard::check_vocabulary(std::int64_t vocabulary_size) const {
  if (vocabulary_size >= kShardMaxVocabulary) return;
  const auto wrong = std::find_if(tokens_.begin(), tokens_.end(),
                                  [&](std::uint16_t token) { return token >= vocabulary_size; });
  check(wrong == tokens_.end(),
        "{} was made with another tokenizer: token {} is {}, the vocabulary has {} entries", path_.string(),
        wrong - tokens_.begin(), wrong == tokens_.end() ? 0 : *wrong, vocabulary_size);
}

TokenShardWriter::TokenShardWriter(const std::filesystem::path& path) : path_(path), file_(path) {
  const Header unknown_yet{};
  file_.write(std::as_bytes(std::span(unknown_yet)));
}

void TokenShardWriter::write(std::span<const std::uint16_t> tokens) {
  count_ += static_cast<std::int64_t>(tokens.size());
  check(count_ <= kShardMaxTokens,
        "{} would hold more than {} tokens, the most a shard's header can count; split it", path_.string(),
        kShardMaxTokens);
  file_.write(std::as_bytes(tokens));
}

void TokenShardWriter::write(std::span<const std::int32_t> tokens) {
  std::vector<std::uint16_t> narrow(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    check(tokens[i] >= 0 && tokens[i] < kShardMaxVocabulary, "token id {} does not fit in the 16 bits of {}",
          tokens[i], path_.string());
    narrow[i] = static_cast<std::uint16_t>(tokens[i]);
  }
  write(narrow);
}

void TokenShardWriter::commit() {
  Header header{};  // written last, when the count is known
  header[0] = kShardMagic;
  header[1] = kShardVersion;
  header[2] = static_cast<std::int32_t>(count_);
  file_.write_at(0, std::as_bytes(std::span(header)));
  file_.commit();
}

}  // namespace llm
