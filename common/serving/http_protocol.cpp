// One request over one connection. See http_protocol.h.
#include "common/serving/http_protocol.h"

#include <fmt/format.h>

#include <exception>
#include <memory>

#include "common/core/error.h"

namespace llm {

namespace {

/// What this thread is answering. (httplib hands its handlers no connection.)
struct Exchange {
  HttpConnection* connection = nullptr;
  bool too_many = false;
  bool handled = false;  // a handler answered, rather than httplib that something is malformed
  bool close = false;    // what follows in the connection cannot be understood
};
thread_local Exchange* exchange = nullptr;

using Setup = std::function<void(httplib::Request&)>;

/// process_request has had two signatures; later versions want to be told the addresses.
template <typename Server>
bool process(Server& server, bool (Server::*request)(httplib::Stream&, bool, bool&, const Setup&),
             httplib::Stream& stream, bool last, bool& closed) {
  return (server.*request)(stream, last, closed, [](httplib::Request&) {});
}
template <typename Server>
bool process(Server& server,
             bool (Server::*request)(httplib::Stream&, const std::string&, int, const std::string&, int, bool,
                                     bool&, const Setup&),
             httplib::Stream& stream, bool last, bool& closed) {
  return (server.*request)(stream, "", 0, "", 0, last, closed, [](httplib::Request&) {});
}

std::uint64_t content_length(const httplib::Request& request) {
  return std::strtoull(request.get_header_value("Content-Length").c_str(), nullptr, 10);
}

/// What a request that httplib gave up on is: what the connection knows of, or what httplib made of it.
int status_of(const HttpConnection& connection, int otherwise) {
  return connection.timed_out() ? 408 : connection.head_too_large() ? 431 : otherwise;
}
std::string sentence_of(int status) {
  if (status == 408) return "the request did not arrive in time";
  if (status == 414) return "the address is too long";
  if (status == 431) return "the request has too many headers, or too long ones";
  return "the request is not well-formed HTTP";
}

}  // namespace

HttpProtocol::HttpProtocol(int listener, const HttpLimits& limits, HttpHandler handler,
                           HttpErrorBody error_body)
    : limits_(limits), handler_(std::move(handler)), error_body_(std::move(error_body)) {
  svr_sock_ = listener;
  set_keep_alive_timeout(std::chrono::duration_cast<std::chrono::seconds>(limits.idle).count());
  set_keep_alive_max_count(1000);
  const Handler plain = [this](const httplib::Request& q, httplib::Response& r) { respond(q, r, nullptr); };
  const HandlerWithContentReader with_body = [this](const httplib::Request& q, httplib::Response& r,
                                                    const httplib::ContentReader& b) { respond(q, r, &b); };
  const std::string any = ".*";
  Get(any, plain);
  Options(any, plain);
  Post(any, with_body);
  Put(any, with_body);
  Patch(any, with_body);
  Delete(any, with_body);
  // Where httplib itself finds something wrong it gives a status and no sentence.
  set_error_handler([this](const httplib::Request&, httplib::Response& response) {
    if (!response.body.empty() || response.content_provider_) return;
    response.status = status_of(*exchange->connection, response.status);
    response.set_content(error_body_(response.status, sentence_of(response.status)), "application/json");
  });
  set_expect_100_continue_handler([this](const httplib::Request& request, httplib::Response& response) {
    if (content_length(request) <= static_cast<std::uint64_t>(limits_.body_bytes)) return 100;
    refuse(response, 413, fmt::format("the body may have {} bytes at most", limits_.body_bytes));
    return 413;
  });
}

HttpNext HttpProtocol::answer(HttpConnection& connection, bool last, bool too_many) {
  Exchange here{.connection = &connection, .too_many = too_many};
  exchange = &here;
  bool closed = false;
  const bool answered =
      process(*static_cast<httplib::Server*>(this), &HttpProtocol::process_request, connection, last, closed);
  exchange = nullptr;
  const int status = status_of(connection, 0);
  if (!answered && !connection.has_written() && status != 0) {  // there was not even a first line
    const std::string body = error_body_(status, sentence_of(status));
    const std::string text = fmt::format(
        "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: "
        "close\r\n\r\n{}",
        status, status == 408 ? "Request Timeout" : "Request Header Fields Too Large", body.size(), body);
    connection.write(text.data(), text.size());
  }
  if (!answered || !here.handled || here.close) return HttpNext::goodbye;
  return closed || last ? HttpNext::close : HttpNext::request;
}

void HttpProtocol::refuse(httplib::Response& response, int status, const std::string& sentence) {
  response.status = status;
  response.set_header("Connection", "close");
  response.set_content(error_body_(status, sentence), "application/json");
  if (exchange) exchange->close = true;
}

/// False with the response made, if there is something wrong with the body.
bool HttpProtocol::read_body(const httplib::Request& request, const httplib::ContentReader& body,
                             HttpRequest& to, httplib::Response& response) {
  const auto limit = static_cast<std::size_t>(limits_.body_bytes);
  const auto too_large = [&] {
    refuse(response, 413, fmt::format("the body may have {} bytes at most", limit));
    return false;
  };
  if (content_length(request) > limit) return too_large();
  if (request.is_multipart_form_data()) {
    refuse(response, 415, "the body must be JSON, not a form");
    return false;
  }
  bool large = false;
  const bool whole = body([&](const char* data, std::size_t size) {
    large = to.body.size() + size > limit;
    if (!large) to.body.append(data, size);
    return !large;
  });
  if (large) return too_large();
  if (whole) return true;
  if (exchange->connection->timed_out())
    refuse(response, 408, "the body did not arrive in time");
  else if (response.status == 415)
    refuse(response, 415, "the body's Content-Encoding is not known here");
  else
    refuse(response, 400, "the body is not what its headers say");
  return false;
}

void HttpProtocol::respond(const httplib::Request& request, httplib::Response& response,
                           const httplib::ContentReader* body) {
  HttpConnection& connection = *exchange->connection;
  exchange->handled = true;
  connection.begin_body();
  if (exchange->too_many) {
    refuse(response, 503, fmt::format("there are {} connections already; try again", limits_.connections));
    response.set_header("Retry-After", "1");
    return;
  }
  HttpRequest ours;
  ours.method = request.method;
  ours.path = request.path;
  ours.content_type = request.get_header_value("Content-Type");
  ours.origin = request.get_header_value("Origin");
  ours.host = request.get_header_value("Host");
  ours.peer_gone = [&connection] { return connection.peer_gone(); };
  if (body && !read_body(request, *body, ours, response)) return;

  HttpResponse answer;
  try {
    answer = handler_(ours);
  } catch (const Error& error) {
    answer = {.status = 500, .body = error_body_(500, error.what())};
  } catch (const std::exception&) {
    answer = {.status = 500, .body = error_body_(500, "something went wrong here")};
  }
  response.status = answer.status;
  for (const auto& [name, value] : answer.headers) response.set_header(name, value);
  if (!answer.stream) {
    response.set_content(answer.body, answer.type);
    return;
  }
  const auto provide = [stream = std::move(answer.stream)](std::size_t, httplib::DataSink& sink) {
    bool good = true;
    try {
      stream([&](const std::string& piece) { return good = good && sink.write(piece.data(), piece.size()); });
    } catch (const std::exception&) {  // the head is sent; all that is left is to break off
      good = false;
    }
    if (good) sink.done();
    return good;
  };
  if (request.version == "HTTP/1.0") {  // knows no chunks: the end of the connection is the end of the body
    exchange->close = true;
    response.set_header("Connection", "close");
    response.set_content_provider(answer.type, provide);
  } else {
    response.set_chunked_content_provider(answer.type, provide);
  }
}

}  // namespace llm
