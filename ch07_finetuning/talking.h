// The commands that talk: `chat` in the terminal, `serve` over HTTP.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/model/gpt.h"

namespace llm::ch07 {

struct ChatCommand {
  std::filesystem::path model;
  float temperature = 0.8F, top_p = 0.95F;
  std::int64_t top_k = 0, max_tokens = 256;
  std::uint64_t seed = 42;
  Placement placement;
};
/// Reads lines, answers each; ends with the input, /quit or Ctrl-C.
void chat(const ChatCommand& command);

struct ServeCommand {
  std::filesystem::path model;
  std::string address = "127.0.0.1", name;
  int port = 8080;
  std::int64_t streams = 8, queue = 64, max_tokens = 1024, connections = 1024;
  std::int64_t body_bytes = 1 << 20;
  std::int64_t seconds = 120, grace = 10;
  Placement placement;
};
/// Serves until SIGTERM or Ctrl-C.
void serve(const ServeCommand& command);

}  // namespace llm::ch07
