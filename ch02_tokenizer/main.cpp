// Chapter 2: text becomes tokens. Without arguments the chapter's walk; with a subcommand the tool.
//
//   ch02_tokenizer train INPUT --vocab-size N --out DIR       learn a tokenizer
//   ch02_tokenizer encode INPUT --tokenizer DIR --out OUT     text or documents into token shards
//   ch02_tokenizer decode FILE.bin --tokenizer DIR            and back
#include <fmt/format.h>

#include <chrono>
#include <cstdio>

#include "ch02_tokenizer/walk.h"
#include "common/cli/format.h"
#include "common/cli/metrics.h"
#include "common/cli/program.h"
#include "common/cli/progress.h"
#include "common/core/error.h"
#include "common/text/documents.h"
#include "common/text/input_file.h"
#include "common/text/token_shard.h"
#include "common/tokenizer/token_folder.h"

namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::vector<std::string> inputs;
  std::string input, kind = "bpe", tokenizer, out;
  std::int64_t vocab_size = 1024;
  bool end_of_text = false;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void train(const Arguments& arguments, llm::MetricsWriter& metrics) {
  const auto start = std::chrono::steady_clock::now();
  llm::TrainTokenizerOptions options;
  options.kind = arguments.kind;
  options.vocab_size = arguments.vocab_size;
  llm::Progress reading("reading", 0, "B");
  std::unique_ptr<llm::Progress> merging;
  options.bytes_done = [&](std::int64_t bytes) { reading.update(bytes); };
  options.on_merge = [&](const llm::BpeModel& model, std::int64_t) {
    if (!merging) {
      reading.finish();
      merging = std::make_unique<llm::Progress>("merging", arguments.vocab_size, "tokens");
    }
    merging->update(static_cast<std::int64_t>(model.tokens.size()));
  };
  const auto tokenizer = llm::train_tokenizer({arguments.inputs.begin(), arguments.inputs.end()}, options);
  if (merging) merging->finish();
  llm::write_tokenizer_folder(*tokenizer, arguments.out);
  const double seconds = seconds_since(start);
  fmt::print("{} tokens ({}) in {}\n", tokenizer->vocab_size(), tokenizer->kind(), arguments.out);
  if (arguments.kind == "bpe" && tokenizer->vocab_size() < arguments.vocab_size)
    fmt::print("fewer than the {} asked for: no pair of tokens is left that occurs twice\n",
               arguments.vocab_size);
  metrics.write({{"what", "train"},
                 {"kind", tokenizer->kind()},
                 {"vocab_size", tokenizer->vocab_size()},
                 {"seconds", seconds}});
}

void report_encoded(const std::string& name, const llm::EncodedCount& count, llm::MetricsWriter& metrics) {
  fmt::print("{} tokens ({:.3f} bytes per token) of {} {} in {}\n", count.tokens,
             count.tokens > 0 ? static_cast<double>(count.bytes) / static_cast<double>(count.tokens) : 0.0,
             count.documents, count.documents == 1 ? "text" : "documents", name);
  metrics.write({{"what", "encode"},
                 {"file", name},
                 {"documents", count.documents},
                 {"bytes", count.bytes},
                 {"tokens", count.tokens}});
}

// One text file, byte for byte as it is, into a shard of exactly its tokens.
llm::EncodedCount encode_text(const Arguments& arguments, const llm::Tokenizer& tokenizer) {
  const std::string text = llm::InputFile(arguments.input).read_all();
  llm::check_fits_in_shard(tokenizer.vocab_size());
  llm::TokenShardWriter writer(arguments.out);
  writer.write(tokenizer.encode(text));
  if (arguments.end_of_text) {
    const std::optional<std::int32_t> id = tokenizer.end_of_text();
    llm::check(id.has_value(), "--end-of-text: the {} tokenizer in {} has no {}", tokenizer.kind(),
               arguments.tokenizer, llm::kEndOfText);
    writer.write(std::span<const std::int32_t>(&*id, 1));
  }
  const llm::EncodedCount count{1, static_cast<std::int64_t>(text.size()), writer.size()};
  writer.commit();
  return count;
}

void encode(const Arguments& arguments, llm::MetricsWriter& metrics) {
  const fs::path input = arguments.input;
  llm::check(fs::exists(input), "there is no file or folder {}", arguments.input);
  const auto tokenizer = llm::load_tokenizer(arguments.tokenizer);
  llm::Progress progress("encoding", 0, "B");
  const auto show = [&](std::int64_t bytes) { progress.update(bytes); };
  if (llm::is_documents_folder(input)) {
    const llm::TokenFolderCount count = llm::write_token_folder(input, *tokenizer, arguments.out, show);
    progress.finish();
    report_encoded((fs::path(arguments.out) / "train.bin").string(), count.train, metrics);
    report_encoded((fs::path(arguments.out) / "val.bin").string(), count.val, metrics);
    return;
  }
  if (fs::is_directory(arguments.out))
    llm::fail_usage("--out {} is a folder; the tokens of {} go into one file", arguments.out,
                    arguments.input);
  const fs::path name = llm::without_compression(input);
  const bool documents = fs::is_directory(input) || name.extension() == ".jsonl" ||
                         name.extension() == ".ndjson" || name.extension() == ".json";
  const llm::EncodedCount count = documents ? llm::encode_documents({input}, *tokenizer, arguments.out, show)
                                            : encode_text(arguments, *tokenizer);
  progress.update(count.bytes);
  progress.finish();
  report_encoded(arguments.out, count, metrics);
}

void decode(const Arguments& arguments, llm::MetricsWriter& metrics) {
  const auto tokenizer = llm::load_tokenizer(arguments.tokenizer);
  const llm::TokenShard shard(arguments.input);
  shard.check_vocabulary(tokenizer->vocab_size());  // before anything is printed
  std::int64_t bytes = 0;
  std::vector<std::int32_t> ids;
  constexpr std::size_t kPart = 1 << 16;
  const std::span<const std::uint16_t> tokens = shard.tokens();
  for (std::size_t begin = 0; begin < tokens.size(); begin += kPart) {
    const auto part = tokens.subspan(begin, std::min(kPart, tokens.size() - begin));
    ids.assign(part.begin(), part.end());
    const std::string text = tokenizer->decode(ids);
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) return;  // run_program says why
    bytes += static_cast<std::int64_t>(text.size());
  }
  metrics.write({{"what", "decode"}, {"tokens", shard.size()}, {"bytes", bytes}});
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Chapter 2: text becomes tokens. Without a subcommand: the chapter's walk."};
  llm::CommonOptions common;
  llm::add_common_options(app, common);
  Arguments arguments;

  CLI::App* train_command = app.add_subcommand("train", "learn a tokenizer from text");
  train_command
      ->add_option("INPUT", arguments.inputs,
                   "text files, JSON lines, folders of them (of a documents "
                   "folder: train.jsonl)")
      ->required();
  train_command
      ->add_option("--vocab-size", arguments.vocab_size, "bpe: tokens, with the 256 bytes and <|endoftext|>")
      ->capture_default_str()
      ->check(llm::between(257, 65536));
  train_command->add_option("--kind", arguments.kind, "byte-level BPE, one token per character, or per byte")
      ->capture_default_str()
      ->check(CLI::IsMember({"bpe", "char", "byte"}));
  train_command
      ->add_option("--out", arguments.out, "folder for the tokenizer; a tokenizer that is there is replaced")
      ->required();

  CLI::App* encode_command = app.add_subcommand(
      "encode",
      "write token shards: the tokens of a text file; of JSON lines or a folder of texts, with <|endoftext|> "
      "behind each document; of a documents folder, a whole token folder");
  encode_command->add_option("INPUT", arguments.input, "a text file, JSON lines, or a folder")->required();
  encode_command->add_option("--tokenizer", arguments.tokenizer, "folder of the tokenizer")->required();
  encode_command->add_option("--out", arguments.out, "the shard FILE.bin; for a documents folder, a folder")
      ->required();
  encode_command->add_flag("--end-of-text", arguments.end_of_text,
                           "also put <|endoftext|> behind a single text file");

  CLI::App* decode_command =
      app.add_subcommand("decode", "write the bytes of a token shard to the standard output");
  decode_command->add_option("FILE", arguments.input, "a token shard")->required();
  decode_command->add_option("--tokenizer", arguments.tokenizer, "folder of the tokenizer")->required();
  app.require_subcommand(0, 1);

  return llm::run_program(argc, argv, app, common, [&] {
    llm::MetricsWriter metrics(common.metrics);
    if (train_command->parsed())
      train(arguments, metrics);
    else if (encode_command->parsed())
      encode(arguments, metrics);
    else if (decode_command->parsed())
      decode(arguments, metrics);
    else
      llm::ch02::walk(common.work, common.seed, metrics);
  });
}
