// A model behind an HTTP server: OpenAI's interface, and one page to talk to it. Chapter 7 explains it.
//
//   POST /v1/completions, /v1/chat/completions     GET /v1/models, /healthz, /
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "common/finetuning/chat_format.h"
#include "common/model/gpt.h"
#include "common/serving/api_request.h"
#include "common/serving/http_server.h"
#include "common/serving/scheduler.h"
#include "common/tokenizer/tokenizer.h"

namespace llm {

struct ModelServerOptions {
  std::string address = "127.0.0.1";
  int port = 8080;  // 0: any free one
  std::string model_name = "model";
  ChatFormat chat;                 // of the model
  std::int64_t rows = 8;           // sequences decoded together
  std::int64_t queue = 64;         // sequences that may wait for a row; whoever comes on top is told 503
  std::int64_t max_tokens = 1024;  // of one answer
  std::chrono::seconds time{120};  // for one answer, waiting included: else 504
  HttpLimits http;
};

class ModelServer {
 public:
  /// Serves at once. Model and tokenizer must outlive it. Error if the address cannot be listened on.
  ModelServer(const GptStage& model, const Tokenizer& tokenizer, const ModelServerOptions& options);
  /// stop(0).
  ~ModelServer();

  int port() const { return http_->port(); }
  std::string url() const;
  Scheduler::Load load() const { return scheduler_.load(); }
  std::int64_t cache_bytes() const { return scheduler_.cache_bytes(); }

  /// Takes no more requests; answers under way get up to `grace` to end, then they end with an error.
  void stop(std::chrono::milliseconds grace);

 private:
  struct Job;
  HttpResponse answer(const HttpRequest& request);
  HttpResponse route(const HttpRequest& request);
  HttpResponse complete(const HttpRequest& request, const ApiRequest& asked);
  std::vector<std::vector<std::int32_t>> prompts_of(const ApiRequest& asked) const;
  std::shared_ptr<Job> start(const ApiRequest& asked);
  HttpResponse answer_whole(const std::shared_ptr<Job>& job, const HttpRequest& request) const;
  void answer_in_pieces(Job& job, const HttpWrite& write) const;

  const GptStage& model_;
  const Tokenizer& tokenizer_;
  ModelServerOptions options_;
  std::int64_t created_;
  Scheduler scheduler_;
  std::unique_ptr<HttpServer> http_;  // last: its threads use all the others
};

}  // namespace llm
