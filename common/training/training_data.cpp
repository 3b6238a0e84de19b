// Tokenizer and shards of a folder. See training_data.h.
#include "common/training/training_data.h"

#include "common/core/error.h"
#include "common/core/file.h"

namespace llm {

std::string TrainingData::identity() const {
  return fmt::format("{} tokens, checksum {:016x}", train.size(), checksum(std::as_bytes(train.tokens())));
}

TrainingData open_training_data(const std::filesystem::path& path) {
  check(std::filesystem::is_directory(path),
        "{} is no folder; expected one with a tokenizer, train.bin and val.bin, as ch02_tokenizer makes it",
        path.string());
  for (const char* name : {"train.bin", "val.bin"})
    check(std::filesystem::exists(path / name), "{} has no {}; ch02_tokenizer makes such a folder",
          path.string(), name);
  std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(path);
  const auto end = tokenizer->end_of_text();
  TrainingData folder{path, std::move(tokenizer), TokenShard(path / "train.bin"),
                      TokenShard(path / "val.bin"), end};
  folder.train.check_vocabulary(folder.tokenizer->vocab_size());
  folder.val.check_vocabulary(folder.tokenizer->vocab_size());
  return folder;
}

SampleKind choose_samples(const std::string& asked, const TrainingData& folder, std::int64_t context) {
  if (asked != "auto") {
    const SampleKind kind = parse_sample_kind(asked);
    if (kind == SampleKind::documents && !folder.end_of_text)
      fail_usage("the tokenizer of {} has no end-of-text token, so its documents cannot be told apart",
                 folder.path.string());
    return kind;
  }
  if (!folder.end_of_text) return SampleKind::windows;
  for (const TokenShard* shard : {&folder.train, &folder.val}) {
    const auto documents = document_ranges(shard->tokens(), *folder.end_of_text);
    if (documents.size() < 100) return SampleKind::windows;
    for (const TokenRange& d : documents)
      if (d.size() >= context) return SampleKind::windows;
  }
  return SampleKind::documents;
}

std::vector<std::string> document_texts(const Tokenizer& tokenizer, const TokenView& tokens,
                                        std::span<const TokenRange> documents) {
  std::vector<std::string> texts;
  texts.reserve(documents.size());
  std::vector<std::int32_t> ids;
  for (const TokenRange& document : documents) {
    ids.resize(static_cast<std::size_t>(document.size()));
    tokens.copy(document.begin, ids);
    texts.push_back(tokenizer.decode(ids));
  }
  return texts;
}

std::vector<std::int32_t> default_prompt(const Tokenizer& tokenizer) {
  if (const auto end = tokenizer.end_of_text()) return {*end};
  try {
    return tokenizer.encode("\n");
  } catch (const Error&) {  // a character tokenizer whose text had one line only
    return {0};
  }
}

}  // namespace llm
