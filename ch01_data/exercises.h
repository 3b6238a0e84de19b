// The exercises of chapter 1. You write them in exercises.cpp; `./book check ch01` looks at what you wrote,
// and
// `./book hint 1.1` helps. None needs more than the standard library and what its contract names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/exercises/not_started.h"

namespace llm::exercises::ch01 {

/// 1.1 Lines in one form. Returns `text` with
///   * "\r\n" and a lone "\r" turned into "\n",
///   * spaces and tabs at the ends of lines removed (also of the last line, which may have no "\n" behind
///   it),
///   * two or more empty lines in a row turned into one.
/// Nothing else changes. `text` is any bytes. See "Cleaning" in the chapter.
std::string clean_lines(std::string_view text);

/// What a model is shown, and what it should say at each place: targets[i] is the token that follows
/// inputs[i].
struct Window {
  std::vector<std::int32_t> inputs;
  std::vector<std::int32_t> targets;
};

/// 1.2 Sliding windows. Window k begins at token k * stride; inputs and targets are `length` tokens each. All
/// windows that fit are returned, in order; if none fits, none. length and stride are at least 1. See
/// "Windows".
std::vector<Window> sliding_windows(std::span<const std::int32_t> tokens, std::size_t length,
                                    std::size_t stride);

/// 1.2, second part: the windows in groups of `batch_size` >= 1, in order. The last group may be smaller; if
/// `drop_last`, it is then left out.
std::vector<std::vector<Window>> in_batches(const std::vector<Window>& windows, std::size_t batch_size,
                                            bool drop_last);

/// 1.3 A split that stays put. Says whether the document `text` is held out for validation, such that
///   * the answer depends on the three arguments alone: not on other documents, earlier calls or the place in
///   the corpus,
///   * the share of documents held out is about `fraction` (0: none, 1: all), whatever the documents look
///   like,
///   * another seed holds out others, chosen independently,
///   * a larger fraction holds out what a smaller one does, and more.
/// `llm::checksum(text)` (common/core/file.h) turns a text into 64 bits that look random; `llm::Philox{seed,
/// stream}` (common/core/philox.h) has a uniform number for each of 2^64 indices. See "The split".
bool is_held_out(std::string_view text, double fraction, std::uint64_t seed);

/// 1.4 Reading a token shard. `file` is all the bytes of one: a header of 256 int32 (the first is 20240520,
/// the second the version, 1, the third the number of tokens), then the tokens as uint16, all little-endian
/// as on this machine. Returns the tokens. Throws llm::Error, with `llm::fail` or `llm::check`
/// (common/core/error.h), if the file is shorter than a header, if the first number or the version is
/// another, or if the tokens that follow are not exactly as many as the header says. See "Shards".
std::vector<std::uint16_t> read_shard(std::span<const std::byte> file);

}  // namespace llm::exercises::ch01
