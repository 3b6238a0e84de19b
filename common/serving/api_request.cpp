// Parsing requests. See api_request.h.
#include "common/serving/api_request.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "common/text/utf8.h"

namespace llm {

namespace {

using Json = nlohmann::json;

[[noreturn]] void refuse(const std::string& param, const std::string& sentence,
                         const std::string& code = {}) {
  throw ApiError(400, sentence, param, code);
}

Json parse_json(std::string_view body) {
  if (const std::size_t at = find_invalid_utf8(body); at != std::string_view::npos)
    throw ApiError(400, "the body is not UTF-8: " + describe_invalid_utf8(body, at, at));
  Json json;
  try {
    json = Json::parse(body);
  } catch (const Json::parse_error& error) {
    throw ApiError(400, fmt::format("the body is not JSON: it stops making sense at byte {}", error.byte));
  }
  if (!json.is_object()) throw ApiError(400, "the body must be a JSON object");
  return json;
}

/// Fields of the object, by name; absent and null are the same.
class Fields {
 public:
  explicit Fields(const Json& json) : json_(json) {}

  const Json* find(const std::string& name) const {
    const auto field = json_.find(name);
    return field == json_.end() || field->is_null() ? nullptr : &*field;
  }
  bool flag(const std::string& name) const {
    const Json* field = find(name);
    if (!field) return false;
    if (!field->is_boolean()) refuse(name, fmt::format("'{}' must be true or false", name));
    return field->get<bool>();
  }
  std::optional<double> number(const std::string& name, double low, double high) const {
    const Json* field = find(name);
    if (!field) return {};
    const double value = field->is_number() ? field->get<double>() : std::numeric_limits<double>::quiet_NaN();
    if (!(value >= low && value <= high))
      refuse(name, fmt::format("'{}' must be a number from {} to {}", name, low, high));
    return value;
  }
  std::optional<std::int64_t> whole(const std::string& name, std::int64_t low, std::int64_t high) const {
    const Json* field = find(name);
    if (!field) return {};
    if (!field->is_number_integer() ||
        (field->is_number_unsigned() && field->get<std::uint64_t>() > INT64_MAX) ||
        field->get<std::int64_t>() < low || field->get<std::int64_t>() > high)
      refuse(name, fmt::format("'{}' must be a whole number from {} to {}", name, low, high));
    return field->get<std::int64_t>();
  }
  std::string text(const std::string& name) const {
    const Json* field = find(name);
    if (!field) return {};
    if (!field->is_string()) refuse(name, fmt::format("'{}' must be a string", name));
    return field->get<std::string>();
  }
  /// Refuses a field that asks for something this server does not have.
  void without(const std::string& name, bool asked) const {
    if (asked) refuse(name, fmt::format("this server has no '{}'", name), "unsupported_parameter");
  }
  bool filled(const std::string& name) const {
    const Json* field = find(name);
    return field && !(field->is_structured() && field->empty()) && *field != false && *field != 0 &&
           *field != "";
  }

 private:
  const Json& json_;
};

std::vector<std::string> parse_stop(const Json* field) {
  if (!field) return {};
  std::vector<std::string> stops;
  const auto take = [&](const Json& stop) {
    if (!stop.is_string() || stop.get_ref<const std::string&>().empty())
      refuse("stop", "'stop' must be a string or up to 4 strings, none of them empty");
    stops.push_back(stop.get<std::string>());
  };
  if (!field->is_array())
    take(*field);
  else
    for (const Json& stop : *field) take(stop);
  if (stops.size() > 4) refuse("stop", "'stop' may have 4 strings at most");
  return stops;
}

ApiRequest parse_common(const Fields& fields) {
  ApiRequest request;
  request.model = fields.text("model");
  request.sampling.temperature = static_cast<float>(fields.number("temperature", 0, 2).value_or(1));
  request.sampling.top_p = static_cast<float>(fields.number("top_p", 0, 1).value_or(1));
  if (request.sampling.top_p <= 0) refuse("top_p", "'top_p' must be above 0");
  request.sampling.top_k = fields.whole("top_k", 0, INT32_MAX).value_or(0);
  if (const auto seed = fields.whole("seed", INT64_MIN, INT64_MAX)) {
    request.sampling.seed = static_cast<std::uint64_t>(*seed);
    request.seeded = true;
  }
  request.n = fields.whole("n", 1, 128).value_or(1);
  request.stop = parse_stop(fields.find("stop"));
  request.stream = fields.flag("stream");
  if (const Json* options = fields.find("stream_options")) {
    if (!options->is_object()) refuse("stream_options", "'stream_options' must be an object");
    if (!request.stream) refuse("stream_options", "'stream_options' is for requests with 'stream'");
    request.usage_in_stream = Fields(*options).flag("include_usage");
  }
  for (const char* name :
       {"presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "tools", "functions"})
    fields.without(name, fields.filled(name));
  return request;
}

ApiPrompt parse_tokens(const Json& list) {
  std::vector<std::int32_t> tokens;
  for (const Json& token : list) {
    if (!token.is_number_integer() || token.get<std::int64_t>() < 0 || token.get<std::int64_t>() > INT32_MAX)
      refuse("prompt", "a 'prompt' of tokens must be whole numbers, none negative");
    tokens.push_back(token.get<std::int32_t>());
  }
  return tokens;
}

std::vector<ApiPrompt> parse_prompts(const Json* field) {
  if (!field) return {std::string()};
  if (field->is_string()) return {field->get<std::string>()};
  if (!field->is_array() || field->empty())
    refuse("prompt", "'prompt' must be a string, tokens, or a list of one of them");
  if (field->front().is_number()) return {parse_tokens(*field)};
  std::vector<ApiPrompt> prompts;
  for (const Json& prompt : *field) {
    if (prompt.is_string())
      prompts.emplace_back(prompt.get<std::string>());
    else if (prompt.is_array())
      prompts.push_back(parse_tokens(prompt));
    else
      refuse("prompt", "'prompt' must be a string, tokens, or a list of one of them");
  }
  return prompts;
}

/// A message's text: a string, or parts that are all text.
std::string parse_content(const Json& message, const std::string& where) {
  const auto content = message.find("content");
  if (content != message.end() && content->is_string()) return content->get<std::string>();
  if (content == message.end() || !content->is_array())
    refuse(where + ".content", "a message's 'content' must be a string or a list of text parts");
  std::string text;
  for (const Json& part : *content) {
    if (!part.is_object() || part.value("type", Json()) != "text" || !part.contains("text") ||
        !part["text"].is_string())
      refuse(where + ".content",
             "this server reads only text: a part must be {\"type\": \"text\", \"text\": ...}");
    text += part["text"].get<std::string>();
  }
  return text;
}

std::vector<Turn> parse_messages(const Json* field) {
  if (!field || !field->is_array() || field->empty())
    refuse("messages", "'messages' must be a list of at least one message");
  std::vector<Turn> messages;
  for (const Json& message : *field) {
    const std::string where = fmt::format("messages[{}]", messages.size());
    if (!message.is_object()) refuse(where, "a message must be an object with 'role' and 'content'");
    Json role = message.value("role", Json());
    if (role == "developer") role = "system";  // the newer name
    if (role != "system" && role != "user" && role != "assistant")
      refuse(where + ".role", "a message's 'role' must be system, user or assistant");
    messages.push_back({role.get<std::string>(), parse_content(message, where)});
  }
  return messages;
}

}  // namespace

std::string error_json(int status, std::string_view sentence, std::string_view param, std::string_view code) {
  const auto or_null = [](std::string_view text) { return text.empty() ? Json() : Json(text); };
  const Json json = {{"error",
                      {{"message", sentence},
                       {"type", status < 500 ? "invalid_request_error" : "server_error"},
                       {"param", or_null(param)},
                       {"code", or_null(code)}}}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string error_json(const ApiError& error) {
  return error_json(error.status, error.what(), error.param, error.code);
}

ApiRequest parse_completion_request(std::string_view body) {
  const Json json = parse_json(body);
  const Fields fields(json);
  ApiRequest request = parse_common(fields);
  request.prompts = parse_prompts(fields.find("prompt"));
  request.max_tokens = fields.whole("max_tokens", 1, INT32_MAX).value_or(16);  // OpenAI's default
  request.echo = fields.flag("echo");
  fields.without("suffix", fields.filled("suffix"));
  fields.without("best_of", fields.whole("best_of", 1, 128).value_or(request.n) != request.n);
  return request;
}

ApiRequest parse_chat_request(std::string_view body) {
  const Json json = parse_json(body);
  const Fields fields(json);
  ApiRequest request = parse_common(fields);
  request.chat = true;
  request.messages = parse_messages(fields.find("messages"));
  request.max_tokens = fields.whole("max_completion_tokens", 1, INT32_MAX);  // the newer name
  if (!request.max_tokens) request.max_tokens = fields.whole("max_tokens", 1, INT32_MAX);
  fields.without("top_logprobs", fields.filled("top_logprobs"));
  if (const Json* format = fields.find("response_format"))
    fields.without("response_format", !format->is_object() || format->value("type", Json()) != "text");
  return request;
}

}  // namespace llm
