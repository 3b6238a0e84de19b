// One connection as cpp-httplib reads and writes it, with deadlines. Part of http_server.h.
#pragma once

#include <httplib.h>

#include <array>
#include <chrono>
#include <string>

#include "common/serving/http_server.h"

namespace llm {

/// Owns the socket. Each wait is one poll(), which ends when data comes, the deadline passes, or somebody
/// shuts the socket down.
class HttpConnection final : public httplib::Stream {
 public:
  using Clock = std::chrono::steady_clock;

  HttpConnection(int socket, const HttpLimits& limits);
  ~HttpConnection() override;
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  /// Waits for the first byte of a request, and starts its clock. False if none comes.
  bool wait_for_request(std::chrono::milliseconds timeout);
  /// From here on the bytes are the body's.
  void begin_body() { in_head_ = false; }
  /// The other side has hung up (or said that it will send no more, which for us is the same).
  bool peer_gone() const;
  /// Tells the other side that this was all, and takes what it may still be sending for a while: who closes
  /// with bytes unread, resets the connection, and the answer is lost with it.
  void say_goodbye();

  bool head_too_large() const { return head_too_large_; }
  bool timed_out() const { return timed_out_; }
  bool has_written() const { return has_written_; }

  // httplib::Stream. wait_readable, wait_writable and duration came with later versions.
  bool is_readable() const override;
  bool is_writable() const override { return !failed_ && !peer_gone(); }
  bool wait_readable() const { return is_readable(); }
  bool wait_writable() const { return is_writable(); }
  time_t duration() const { return 0; }
  ssize_t read(char* to, size_t size) override;
  ssize_t write(const char* from, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return socket_; }

 private:
  bool wait(short events, Clock::time_point deadline) const;

  int socket_;
  HttpLimits limits_;
  std::array<char, 16 * 1024> buffer_;
  std::size_t begin_ = 0, end_ = 0;  // of what was received and not yet read
  Clock::time_point deadline_;       // for the request to arrive
  std::int64_t head_bytes_ = 0;
  bool in_head_ = true, head_too_large_ = false, timed_out_ = false, has_written_ = false, failed_ = false;
};

}  // namespace llm
