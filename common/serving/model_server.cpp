// Requests to sequences to answers. See model_server.h.
#include "common/serving/model_server.h"

#include <ctime>
#include <nlohmann/json.hpp>
#include <random>

#include "common/serving/answer_text.h"
#include "common/serving/api_response.h"
#include "common/serving/page.h"

namespace llm {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kLook{
    100};  // how often a waiting answer looks whether it is still wanted

/// A page on another site may make a browser send requests to this server; it shall not.
bool from_elsewhere(const HttpRequest& request) {
  return !request.origin.empty() && request.origin != "http://" + request.host &&
         request.origin != "https://" + request.host;
}

HttpResponse with_methods(const std::string& allowed) {
  return {.status = 405,
          .body = error_json(405, "this address takes " + allowed),
          .headers = {{"Allow", allowed}}};
}

}  // namespace

/// A request that has been accepted.
struct ModelServer::Job {
  ApiRequest asked;
  ApiResponse response;
  AnswerText text;
  std::vector<std::string> begins;  // what each answer begins with (echo)
  ApiUsage usage;
  Clock::time_point deadline;
};

ModelServer::ModelServer(const GptStage& model, const Tokenizer& tokenizer, const ModelServerOptions& options)
    : model_(model),
      tokenizer_(tokenizer),
      options_(options),
      created_(std::time(nullptr)),
      scheduler_(model, options.rows, options.queue) {
  check(tokenizer.vocab_size() == model.config().vocab_size,
        "the tokenizer has {} tokens, but the model has {}: they do not belong together",
        tokenizer.vocab_size(), model.config().vocab_size);
  http_ = std::make_unique<HttpServer>(
      options.address, options.port, options.http,
      [this](const HttpRequest& request) { return answer(request); },
      [](int status, const std::string& sentence) { return error_json(status, sentence); });
}

ModelServer::~ModelServer() {
  stop(std::chrono::milliseconds(0));
}

void ModelServer::stop(std::chrono::milliseconds grace) {
  const bool ended = http_->finish(grace);
  scheduler_.stop();  // what has not ended ends now
  if (!ended) http_->finish(std::chrono::seconds(2));
}

std::string ModelServer::url() const {
  const bool number6 = options_.address.find(':') != std::string::npos;
  return fmt::format("http://{}:{}", number6 ? "[" + options_.address + "]" : options_.address, port());
}

HttpResponse ModelServer::answer(const HttpRequest& request) {
  try {
    return route(request);
  } catch (const ApiError& error) {
    HttpResponse response{.status = error.status, .body = error_json(error)};
    if (error.status == 503) response.headers.emplace_back("Retry-After", "1");
    return response;
  }
}

HttpResponse ModelServer::route(const HttpRequest& request) {
  const bool get = request.method == "GET" || request.method == "HEAD", post = request.method == "POST";
  const std::string& path = request.path;
  if (path == "/v1/completions" || path == "/v1/chat/completions") {
    if (!post) return with_methods("POST");
    if (from_elsewhere(request)) throw ApiError(403, "requests from other sites' pages are not answered");
    return complete(request, path == "/v1/completions" ? parse_completion_request(request.body)
                                                       : parse_chat_request(request.body));
  }
  if (path == "/" || path == "/healthz" || path == "/v1/models" || path.starts_with("/v1/models/")) {
    if (!get) return with_methods("GET, HEAD");
    if (path == "/") return {.type = "text/html; charset=utf-8", .body = std::string(kServerPage)};
    if (path == "/healthz") {
      const Scheduler::Load load = scheduler_.load();
      const nlohmann::ordered_json json = {{"status", "ok"},          {"model", options_.model_name},
                                           {"running", load.running}, {"waiting", load.waiting},
                                           {"tokens", load.tokens},   {"context", model_.config().context}};
      return {.body = json.dump()};
    }
    if (path == "/v1/models") return {.body = models_json(options_.model_name, created_)};
    if (path.substr(11) == options_.model_name) return {.body = model_json(options_.model_name, created_)};
    throw ApiError(
        404, fmt::format("there is no model '{}' here; there is '{}'", path.substr(11), options_.model_name),
        "model", "model_not_found");
  }
  throw ApiError(404, fmt::format("there is nothing at {}", path));
}

std::vector<std::vector<std::int32_t>> ModelServer::prompts_of(const ApiRequest& asked) const {
  std::vector<ApiPrompt> prompts = asked.prompts;
  if (asked.chat) prompts = {std::string()};
  std::vector<std::vector<std::int32_t>> all;
  for (const ApiPrompt& prompt : prompts) {
    std::vector<std::int32_t> tokens;
    if (const auto* given = std::get_if<std::vector<std::int32_t>>(&prompt)) {
      tokens = *given;
    } else {
      try {
        tokens = asked.chat ? options_.chat.tokens(tokenizer_, asked.messages)
                            : tokenizer_.encode(std::get<std::string>(prompt));
      } catch (const Error& error) {  // a character that the tokenizer does not know
        throw ApiError(400, error.what(), asked.chat ? "messages" : "prompt");
      }
      // A text begins where the one before ended.
      if (tokens.empty() && tokenizer_.end_of_text()) tokens.push_back(*tokenizer_.end_of_text());
    }
    const std::int64_t context = model_.config().context;
    if (static_cast<std::int64_t>(tokens.size()) >= context)
      throw ApiError(
          400,
          fmt::format("the prompt has {} tokens, and the model's context of {} must hold an answer too",
                      tokens.size(), context),
          asked.chat ? "messages" : "prompt", "context_length_exceeded");
    all.push_back(std::move(tokens));
  }
  return all;
}

std::shared_ptr<ModelServer::Job> ModelServer::start(const ApiRequest& asked) {
  const auto prompts = prompts_of(asked);
  ApiUsage usage;
  std::vector<Scheduler::Sequence> sequences;
  std::vector<std::string> begins;
  std::uint64_t seed = asked.sampling.seed;
  if (!asked.seeded) {
    std::random_device random;
    seed = std::uint64_t{random()} << 32 | random();
  }
  for (const auto& prompt : prompts) {
    const auto length = static_cast<std::int64_t>(prompt.size());
    usage.prompt_tokens += length;
    for (std::int64_t i = 0; i < asked.n; ++i) {
      GenerateOptions options;
      options.sampling = asked.sampling;
      options.sampling.seed = seed;
      options.max_new_tokens = std::min({asked.max_tokens.value_or(options_.max_tokens), options_.max_tokens,
                                         model_.config().context - length});
      options.stop_token = tokenizer_.end_of_text();
      sequences.push_back({prompt, options, static_cast<std::uint64_t>(i)});
      StreamText characters;
      begins.push_back(asked.echo ? characters.push(tokenizer_.decode(prompt)) + characters.finish() : "");
    }
    if (static_cast<std::int64_t>(sequences.size()) > options_.rows + options_.queue)
      throw ApiError(
          400, fmt::format("a request may have {} answers at most", options_.rows + options_.queue), "n");
  }
  std::vector<std::string> stops = asked.stop;
  if (asked.chat)
    for (std::string& stop : options_.chat.stops()) stops.push_back(std::move(stop));
  const std::size_t count = sequences.size();
  std::shared_ptr<Mailbox> mailbox;
  try {
    mailbox = scheduler_.submit(std::move(sequences));
  } catch (const Error& error) {
    throw ApiError(400, error.what(), asked.chat ? "messages" : "prompt");
  }
  if (!mailbox) throw ApiError(503, "too many requests are waiting; try again", "", "overloaded");
  return std::shared_ptr<Job>(new Job{
      asked, ApiResponse(asked.chat, options_.model_name),
      AnswerText(tokenizer_, mailbox, count, stops, asked.chat && options_.chat.answer_begins_with_space()),
      std::move(begins), usage, Clock::now() + options_.time});
}

HttpResponse ModelServer::complete(const HttpRequest& request, const ApiRequest& asked) {
  if (!asked.model.empty() && asked.model != options_.model_name)
    throw ApiError(
        404, fmt::format("there is no model '{}' here; there is '{}'", asked.model, options_.model_name),
        "model", "model_not_found");
  const std::shared_ptr<Job> job = start(asked);
  if (!asked.stream) return answer_whole(job, request);
  return {.type = "text/event-stream",
          .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}},
          .stream = [this, job](const HttpWrite& write) { answer_in_pieces(*job, write); }};
}

HttpResponse ModelServer::answer_whole(const std::shared_ptr<Job>& job, const HttpRequest& request) const {
  std::vector<ApiResponse::Choice> choices;
  for (const std::string& begin : job->begins) choices.push_back({begin, ""});
  while (!job->text.done()) {
    try {
      for (const TextEvent& event : job->text.wait(kLook)) {
        choices[event.choice].text += event.text;
        choices[event.choice].finish = event.finish;
      }
    } catch (const Error& error) {
      throw ApiError(503, error.what());
    }
    if (request.peer_gone()) return {.status = 499};  // nobody will read it
    if (Clock::now() > job->deadline && !job->text.done())
      throw ApiError(504, fmt::format("the answer took more than {} seconds", options_.time.count()));
  }
  job->usage.completion_tokens = job->text.tokens();
  return {.body = job->response.whole(choices, job->usage)};
}

void ModelServer::answer_in_pieces(Job& job, const HttpWrite& write) const {
  std::string first;
  for (std::size_t i = 0; i < job.begins.size(); ++i) {
    first += job.response.first_event(i);
    if (!job.begins[i].empty())
      first += job.response.event({.choice = i, .text = job.begins[i], .finish = {}});
  }
  if (!first.empty() && !write(first)) return;
  const auto end = [&](int status, const std::string& sentence) {
    write(ApiResponse::error_event(error_json(status, sentence)));
  };
  auto spoken = Clock::now();
  while (!job.text.done()) {
    std::string piece;
    try {
      for (const TextEvent& event : job.text.wait(kLook)) piece += job.response.event(event);
    } catch (const Error& error) {
      return end(503, error.what());
    }
    if (Clock::now() > job.deadline)
      return end(504, fmt::format("the answer took more than {} seconds", options_.time.count()));
    if (piece.empty() && Clock::now() - spoken > std::chrono::seconds(1))
      piece = ": still here\n\n";  // a comment
    if (piece.empty()) continue;
    spoken = Clock::now();
    if (!write(piece)) return;
  }
  job.usage.completion_tokens = job.text.tokens();
  if (job.asked.usage_in_stream && !write(job.response.usage_event(job.usage))) return;
  write(ApiResponse::last_event());
}

}  // namespace llm
