// See answer_text.h.
#include "common/serving/answer_text.h"

#include <algorithm>

#include "common/core/error.h"

namespace llm {

AnswerText::AnswerText(const Tokenizer& tokenizer, std::shared_ptr<Mailbox> mailbox, std::size_t choices,
                       const std::vector<std::string>& stops, bool skip_space)
    : tokenizer_(tokenizer), mailbox_(std::move(mailbox)), open_(choices) {
  for (std::size_t i = 0; i < choices; ++i)
    choices_.push_back({.characters = {}, .text = StopText(stops), .skip_space = skip_space});
}

AnswerText::~AnswerText() {
  mailbox_->cancel_all();
}

std::vector<TextEvent> AnswerText::wait(std::chrono::milliseconds timeout) {
  std::vector<TextEvent> out;
  for (const TokenEvent& event : mailbox_->wait(timeout)) {
    check(event.error.empty(), "{}", event.error);
    if (!choices_[event.choice].done) take(event, out);
  }
  return out;
}

void AnswerText::take(const TokenEvent& event, std::vector<TextEvent>& out) {
  Choice& choice = choices_[event.choice];
  TextEvent text{.choice = event.choice, .text = {}, .finish = {}};
  bool stop = event.finish == Finish::stop;
  if (event.token) {
    ++tokens_;
    const auto special = tokenizer_.special_tokens();
    if (std::find(special.begin(), special.end(), *event.token) != special.end())
      stop = true;  // the end of something, and no text
    else
      text.text = choice.text.push(choice.characters.push(tokenizer_.token_bytes(*event.token)));
  }
  stop = stop || choice.text.stopped();
  if (stop || event.finish != Finish::none) {
    if (!choice.text.stopped()) text.text += choice.text.push(choice.characters.finish());
    text.text += choice.text.finish();
    text.finish = stop || choice.text.stopped() ? "stop" : "length";
    choice.done = true;
    --open_;
    mailbox_->cancel(event.choice);
  }
  if (choice.skip_space && !text.text.empty()) {
    if (text.text.front() == ' ') text.text.erase(0, 1);
    choice.skip_space = false;
  }
  if (!text.text.empty() || !text.finish.empty()) out.push_back(std::move(text));
}

}  // namespace llm
