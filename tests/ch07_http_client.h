// A client for tests: a plain socket, which can misbehave as no library would.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>

namespace llm::testing {

struct HttpAnswer {
  int status = 0;  // 0: none came
  std::string head, body;
};

inline std::string post(std::string_view path, std::string_view body, std::string_view headers = "") {
  return "POST " + std::string(path) +
         " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n" +
         std::string(headers) + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         std::string(body);
}
inline std::string get(std::string_view path) {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
}

/// The text of a chunked body, as far as it goes; whole = false if its end is missing.
inline std::string join_chunks(std::string_view chunks, bool& whole) {
  std::string body;
  whole = false;
  while (true) {
    const std::size_t line = chunks.find("\r\n");
    if (line == std::string_view::npos) return body;
    const std::size_t size = std::stoul(std::string(chunks.substr(0, line)), nullptr, 16);
    if (size == 0) {
      whole = true;
      return body;
    }
    body += chunks.substr(line + 2, size);
    if (chunks.size() < line + 2 + size + 2) return body;
    chunks.remove_prefix(line + 2 + size + 2);
  }
}

class Client {
 public:
  explicit Client(int port, int receive_buffer = 0)
      : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_buffer > 0)
      ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~Client() { hang_up(); }
  Client(Client&& other) noexcept : socket_(std::exchange(other.socket_, -1)), connected_(other.connected_) {}
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connected_; }
  void hang_up() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }
  /// False if the server does not take it all.
  bool send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t count = ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
      if (count <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(count));
    }
    return true;
  }
  /// What comes until `end` has come, the server hangs up, or the time is over.
  std::string receive(std::string_view end = "", std::chrono::seconds patience = std::chrono::seconds(60)) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    std::string text;
    while (end.empty() || text.find(end) == std::string::npos) {
      pollfd p{socket_, POLLIN, 0};
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      if (left.count() <= 0 || ::poll(&p, 1, static_cast<int>(left.count())) <= 0) {
        ADD_FAILURE() << "the server left a client waiting; so far it got: " << text.substr(0, 300);
        break;
      }
      char buffer[65536];
      const ssize_t count = ::recv(socket_, buffer, sizeof buffer, 0);
      if (count <= 0) break;
      text.append(buffer, static_cast<std::size_t>(count));
    }
    return text;
  }
  /// The answer of a connection that the server closes behind it.
  HttpAnswer answer() { return parse(receive()); }

  static HttpAnswer parse(const std::string& text) {
    HttpAnswer answer;
    const std::size_t end = text.find("\r\n\r\n");
    if (end == std::string::npos || !text.starts_with("HTTP/1.")) return answer;
    answer.status = std::stoi(text.substr(9, 3));
    answer.head = text.substr(0, end);
    answer.body = text.substr(end + 4);
    if (answer.head.find("Transfer-Encoding: chunked") != std::string::npos) {
      bool whole = false;
      answer.body = join_chunks(std::string(answer.body), whole);
      if (!whole) answer.body += "[BROKEN OFF]";
    }
    return answer;
  }

 private:
  int socket_;
  bool connected_ = false;
};

inline HttpAnswer ask(int port, std::string_view request) {
  Client client(port);
  client.send(request);
  return client.answer();
}

}  // namespace llm::testing
