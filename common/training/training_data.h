// What training reads: a folder with a tokenizer and the token shards made with it.
//
// `ch02_tokenizer` makes such folders: the tokenizer's files, train.bin and val.bin. Chapter 5 explains it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/text/batches.h"
#include "common/text/token_shard.h"
#include "common/tokenizer/tokenizer.h"
#include "common/training/sampler.h"

namespace llm {

struct TrainingData {
  std::filesystem::path path;
  std::unique_ptr<Tokenizer> tokenizer;
  TokenShard train, val;
  std::optional<std::int32_t> end_of_text;  // absent where the tokenizer has none

  /// "1003854 tokens, checksum 0123456789abcdef": tells two training shards apart.
  std::string identity() const;
};

/// Opens a folder and checks that every token of both shards is in the tokenizer's vocabulary. Error, one
/// sentence, if something is missing, damaged, or does not belong together.
TrainingData open_training_data(const std::filesystem::path& path);

/// "windows", "documents", or "auto": documents if the tokenizer has an end-of-text token and every document
/// fits in the context. UsageError for anything else.
SampleKind choose_samples(const std::string& asked, const TrainingData& folder, std::int64_t context);

/// The texts of documents of a shard.
std::vector<std::string> document_texts(const Tokenizer& tokenizer, const TokenView& tokens,
                                        std::span<const TokenRange> documents);

/// What a text begins with where nothing else is given: end-of-text, or a line break, or token 0.
std::vector<std::int32_t> default_prompt(const Tokenizer& tokenizer);

}  // namespace llm
