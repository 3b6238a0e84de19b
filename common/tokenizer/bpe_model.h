// What a byte-level BPE tokenizer knows, as plain data, and the files it is kept in.
//
// A model is made by the trainer (bpe_trainer.h) or read from files, and becomes a BpeTokenizer
// (bpe_tokenizer.h). The files are GPT-2's: vocab.json maps each token to its id, merges.txt lists the merges
// in order. Both hold bytes as printable characters, by a table of 256: see byte_to_unicode. Chapter 2
// explains it.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llm {

/// One BPE rule: where `left` is followed by `right`, both become `result`.
struct BpeMerge {
  std::int32_t left = 0;
  std::int32_t right = 0;
  std::int32_t result = 0;
};

struct BpeModel {
  std::vector<std::string> tokens;           // id -> bytes; a special token's name
  std::vector<BpeMerge> merges;              // in order of priority: the first is applied before all others
  std::vector<std::int32_t> special_tokens;  // ids that are never made from text
};

/// GPT-2's spelling of a byte as a Unicode character that can be seen: the 188 printable characters of
/// Latin-1 stand for themselves, the other 68 bytes, in order, for U+0100, U+0101, ... (a space is U+0120,
/// "Ġ").
const std::array<std::int32_t, 256>& byte_to_unicode();

/// The order in which GPT-2 numbers the 256 bytes: first the printable ones, then the others.
const std::array<std::uint8_t, 256>& byte_order();

/// Bytes in GPT-2's spelling, as UTF-8 ("\n the" -> "ĊĠthe").
std::string spell_bytes(std::string_view bytes);

/// The bytes of a spelling. Error if a character is not in the table.
std::string unspell_bytes(std::string_view spelling);

/// Reads vocab.json and merges.txt. `special_tokens` are names that must be in the vocabulary; nullopt stands
/// for
/// <|endoftext|> if it is there. Error (one sentence) if a file is missing or malformed, ids are not 0 ... n
/// - 1 each once, one of the 256 bytes has no token, or a merge names or makes a token that is not there.
BpeModel read_bpe_files(const std::filesystem::path& vocab_json, const std::filesystem::path& merges_txt,
                        const std::optional<std::vector<std::string>>& special_tokens);

/// Writes vocab.json and merges.txt into `folder`, as Hugging Face's GPT2Tokenizer reads them.
void write_bpe_files(const BpeModel& model, const std::filesystem::path& folder);

/// Reads a rank file of tiktoken: per line a token's bytes in base64 and its rank, which is its id. Each way
/// to cut a token into two tokens becomes a merge, so that the result encodes as tiktoken does.
/// `special_tokens` get the ids after the last rank, in order.
BpeModel read_tiktoken_file(const std::filesystem::path& path,
                            const std::vector<std::string>& special_tokens);

/// Writes a rank file: the tokens without the special ones, which must stand at the end.
void write_tiktoken_file(const BpeModel& model, const std::filesystem::path& path);

/// Error (one sentence, with `source` as its subject) if `model` is not one that a BpeTokenizer can use: a
/// byte without a token, a token twice, a merge of unknown tokens or of bytes that are not its parts'.
void check_bpe_model(const BpeModel& model, std::string_view source);

}  // namespace llm
