// `ch07_finetuning serve MODEL`: the model behind an HTTP server, until somebody stops it.
#include <fmt/format.h>
#include <sys/resource.h>

#include <csignal>

#include "ch07_finetuning/talking.h"
#include "common/core/error.h"
#include "common/model/huggingface.h"
#include "common/serving/model_server.h"

namespace llm::ch07 {

namespace {

/// Many systems let a program have 1,024 files and sockets until it asks for more.
void allow_connections(std::int64_t connections) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const auto wanted = std::min(limit.rlim_max, static_cast<rlim_t>(connections + 256));
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = wanted;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

void serve(const ServeCommand& command) {
  // The signals that end the program are waited for here, so no thread may be interrupted by them.
  sigset_t ends;
  sigemptyset(&ends);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&ends, signal);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  allow_connections(command.connections);

  const GptStage model = load_huggingface(command.model).placed(command.placement);
  const auto tokenizer = load_tokenizer(command.model);
  ModelServerOptions options;
  options.chat = load_chat_format(command.model);
  options.address = command.address;
  options.port = command.port;
  options.model_name = command.name;
  if (options.model_name.empty())
    options.model_name = std::filesystem::absolute(command.model / "").parent_path().filename();
  options.rows = command.streams;
  options.queue = command.queue;
  options.max_tokens = command.max_tokens;
  options.time = std::chrono::seconds(command.seconds);
  options.http.connections = command.connections;
  options.http.body_bytes = command.body_bytes;
  ModelServer server(model, *tokenizer, options);
  fmt::print("{} is served at {}\n", options.model_name, server.url());
  fmt::print("{} answers at a time over a cache of {:.1f} MB, {} more may wait; Ctrl-C ends\n",
             command.streams, static_cast<double>(server.cache_bytes()) / 1e6, command.queue);
  if (options.address != "127.0.0.1" && options.address != "localhost" && options.address != "::1")
    fmt::print("anybody who reaches this machine can use it: there are no passwords\n");

  int signal = 0;
  sigwait(&ends, &signal);
  const Scheduler::Load load = server.load();
  fmt::print("stopping; {} answers under way get {} seconds\n", load.running + load.waiting, command.grace);
  // Whoever asks twice means now.
  pthread_sigmask(SIG_UNBLOCK, &ends, nullptr);
  server.stop(std::chrono::seconds(command.grace));
  fmt::print("{} tokens in all\n", server.load().tokens);
}

}  // namespace llm::ch07
