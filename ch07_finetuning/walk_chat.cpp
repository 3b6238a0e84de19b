// `ch07_finetuning chat MODEL`: a conversation in the terminal, word by word.
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "ch07_finetuning/talking.h"
#include "common/core/error.h"
#include "common/finetuning/chat_format.h"
#include "common/generation/generate.h"
#include "common/generation/stop_text.h"
#include "common/model/huggingface.h"
#include "common/text/utf8.h"
#include "common/tokenizer/stream_text.h"
#include "common/tokenizer/tokenizer.h"

namespace llm::ch07 {

namespace {

std::atomic<bool> answering{false}, interrupted{false};

/// Ctrl-C ends the answer under way; without one, the program.
void on_interrupt(int) {
  if (!answering || interrupted) {
    static_cast<void>(::write(STDOUT_FILENO, "\n", 1));
    ::_exit(130);
  }
  interrupted = true;
}

void say(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

/// A line, or several: one that ends with a backslash goes on in the next. False at the end of the input.
bool read_lines(std::string& text) {
  text.clear();
  for (std::string line; std::getline(std::cin, line); text += '\n') {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const bool more = !line.empty() && line.back() == '\\';
    if (more) line.pop_back();
    text += line;
    if (!more) return true;
  }
  return !text.empty();
}

class Conversation {
 public:
  Conversation(const ChatCommand& command, const GptStage& model, const Tokenizer& tokenizer)
      : command_(command), model_(model), tokenizer_(tokenizer), format_(load_chat_format(command.model)) {}

  void forget() { turns_.clear(); }

  void answer(const std::string& line) {
    turns_.push_back({"user", line});
    const std::vector<std::int32_t> prompt = fitting_prompt();
    GenerateOptions options;
    options.sampling = {.temperature = command_.temperature,
                        .top_k = command_.top_k,
                        .top_p = command_.top_p,
                        .seed = command_.seed + answers_++};
    options.max_new_tokens = command_.max_tokens;
    options.stop_token = tokenizer_.end_of_text();
    StreamText characters;
    StopText text(format_.stops());
    std::string all;
    bool skip_space = format_.answer_begins_with_space();
    const auto print = [&](std::string more) {
      if (skip_space && !more.empty()) {
        if (more.front() == ' ') more.erase(0, 1);
        skip_space = false;
      }
      all += more;
      say(more);
    };
    answering = true;
    const auto start = std::chrono::steady_clock::now();
    const Generated result = generate(model_, prompt, options, [&](std::int32_t token) {
      print(text.push(characters.push(tokenizer_.token_bytes(token))));
      return !text.stopped() && !interrupted;
    });
    if (!text.stopped()) print(text.push(characters.finish()) + text.finish());
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    say("\n");
    answering = interrupted = false;
    if (::isatty(STDERR_FILENO))
      fmt::print(stderr, "\033[2m{} tokens, {:.0f} per second\033[0m\n", result.tokens.size(),
                 static_cast<double>(result.tokens.size()) / seconds);
    turns_.push_back({"assistant", all});
  }

 private:
  /// The conversation's tokens; where they leave less than an eighth of the context for an answer, its oldest
  /// messages are forgotten.
  std::vector<std::int32_t> fitting_prompt() {
    while (true) {
      std::vector<std::int32_t> prompt = format_.tokens(tokenizer_, turns_);
      const std::int64_t context = model_.config().context;
      if (turns_.size() < 3 || static_cast<std::int64_t>(prompt.size()) <= context - context / 8)
        return prompt;
      turns_.erase(turns_.begin(), turns_.begin() + 2);
    }
  }

  const ChatCommand& command_;
  const GptStage& model_;
  const Tokenizer& tokenizer_;
  ChatFormat format_;
  std::vector<Turn> turns_;
  std::uint64_t answers_ = 0;
};

}  // namespace

void chat(const ChatCommand& command) {
  validate(
      SamplingOptions{.temperature = command.temperature, .top_k = command.top_k, .top_p = command.top_p});
  const GptStage model = load_huggingface(command.model).placed(command.placement);
  const auto tokenizer = load_tokenizer(command.model);
  check(tokenizer->vocab_size() == model.config().vocab_size,
        "the tokenizer in {} has {} tokens, but the model has {}: they do not belong together",
        command.model.string(), tokenizer->vocab_size(), model.config().vocab_size);
  const bool person = ::isatty(STDIN_FILENO) != 0;
  if (person) {
    struct sigaction action {};
    action.sa_handler = on_interrupt;
    ::sigaction(SIGINT, &action, nullptr);
    fmt::print(stderr,
               "Say something (a line that ends with \\ goes on in the next). /reset begins anew, /quit "
               "ends; Ctrl-C ends an answer, then the program.\n");
  }
  Conversation conversation(command, model, *tokenizer);
  for (std::string line; (person ? say("> ") : void()), read_lines(line);) {
    std::int64_t replaced = 0;
    line = replace_invalid_utf8(line, replaced);
    if (line == "/quit" || line == "/exit") return;
    if (line == "/reset") {
      conversation.forget();
      if (person) fmt::print(stderr, "It remembers nothing of this.\n");
      continue;
    }
    if (line.starts_with("/")) {
      fmt::print(stderr, "There is no command {}; there are /reset and /quit.\n", line);
      continue;
    }
    if (line.empty()) continue;
    try {
      conversation.answer(line);
    } catch (const UsageError&) {
      throw;
    } catch (const Error& error) {  // this line cannot be answered; the next one may
      fmt::print(stderr, "{}\n", error.what());
      conversation.forget();
    }
  }
  if (person) say("\n");
}

}  // namespace llm::ch07
