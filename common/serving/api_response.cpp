// See api_response.h.
#include "common/serving/api_response.h"

#include <fmt/format.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <random>

namespace llm {

namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}
std::string data(const Json& json) {
  return "data: " + dump(json) + "\n\n";
}

Json usage_of(const ApiUsage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

Json finish_of(const std::string& finish) {
  return finish.empty() ? Json() : Json(finish);
}

Json describe_model(const std::string& model, std::int64_t created) {
  return {{"id", model}, {"object", "model"}, {"created", created}, {"owned_by", "you"}};
}

}  // namespace

ApiResponse::ApiResponse(bool chat, std::string model)
    : chat_(chat), model_(std::move(model)), created_(std::time(nullptr)) {
  std::random_device random;
  id_ = fmt::format("{}-{:08x}{:08x}{:08x}", chat ? "chatcmpl" : "cmpl", random(), random(), random());
}

std::string ApiResponse::whole(const std::vector<Choice>& choices, const ApiUsage& usage) const {
  Json list = Json::array();
  for (std::size_t i = 0; i < choices.size(); ++i) {
    Json choice = {{"index", i}};
    if (chat_)
      choice["message"] = {{"role", "assistant"}, {"content", choices[i].text}};
    else
      choice["text"] = choices[i].text;
    choice["logprobs"] = nullptr;
    choice["finish_reason"] = finish_of(choices[i].finish);
    list.push_back(std::move(choice));
  }
  return dump({{"id", id_},
               {"object", chat_ ? "chat.completion" : "text_completion"},
               {"created", created_},
               {"model", model_},
               {"choices", std::move(list)},
               {"usage", usage_of(usage)}});
}

std::string ApiResponse::first_event(std::size_t choice) const {
  if (!chat_) return "";
  const Json delta = {{"role", "assistant"}, {"content", ""}};
  return data(
      {{"id", id_},
       {"object", "chat.completion.chunk"},
       {"created", created_},
       {"model", model_},
       {"choices", Json::array({{{"index", choice}, {"delta", delta}, {"finish_reason", nullptr}}})}});
}

std::string ApiResponse::event(const TextEvent& text) const {
  Json choice = {{"index", text.choice}};
  if (chat_) {
    choice["delta"] = Json::object();
    if (!text.text.empty()) choice["delta"]["content"] = text.text;
  } else {
    choice["text"] = text.text;
    choice["logprobs"] = nullptr;
  }
  choice["finish_reason"] = finish_of(text.finish);
  return data({{"id", id_},
               {"object", chat_ ? "chat.completion.chunk" : "text_completion"},
               {"created", created_},
               {"model", model_},
               {"choices", Json::array({choice})}});
}

std::string ApiResponse::usage_event(const ApiUsage& usage) const {
  return data({{"id", id_},
               {"object", chat_ ? "chat.completion.chunk" : "text_completion"},
               {"created", created_},
               {"model", model_},
               {"choices", Json::array()},
               {"usage", usage_of(usage)}});
}

std::string ApiResponse::error_event(const std::string& error_json) {
  return "data: " + error_json + "\n\n";
}

std::string models_json(const std::string& model, std::int64_t created) {
  return dump({{"object", "list"}, {"data", Json::array({describe_model(model, created)})}});
}
std::string model_json(const std::string& model, std::int64_t created) {
  return dump(describe_model(model, created));
}

}  // namespace llm
