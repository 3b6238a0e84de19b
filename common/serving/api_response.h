// Answers in the form of OpenAI's interface: whole, or as server-sent events. Chapter 7 explains it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/serving/answer_text.h"

namespace llm {

struct ApiUsage {
  std::int64_t prompt_tokens = 0, completion_tokens = 0;
};

/// The answers to one request.
class ApiResponse {
 public:
  ApiResponse(bool chat, std::string model);

  struct Choice {
    std::string text, finish;
  };
  std::string whole(const std::vector<Choice>& choices, const ApiUsage& usage) const;

  // Events "data: {...}" with the blank line that ends them. A chat's answer begins with its role.
  std::string first_event(std::size_t choice) const;
  std::string event(const TextEvent& text) const;
  std::string usage_event(const ApiUsage& usage) const;
  static std::string error_event(const std::string& error_json);
  static std::string last_event() { return "data: [DONE]\n\n"; }

 private:
  bool chat_;
  std::string id_, model_;
  std::int64_t created_;
};

/// The list of models (there is one), and one model of it.
std::string models_json(const std::string& model, std::int64_t created);
std::string model_json(const std::string& model, std::int64_t created);

}  // namespace llm
