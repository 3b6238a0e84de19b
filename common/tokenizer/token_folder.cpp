// Training tokenizers and encoding folders of documents. See token_folder.h.
#include "common/tokenizer/token_folder.h"

#include <algorithm>
#include <array>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/text/token_shard.h"
#include "common/tokenizer/bpe_tokenizer.h"
#include "common/tokenizer/bpe_trainer.h"
#include "common/tokenizer/simple_tokenizers.h"

namespace llm {
namespace {

namespace fs = std::filesystem;

// Documents are worked on in batches of about this size, so that memory does not grow with the corpus.
constexpr std::size_t kBatchBytes = std::size_t{16} << 20;

// Collects documents and hands them on in batches.
void for_each_batch(const Paths& inputs, const BytesDone& bytes_done,
                    const std::function<void(std::span<const std::string_view>)>& take) {
  std::vector<std::string> texts;
  std::size_t bytes = 0;
  std::int64_t done = 0;
  const auto flush = [&] {
    const std::vector<std::string_view> views(texts.begin(), texts.end());
    take(views);
    done += static_cast<std::int64_t>(bytes);
    if (bytes_done) bytes_done(done);
    texts.clear();
    bytes = 0;
  };
  for_each_document(inputs, [&](Document&& document) {
    bytes += document.text.size();
    texts.push_back(std::move(document.text));
    if (bytes >= kBatchBytes) flush();
  });
  if (!texts.empty()) flush();
}

// The files to learn from: of a documents folder, its training part.
Paths training_inputs(const Paths& inputs, bool with_validation) {
  Paths files;
  for (const fs::path& input : inputs) {
    if (!is_documents_folder(input)) {
      files.push_back(input);
      continue;
    }
    files.push_back(input / "train.jsonl");
    if (with_validation && fs::exists(input / "val.jsonl")) files.push_back(input / "val.jsonl");
  }
  return files;
}

std::string names_of(const Paths& inputs) {
  std::string names;
  for (const fs::path& input : inputs) names += (names.empty() ? "" : ", ") + input.string();
  return names;
}

std::unique_ptr<Tokenizer> train_characters(const Paths& inputs, const BytesDone& bytes_done) {
  std::vector<std::string> texts;
  std::int64_t bytes = 0;
  for_each_document(training_inputs(inputs, true), [&](Document&& document) {
    bytes += static_cast<std::int64_t>(document.text.size());
    texts.push_back(std::move(document.text));
    if (bytes_done) bytes_done(bytes);
  });
  check(!texts.empty(), "there is no text to take characters from in {}", names_of(inputs));
  std::vector<std::string_view> views(texts.begin(), texts.end());
  if (views.size() > 1) views.emplace_back("\n");
  return std::make_unique<CharTokenizer>(train_char_tokenizer(views));
}

// Error if `folder` holds something that is not part of a token folder, for replacing it would destroy that.
void check_replaceable(const fs::path& folder) {
  static constexpr std::array<std::string_view, 7> kOurs = {
      "vocab.json", "merges.txt", "tokenizer_config.json", "train.bin", "val.bin", "val.jsonl", "about.json"};
  if (!fs::exists(folder)) return;
  check(fs::is_directory(folder), "{} is a file; the output is a folder", folder.string());
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    check(std::find(kOurs.begin(), kOurs.end(), name) != kOurs.end(),
          "{} holds {}, which is not part of a token folder and would be lost; name a new or empty folder",
          folder.string(), name);
  }
}

}  // namespace

bool is_documents_folder(const fs::path& folder) {
  return fs::is_regular_file(folder / "train.jsonl");
}

std::unique_ptr<Tokenizer> train_tokenizer(const Paths& inputs, const TrainTokenizerOptions& options) {
  if (options.kind == "byte") return std::make_unique<ByteTokenizer>();
  if (options.kind == "char") return train_characters(inputs, options.bytes_done);
  if (options.kind != "bpe")
    fail_usage("there is no kind of tokenizer \"{}\"; choose bpe, char or byte", options.kind);
  if (options.vocab_size < 257 || options.vocab_size > kShardMaxVocabulary)
    fail_usage(
        "a vocabulary of {} tokens is not possible here: at least 257 (256 bytes and {}), at most {} (16 "
        "bits)",
        options.vocab_size, kEndOfText, kShardMaxVocabulary);
  PieceCounter counter;
  for_each_batch(training_inputs(inputs, false), options.bytes_done,
                 [&](std::span<const std::string_view> texts) { counter.add(texts); });
  check(!counter.counts().empty(), "there is no text to learn from in {}", names_of(inputs));
  BpeTrainerOptions bpe;
  bpe.vocab_size = options.vocab_size;
  bpe.on_merge = options.on_merge;
  return std::make_unique<BpeTokenizer>(train_bpe(counter.counts(), bpe));
}

EncodedCount encode_documents(const Paths& inputs, const Tokenizer& tokenizer, const fs::path& shard,
                              const BytesDone& bytes_done) {
  check_fits_in_shard(tokenizer.vocab_size());
  const std::optional<std::int32_t> end_of_text = tokenizer.end_of_text();
  TokenShardWriter writer(shard);
  EncodedCount count;
  for_each_batch(inputs, bytes_done, [&](std::span<const std::string_view> texts) {
    const std::vector<std::vector<std::int32_t>> batch = tokenizer.encode_batch(texts);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      if (!end_of_text && count.documents > 0) writer.write(tokenizer.encode("\n"));
      writer.write(batch[i]);
      if (end_of_text) writer.write(std::span(&*end_of_text, 1));
      ++count.documents;
      count.bytes += static_cast<std::int64_t>(texts[i].size());
    }
  });
  count.tokens = writer.size();
  writer.commit();
  return count;
}

TokenFolderCount write_token_folder(const fs::path& documents, const Tokenizer& tokenizer,
                                    const fs::path& out, const BytesDone& bytes_done) {
  check(is_documents_folder(documents), "{} is not a documents folder: it has no train.jsonl",
        documents.string());
  check(fs::is_regular_file(documents / "val.jsonl"), "{} has a train.jsonl, but no val.jsonl",
        documents.string());
  check_fits_in_shard(tokenizer.vocab_size());
  check_replaceable(out);
  TokenFolderCount count;
  write_folder(out, [&](const fs::path& fresh) {
    count.train = encode_documents({documents / "train.jsonl"}, tokenizer, fresh / "train.bin", bytes_done);
    count.val =
        encode_documents({documents / "val.jsonl"}, tokenizer, fresh / "val.bin", [&](std::int64_t bytes) {
          if (bytes_done) bytes_done(count.train.bytes + bytes);
        });
    tokenizer.save(fresh);
    write_file(fresh / "val.jsonl", read_file(documents / "val.jsonl"));
    if (fs::exists(documents / "about.json"))
      write_file(fresh / "about.json", read_file(documents / "about.json"));
  });
  return count;
}

void write_tokenizer_folder(const Tokenizer& tokenizer, const fs::path& out) {
  check_replaceable(out);
  write_folder(out, [&](const fs::path& fresh) { tokenizer.save(fresh); });
}

}  // namespace llm
