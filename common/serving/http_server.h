// A small HTTP server: one thread per connection, limits on everything, and a stop that always comes back.
//
// The protocol itself (parsing, chunked encoding, compression) is cpp-httplib's. What is ours is the sockets:
// who may connect, how long anything may take, and what happens when the other side is slow, gone, or too
// many. Chapter 7 uses it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace llm {

struct HttpLimits {
  std::int64_t connections = 1024;          // at a time; whoever comes on top is told 503
  std::int64_t head_bytes = 32 * 1024;      // of the request line and all headers: else 431
  std::int64_t body_bytes = 1 << 20;        // after decompression: else 413
  std::chrono::milliseconds read{15'000};   // for a whole request to arrive: else 408
  std::chrono::milliseconds write{15'000};  // without the other side taking a byte: then it is dropped
  std::chrono::milliseconds idle{10'000};   // between two requests of a connection
};

struct HttpRequest {
  std::string method, path, content_type, body;
  std::string origin, host;         // headers by which a browser's request is known
  std::function<bool()> peer_gone;  // true once the other side has hung up
};

/// Sends a piece of a streamed body; false when there is nobody to send it to any more.
using HttpWrite = std::function<bool(const std::string&)>;

struct HttpResponse {
  int status = 200;
  std::string type = "application/json";
  std::string body{};
  std::vector<std::pair<std::string, std::string>> headers{};
  std::function<void(const HttpWrite&)> stream{};  // if set, it writes the body, piece by piece
};

/// Called on the connection's thread. What it throws becomes a 500.
using HttpHandler = std::function<HttpResponse(const HttpRequest&)>;
/// The body of an error that the server itself reports: status and sentence -> JSON.
using HttpErrorBody = std::function<std::string(int status, const std::string& sentence)>;

class HttpServer {
 public:
  /// Listens on `address` (a name or number) and `port` (0: any free one) and serves at once. Error if it
  /// cannot.
  HttpServer(const std::string& address, int port, const HttpLimits& limits, HttpHandler handler,
             HttpErrorBody error_body);
  /// Hangs up on everybody; returns when all threads have ended.
  ~HttpServer();

  int port() const;
  /// Takes no more connections and no more requests, and gives those that are being answered up to `grace` to
  /// end. False if some have not.
  bool finish(std::chrono::milliseconds grace);

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace llm
