// From texts to batches: templates, loss masks, padding, packing.
//
// An example is a prompt and the answer that the model is to learn. The template is the text around them;
// what it is matters little, that it is the same when the model is asked later matters a lot. Chapter 7
// explains it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/batches.h"
#include "common/tokenizer/tokenizer.h"

namespace llm {

// ---- templates ------------------------------------------------------------------------------------

/// The format of Stanford Alpaca (Taori et al. 2023): a sentence of introduction, then sections. `input` may
/// be empty. Ends where the answer begins.
std::string alpaca_prompt(std::string_view instruction, std::string_view input);

/// One line of a conversation: who ("user", "assistant", or "system") and what.
struct Turn {
  std::string speaker, text;
};
/// "User: ...\nAssistant:", all turns one after the other, ready for the assistant's next. A system turn
/// stands first, without a name.
std::string chat_prompt(std::span<const Turn> turns);
std::string chat_prompt(std::string_view question);

// ---- examples -------------------------------------------------------------------------------------

struct Example {
  std::vector<std::int32_t> tokens;  // end-of-text, prompt, answer, end-of-text
  std::int64_t answer = 0;           // where the answer begins
};

/// Prompt and answer are ordinary text, so nobody can smuggle in a special token; a space is put between them
/// unless the prompt ends in white space. If they are longer than `longest` tokens, the prompt loses its
/// beginning. Error if the answer alone is too long, or the tokenizer has no end-of-text token.
Example make_example(const Tokenizer& tokenizer, std::string_view prompt, std::string_view answer,
                     std::int64_t longest);

/// The prompt alone, as generation reads it.
std::vector<std::int32_t> make_prompt(const Tokenizer& tokenizer, std::string_view prompt,
                                      std::int64_t longest);

struct MaskOptions {
  bool prompt = true;  // the prompt's tokens are no targets: the model learns to answer, not to ask
};

/// One example per row, as long as the longest; the rest of a row is filled with `padding`, and its targets
/// are -1. inputs are all tokens but the last, targets all but the first.
Batch collate(std::span<const Example> examples, std::int32_t padding, const MaskOptions& mask = {});

/// Rows of `length` positions, filled with as many whole examples as fit.
struct PackedBatch {
  Batch batch;
  std::vector<std::int64_t> documents;  // where each begins, for ForwardOptions::documents
};
/// Packs examples from `first` on in their order into at most `rows` rows; advances `first` behind the last
/// that found room. Error if an example is longer than a row.
PackedBatch pack(std::span<const Example> examples, std::size_t& first, std::int64_t rows,
                 std::int64_t length, std::int32_t padding, const MaskOptions& mask = {});

/// Targets that count.
std::int64_t target_count(const Batch& batch);

// ---- labelled texts -------------------------------------------------------------------------------

struct LabelledText {
  std::string text;
  std::int64_t label = 0;  // 0, 1, ...
};
struct LabelledSplit {
  std::vector<LabelledText> train, validation, test;
};
/// Takes as many texts of each class as the rarest has, drawn with `seed`, shuffles them, and splits them by
/// the shares of the first two parts. Error if a class is missing.
LabelledSplit balanced_split(std::vector<LabelledText> texts, std::int64_t classes, double train,
                             double validation, std::uint64_t seed);

/// Tokens of texts side by side: (B, T), filled up behind the end; `lengths` says where each ends.
struct TextBatch {
  Tensor inputs;  // (B, T) i32
  std::vector<std::int64_t> lengths;
  Tensor labels;  // (B) i32
};
/// `tokens` of each text, at most `longest` of them (its last ones are cut off). Error if a text is empty.
TextBatch collate_texts(std::span<const std::vector<std::int32_t>> tokens,
                        std::span<const std::int64_t> labels, std::int64_t longest, std::int32_t padding);

}  // namespace llm
