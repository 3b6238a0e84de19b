// Between cpp-httplib's requests and responses and ours. Part of http_server.h.
#pragma once

#include "common/serving/http_connection.h"

namespace llm {

/// What becomes of a connection behind an answer.
enum class HttpNext {
  request,  // another request may follow
  close,
  goodbye,  // close, but there may be something unread: HttpConnection::say_goodbye
};

class HttpProtocol final : private httplib::Server {
 public:
  /// `listener` is an open socket (httplib takes its absence for a server that is shutting down).
  HttpProtocol(int listener, const HttpLimits& limits, HttpHandler handler, HttpErrorBody error_body);

  /// Reads one request and answers it; with `last` the answer says that the connection ends.
  HttpNext answer(HttpConnection& connection, bool last, bool too_many);

 private:
  void respond(const httplib::Request& request, httplib::Response& response,
               const httplib::ContentReader* body);
  bool read_body(const httplib::Request& request, const httplib::ContentReader& body, HttpRequest& to,
                 httplib::Response& response);
  void refuse(httplib::Response& response, int status, const std::string& sentence);

  HttpLimits limits_;
  HttpHandler handler_;
  HttpErrorBody error_body_;
};

}  // namespace llm
