// Reading and writing a socket with deadlines. See http_connection.h.
#include "common/serving/http_connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace llm {

HttpConnection::HttpConnection(int socket, const HttpLimits& limits) : socket_(socket), limits_(limits) {}

HttpConnection::~HttpConnection() {
  ::close(socket_);
}

bool HttpConnection::wait(short events, Clock::time_point deadline) const {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    pollfd p{socket_, events, 0};
    const int ready = ::poll(&p, 1, static_cast<int>(std::min<std::int64_t>(left, 1'000'000)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

bool HttpConnection::wait_for_request(std::chrono::milliseconds timeout) {
  in_head_ = true;
  head_bytes_ = 0;
  has_written_ = false;
  if (begin_ == end_) {
    if (!wait(POLLIN, Clock::now() + timeout)) return false;
    const ssize_t count = ::recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (count <= 0) return false;
    begin_ = 0;
    end_ = static_cast<std::size_t>(count);
  }
  deadline_ = Clock::now() + limits_.read;
  return true;
}

bool HttpConnection::peer_gone() const {
  pollfd p{socket_, POLLRDHUP, 0};
  return ::poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0;
}

bool HttpConnection::is_readable() const {
  pollfd p{socket_, POLLIN, 0};
  return begin_ < end_ || ::poll(&p, 1, 0) > 0;
}

ssize_t HttpConnection::read(char* to, size_t size) {
  if (size == 0) return 0;
  if (begin_ == end_) {
    while (true) {
      if (!wait(POLLIN, deadline_)) {
        timed_out_ = true;
        return -1;
      }
      const ssize_t count = ::recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
      if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (count <= 0) return count;
      begin_ = 0;
      end_ = static_cast<std::size_t>(count);
      break;
    }
  }
  const std::size_t count = std::min(size, end_ - begin_);
  if (in_head_) {
    head_bytes_ += static_cast<std::int64_t>(count);
    if (head_bytes_ > limits_.head_bytes) {
      head_too_large_ = true;
      return -1;
    }
  }
  std::memcpy(to, buffer_.data() + begin_, count);
  begin_ += count;
  return static_cast<ssize_t>(count);
}

ssize_t HttpConnection::write(const char* from, size_t size) {
  has_written_ = true;
  std::size_t sent = 0;
  Clock::time_point deadline = Clock::now() + limits_.write;
  while (sent < size && !failed_) {
    const ssize_t count = ::send(socket_, from + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0) {
      sent += static_cast<std::size_t>(count);
      deadline = Clock::now() + limits_.write;
    } else if (count < 0 && errno == EINTR) {
      continue;
    } else if (count < 0 && errno == EAGAIN) {
      failed_ = !wait(POLLOUT, deadline);
    } else {
      failed_ = true;
    }
  }
  return failed_ ? -1 : static_cast<ssize_t>(sent);
}

void HttpConnection::say_goodbye() {
  ::shutdown(socket_, SHUT_WR);
  const Clock::time_point deadline =
      Clock::now() + std::min<std::chrono::milliseconds>(limits_.read, std::chrono::seconds(10));
  while (wait(POLLIN, std::min(deadline, Clock::now() + std::chrono::seconds(2)))) {
    const ssize_t count = ::recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) return;
  }
}

// Nobody here asks for addresses.
void HttpConnection::get_remote_ip_and_port(std::string&, int&) const {}
void HttpConnection::get_local_ip_and_port(std::string&, int&) const {}

}  // namespace llm
