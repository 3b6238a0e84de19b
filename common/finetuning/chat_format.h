// A conversation with a model in the form that it was taught. Chapter 7 explains it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "common/finetuning/examples.h"
#include "common/tokenizer/tokenizer.h"

namespace llm {

/// "chat" and "alpaca" are the templates of examples.h; a model that was taught none ("plain") just goes on
/// with the text of all turns.
struct ChatFormat {
  std::string name = "plain";

  /// The text that the answer follows. Alpaca knows one question: the last.
  std::string text(std::span<const Turn> turns) const;
  /// Its tokens; those of a template begin with an end-of-text token, as in training. Never empty, if the
  /// tokenizer has such a token. Error if the text has something that the tokenizer does not know.
  std::vector<std::int32_t> tokens(const Tokenizer& tokenizer, std::span<const Turn> turns) const;
  /// Where an answer ends, besides at an end-of-text token: where the model asks itself the next question.
  std::vector<std::string> stops() const;
  /// The space between prompt and answer is neither's: an answer begins behind it.
  bool answer_begins_with_space() const { return name == "chat"; }
};

/// The template that fine-tuning wrote down in the model's folder (finetuning.json), or plain. Error if the
/// file is damaged or names another.
ChatFormat load_chat_format(const std::filesystem::path& model_folder);

}  // namespace llm
