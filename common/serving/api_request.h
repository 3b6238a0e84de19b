// What a client of OpenAI's interface asks for: JSON -> a struct, or an error with the right status.
//
// The interface is the one that most programs which talk to a language model speak
// (platform.openai.com/docs/api-reference: completions, chat). What this server cannot do (tools, images,
// penalties ...) is refused by name rather than ignored. Chapter 7 explains it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/core/error.h"
#include "common/finetuning/examples.h"
#include "common/generation/sampling.h"

namespace llm {

/// An answer that is an error: status 4xx or 5xx, and the fields of OpenAI's error object.
struct ApiError : Error {
  ApiError(int http_status, const std::string& sentence, std::string which_param = {},
           std::string error_code = {})
      : Error(sentence), status(http_status), param(std::move(which_param)), code(std::move(error_code)) {}
  int status;
  std::string param, code;  // empty: null
};
/// {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}
std::string error_json(int status, std::string_view sentence, std::string_view param = {},
                       std::string_view code = {});
std::string error_json(const ApiError& error);

/// A prompt is text, or tokens that the client has made itself.
using ApiPrompt = std::variant<std::string, std::vector<std::int32_t>>;

struct ApiRequest {
  bool chat = false;
  std::string model;               // empty: not said
  std::vector<ApiPrompt> prompts;  // of a completion
  std::vector<Turn> messages;      // of a chat
  SamplingOptions sampling;
  bool seeded = false;                     // sampling.seed is the client's
  std::optional<std::int64_t> max_tokens;  // new ones
  std::int64_t n = 1;                      // answers per prompt
  std::vector<std::string> stop;
  bool stream = false;
  bool usage_in_stream = false;
  bool echo = false;  // a completion begins with its prompt
};

/// ApiError 400 that says what is wrong and where.
ApiRequest parse_completion_request(std::string_view body);
ApiRequest parse_chat_request(std::string_view body);

}  // namespace llm
