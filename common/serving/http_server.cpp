// Sockets and threads around cpp-httplib's protocol. See http_server.h.
#include "common/serving/http_server.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <list>
#include <mutex>
#include <thread>

#include "common/core/error.h"
#include "common/serving/http_connection.h"
#include "common/serving/http_protocol.h"

namespace llm {

namespace {

/// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  int number() const { return number_; }

 private:
  int number_;
};

Descriptor listen_on(const std::string& address, int port) {
  if (port < 0 || port > 65535) fail_usage("a port is a number from 0 to 65535, not {}", port);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int result = ::getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found);
  check(result == 0, "cannot serve on '{}': {}", address, gai_strerror(result));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, ::freeaddrinfo);
  int error = 0;
  for (const addrinfo* a = found; a; a = a->ai_next) {
    Descriptor socket(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
    const int yes = 1;  // a port that was in use a moment ago may be taken; one that is in use may not
    ::setsockopt(socket.number(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (::bind(socket.number(), a->ai_addr, a->ai_addrlen) == 0 && ::listen(socket.number(), 1024) == 0)
      return socket;
    error = errno;
  }
  fail("cannot serve on {} port {}: {}", address, port, std::strerror(error));
}

int port_of(int socket) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  ::getsockname(socket, reinterpret_cast<sockaddr*>(&storage), &length);
  return ntohs(storage.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port
                                             : reinterpret_cast<sockaddr_in*>(&storage)->sin_port);
}

}  // namespace

class HttpServer::Implementation {
 public:
  Implementation(const std::string& address, int port, const HttpLimits& limits, HttpHandler handler,
                 HttpErrorBody error_body)
      : limits_(limits),
        listener_(listen_on(address, port)),
        wake_(::eventfd(0, EFD_CLOEXEC)),
        protocol_(listener_.number(), limits, std::move(handler), std::move(error_body)),
        port_(port_of(listener_.number())) {
    ::fcntl(listener_.number(), F_SETFL, O_NONBLOCK);
    accepting_ = std::thread([this] { accept_all(); });
  }

  ~Implementation() {
    finish(std::chrono::milliseconds(0));
    {
      const std::lock_guard lock(mutex_);
      for (const Worker& worker : workers_)
        if (worker.socket >= 0) ::shutdown(worker.socket, SHUT_RDWR);
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return active_ == 0; });
    for (Worker& worker : workers_) worker.thread.join();
  }

  int port() const { return port_; }

  bool finish(std::chrono::milliseconds grace) {
    stopping_ = true;
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(wake_.number(), &one, sizeof one);
    changed_.notify_all();
    if (accepting_.joinable()) accepting_.join();
    listener_ = Descriptor();
    std::unique_lock lock(mutex_);
    for (const Worker& worker : workers_)
      if (worker.socket >= 0 && !worker.busy) ::shutdown(worker.socket, SHUT_RD);
    return changed_.wait_for(lock, grace, [&] { return active_ == 0; });
  }

 private:
  struct Worker {
    std::thread thread;
    int socket = -1;  // -1 once its thread is done with it
    bool busy = false, done = false;
  };

  /// So many are told that there are too many; the rest waits until they have been.
  static constexpr std::int64_t kTurnedAway = 32;

  void accept_all() {
    while (!stopping_) {
      pollfd p[2] = {{listener_.number(), POLLIN, 0}, {wake_.number(), POLLIN, 0}};
      ::poll(p, 2, -1);
      if (stopping_) return;
      {
        std::unique_lock lock(mutex_);
        workers_.remove_if([](Worker& worker) {
          if (worker.done) worker.thread.join();
          return worker.done;
        });
        changed_.wait(lock, [&] { return stopping_ || active_ < limits_.connections + kTurnedAway; });
      }
      const int socket = ::accept4(listener_.number(), nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0) {
        // No more descriptors, or no memory: those that end will give some back.
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
          std::this_thread::sleep_for(std::chrono::milliseconds(10));
        continue;
      }
      start(socket);
    }
  }

  void start(int socket) {
    const int yes = 1;  // each piece of a stream goes out at once
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    const std::lock_guard lock(mutex_);
    const bool too_many = active_ >= limits_.connections;
    Worker& worker = workers_.emplace_back();
    worker.socket = socket;
    try {
      worker.thread = std::thread([this, &worker, too_many] { work(worker, too_many); });
      ++active_;
    } catch (const std::system_error&) {  // no more threads
      ::close(socket);
      workers_.pop_back();
    }
  }

  void work(Worker& worker, bool too_many) {
    {
      HttpConnection connection(worker.socket, limits_);
      talk(connection, worker, too_many);
      const std::lock_guard lock(mutex_);
      worker.socket = -1;
    }
    const std::lock_guard lock(mutex_);
    worker.done = true;
    --active_;
    changed_.notify_all();
  }

  void talk(HttpConnection& connection, Worker& worker, bool too_many) {
    constexpr int kRequests = 1000;  // of one connection
    const auto set_busy = [&](bool busy) {
      const std::lock_guard lock(mutex_);
      worker.busy = busy;
    };
    for (int i = 0; i < kRequests; ++i) {
      if (!connection.wait_for_request(i == 0 ? limits_.read : limits_.idle)) return;
      set_busy(true);
      const bool last = i + 1 == kRequests || too_many || stopping_;
      const HttpNext next = protocol_.answer(connection, last, too_many);
      set_busy(false);
      if (next == HttpNext::goodbye) connection.say_goodbye();
      if (next != HttpNext::request || stopping_) return;
    }
  }

  HttpLimits limits_;
  Descriptor listener_, wake_;
  HttpProtocol protocol_;
  int port_;
  std::atomic<bool> stopping_{false};
  std::thread accepting_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Worker> workers_;  // those that have ended too, until they are joined
  std::int64_t active_ = 0;
};

HttpServer::HttpServer(const std::string& address, int port, const HttpLimits& limits, HttpHandler handler,
                       HttpErrorBody error_body)
    : implementation_(std::make_unique<Implementation>(address, port, limits, std::move(handler),
                                                       std::move(error_body))) {}
HttpServer::~HttpServer() = default;
int HttpServer::port() const {
  return implementation_->port();
}
bool HttpServer::finish(std::chrono::milliseconds grace) {
  return implementation_->finish(grace);
}

}  // namespace llm
