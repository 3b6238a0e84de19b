// From the tokens of a request's sequences to the text that its reader gets: whole characters, up to the
// first stop string or special token. Part of the server (chapter 7).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/generation/stop_text.h"
#include "common/serving/scheduler.h"
#include "common/tokenizer/stream_text.h"
#include "common/tokenizer/tokenizer.h"

namespace llm {

/// Some more text of an answer, or its end.
struct TextEvent {
  std::size_t choice = 0;
  std::string text;
  std::string finish;  // "stop" or "length" at the end, in OpenAI's words
};

class AnswerText {
 public:
  /// With `skip_space` a space at an answer's very beginning is left out.
  AnswerText(const Tokenizer& tokenizer, std::shared_ptr<Mailbox> mailbox, std::size_t choices,
             const std::vector<std::string>& stops, bool skip_space = false);
  /// Whoever stops reading before the end cancels what is still running.
  ~AnswerText();
  AnswerText(const AnswerText&) = delete;
  AnswerText& operator=(const AnswerText&) = delete;

  /// What is new; waits up to `timeout` for something. Empty: nothing came. Error: the sequences were ended
  /// by the scheduler.
  std::vector<TextEvent> wait(std::chrono::milliseconds timeout);
  bool done() const { return open_ == 0; }
  std::int64_t tokens() const { return tokens_; }

 private:
  struct Choice {
    StreamText characters;
    StopText text;
    bool skip_space = false, done = false;
  };
  void take(const TokenEvent& event, std::vector<TextEvent>& out);

  const Tokenizer& tokenizer_;
  std::shared_ptr<Mailbox> mailbox_;
  std::vector<Choice> choices_;
  std::size_t open_;
  std::int64_t tokens_ = 0;
};

}  // namespace llm
