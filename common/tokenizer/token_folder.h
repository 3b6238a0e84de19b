// From documents to what a model trains on: a tokenizer, and a folder of token shards.
//
// A token folder holds the tokenizer's files (tokenizer.h), train.bin and val.bin (llm.c shards,
// common/text/token_shard.h), and from the documents folder val.jsonl and, if it is there, about.json.
// Chapter 2 makes it, chapter 5 trains on it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/text/documents.h"
#include "common/tokenizer/bpe_model.h"
#include "common/tokenizer/tokenizer.h"

namespace llm {

/// What `encode_documents` did.
struct EncodedCount {
  std::int64_t documents = 0;
  std::int64_t bytes = 0;
  std::int64_t tokens = 0;  // with those between documents
};

/// Called now and then with the bytes of text done so far.
using BytesDone = std::function<void(std::int64_t)>;

/// True if `folder` holds train.jsonl, as what chapter 1 makes does.
bool is_documents_folder(const std::filesystem::path& folder);

struct TrainTokenizerOptions {
  std::string kind = "bpe";  // or "char" or "byte"
  std::int64_t vocab_size =
      1024;  // bpe: all tokens, <|endoftext|> among them; at most 65536, to fit in shards
  BytesDone bytes_done;
  std::function<void(const BpeModel&, std::int64_t)> on_merge;  // see BpeTrainerOptions
};

/// Makes a tokenizer from text files, JSON lines or folders of them. Of a documents folder only train.jsonl
/// is learned from; but a character tokenizer, which is a list and learns nothing, takes the characters of
/// val.jsonl too, and a line break, if there are several documents. UsageError for an unknown kind or an
/// impossible size.
std::unique_ptr<Tokenizer> train_tokenizer(const Paths& inputs, const TrainTokenizerOptions& options);

/// Writes the tokens of all documents into one shard, each document followed by <|endoftext|>; if the
/// tokenizer has none, with a line break between documents. Documents are read and encoded as they come, on
/// all threads. Error if the vocabulary does not fit in a shard's 16 bits.
EncodedCount encode_documents(const Paths& inputs, const Tokenizer& tokenizer,
                              const std::filesystem::path& shard, const BytesDone& bytes_done = {});

struct TokenFolderCount {
  EncodedCount train, val;
};

/// Encodes a documents folder into a token folder at `out`, whole or not at all. What stood there is replaced
/// if it was a token folder (or part of one); Error if it holds anything else.
TokenFolderCount write_token_folder(const std::filesystem::path& documents, const Tokenizer& tokenizer,
                                    const std::filesystem::path& out, const BytesDone& bytes_done = {});

/// Writes the tokenizer alone into the folder `out`, under the same conditions. Shards that were there were
/// made by another tokenizer and go.
void write_tokenizer_folder(const Tokenizer& tokenizer, const std::filesystem::path& out);

}  // namespace llm
