// The server: what it answers, and that nothing a client does to it hurts anybody else.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "common/generation/generate.h"
#include "common/generation/stop_text.h"
#include "common/serving/model_server.h"
#include "common/tokenizer/simple_tokenizers.h"
#include "common/tokenizer/stream_text.h"
#include "tests/ch04_model_helpers.h"
#include "tests/ch07_http_client.h"

namespace llm {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::ask;
using testing::Client;
using testing::get;
using testing::HttpAnswer;
using testing::post;

constexpr const char* kCompletions = "/v1/completions";
constexpr const char* kChat = "/v1/chat/completions";

/// Bytes, and no end of text: an answer is as long as it may be.
class Bytes final : public Tokenizer {
 public:
  std::string_view kind() const override { return "byte"; }
  std::int64_t vocab_size() const override { return 256; }
  std::string_view token_bytes(std::int32_t id) const override { return bytes_.token_bytes(id); }
  std::span<const std::int32_t> special_tokens() const override { return {}; }
  void encode_append(std::string_view text, std::vector<std::int32_t>& ids) const override {
    bytes_.encode_append(text, ids);
  }
  void save(const std::filesystem::path&) const override {}

 private:
  ByteTokenizer bytes_;
};

/// A model of random weights over bytes: it talks nonsense, quickly.
struct Talker {
  Bytes tokenizer;
  GptStage model;

  explicit Talker(std::int64_t context = 400) : model(config(context)) { testing::randomize(model, 3); }
  GptConfig config(std::int64_t context) const {
    GptConfig c;
    c.vocab_size = tokenizer.vocab_size();
    c.context = context;
    c.channels = 16;
    c.heads = 2;
    c.layers = 1;
    return c;
  }
  /// What the model makes of a prompt, as the server should say it.
  std::string alone(const std::string& prompt, GenerateOptions options) const {
    options.stop_token = tokenizer.end_of_text();
    const Generated result = generate(model, tokenizer.encode(prompt), options);
    StreamText characters;
    std::string text = characters.push(tokenizer.decode(result.tokens));
    return text + characters.finish();
  }
};
const Talker& talker() {
  static const Talker instance;
  return instance;
}

ModelServerOptions options() {
  ModelServerOptions o;
  o.port = 0;
  o.model_name = "tiny";
  return o;
}

struct Running {
  ModelServer server;
  explicit Running(const ModelServerOptions& o = options()) : server(talker().model, talker().tokenizer, o) {}
  int port() const { return server.port(); }
  HttpAnswer ask(std::string_view request) const { return testing::ask(port(), request); }
  json ask_json(const char* path, const json& body, int status = 200) const {
    const HttpAnswer answer = ask(post(path, body.dump()));
    EXPECT_EQ(answer.status, status) << answer.body;
    const json parsed = json::parse(answer.body, nullptr, false);
    EXPECT_FALSE(parsed.is_discarded()) << answer.body;
    return parsed;
  }
  /// True once nothing runs or waits any more.
  bool rests(std::chrono::seconds patience = std::chrono::seconds(30)) const {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (std::chrono::steady_clock::now() < deadline) {
      const Scheduler::Load load = server.load();
      if (load.running == 0 && load.waiting == 0) return true;
      std::this_thread::sleep_for(milliseconds(2));
    }
    return false;
  }
};

/// A request that keeps the server busy for long, if nobody stops it: `n` answers of 390 tokens.
json endless(int n = 64) {
  return {{"prompt", "x"}, {"max_tokens", 390}, {"n", n}, {"stream", true}, {"temperature", 1}};
}

/// The data of all events of a stream.
std::vector<std::string> events(const std::string& body) {
  std::vector<std::string> all;
  std::size_t at = 0;
  while (true) {
    const std::size_t end = body.find("\n\n", at);
    if (end == std::string::npos) break;
    const std::string event = body.substr(at, end - at);
    if (event.starts_with("data: ")) all.push_back(event.substr(6));
    at = end + 2;
  }
  EXPECT_EQ(at, body.size()) << "something behind the last event: " << body.substr(at);
  return all;
}

std::size_t count_of(const char* folder) {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}

// ---- text ---------------------------------------------------------------------------------------------

TEST(StopText, EndsBeforeTheFirstStopHoweverItArrives) {
  const std::string text = "one two three, two threes";
  struct Case {
    std::vector<std::string> stops;
    std::string expected;
  };
  const Case cases[] = {{{}, text},
                        {{"two three,"}, "one "},
                        {{"threes"}, "one two three, two "},
                        {{"threes", "e t"}, "on"},
                        {{"one"}, ""},
                        {{"s!", "", "xyz"}, text},
                        {{"two threes"}, "one two three, "}};
  for (const Case& c : cases)
    for (std::size_t piece = 1; piece <= text.size(); ++piece) {
      StopText stop(c.stops);
      std::string out;
      for (std::size_t i = 0; i < text.size(); i += piece) out += stop.push(text.substr(i, piece));
      EXPECT_EQ(out + stop.finish(), c.expected) << "in pieces of " << piece;
      EXPECT_EQ(stop.stopped(), c.expected != text);
    }
  StopText eager({"stop"});
  EXPECT_EQ(eager.push("go on"), "go on");  // nothing is held back that need not be
  EXPECT_EQ(eager.push(" s"), " ");
  EXPECT_EQ(eager.push("o"), "so");
}

// ---- what is asked --------------------------------------------------------------------------------------

TEST(ApiRequest, ReadsWhatClientsSend) {
  const ApiRequest r = parse_completion_request(
      R"({"model": "m", "prompt": ["a", [1, 2]], "max_tokens": 5, "temperature": 0, "top_p": 0.5, "top_k": 3, "n": 2,
          "seed": -1, "stop": ["x", "y"], "stream": true, "stream_options": {"include_usage": true}, "echo": true,
          "user": "somebody", "best_of": 2, "presence_penalty": 0, "logit_bias": {}, "logprobs": null})");
  EXPECT_EQ(r.model, "m");
  ASSERT_EQ(r.prompts.size(), 2U);
  EXPECT_EQ(std::get<std::string>(r.prompts[0]), "a");
  EXPECT_EQ(std::get<std::vector<std::int32_t>>(r.prompts[1]), (std::vector<std::int32_t>{1, 2}));
  EXPECT_EQ(r.max_tokens, 5);
  EXPECT_EQ(r.sampling.temperature, 0);
  EXPECT_EQ(r.sampling.top_p, 0.5F);
  EXPECT_EQ(r.sampling.top_k, 3);
  EXPECT_EQ(r.n, 2);
  EXPECT_TRUE(r.seeded && r.stream && r.usage_in_stream && r.echo);
  EXPECT_EQ(r.stop, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(parse_completion_request("{}").max_tokens, 16);
  EXPECT_EQ(parse_completion_request(R"({"prompt": [7, 8]})").prompts.size(), 1U);

  const ApiRequest chat = parse_chat_request(
      R"({"messages": [{"role": "developer", "content": "be kind"}, {"role": "user", "content": [
          {"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]}, {"role": "assistant", "content": "hi"}],
          "max_completion_tokens": 9, "response_format": {"type": "text"}, "tools": []})");
  ASSERT_EQ(chat.messages.size(), 3U);
  EXPECT_EQ(chat.messages[0].speaker, "system");
  EXPECT_EQ(chat.messages[1].text, "hello");
  EXPECT_EQ(chat.messages[2].speaker, "assistant");
  EXPECT_EQ(chat.max_tokens, 9);
  EXPECT_FALSE(chat.seeded);
}

TEST(ApiRequest, RefusesWhatItCannotDoAndSaysWhich) {
  struct Case {
    bool chat;
    std::string body, param;
  };
  const Case cases[] = {
      {false, "", ""},
      {false, "{", ""},
      {false, "[]", ""},
      {false, "\"\xff\"", ""},
      {false, R"({"prompt": "\ud800"})", ""},
      {false, std::string(100'000, '['), ""},
      {false, R"({"prompt": 3})", "prompt"},
      {false, R"({"prompt": []})", "prompt"},
      {false, R"({"prompt": ["a", 1]})", "prompt"},
      {false, R"({"prompt": [1, -2]})", "prompt"},
      {false, R"({"prompt": [1, "a"]})", "prompt"},
      {false, R"({"model": 1})", "model"},
      {false, R"({"max_tokens": 0})", "max_tokens"},
      {false, R"({"max_tokens": 1.5})", "max_tokens"},
      {false, R"({"max_tokens": "9"})", "max_tokens"},
      {false, R"({"max_tokens": 99999999999999999999})", "max_tokens"},
      {false, R"({"max_tokens": 18446744073709551615})", "max_tokens"},
      {false, R"({"temperature": -0.1})", "temperature"},
      {false, R"({"temperature": 2.1})", "temperature"},
      {false, R"({"temperature": "hot"})", "temperature"},
      {false, R"({"top_p": 0})", "top_p"},
      {false, R"({"top_k": -1})", "top_k"},
      {false, R"({"n": 0})", "n"},
      {false, R"({"n": 129})", "n"},
      {false, R"({"stop": [1]})", "stop"},
      {false, R"({"stop": ""})", "stop"},
      {false, R"({"stop": ["1", "2", "3", "4", "5"]})", "stop"},
      {false, R"({"stream": 1})", "stream"},
      {false, R"({"stream_options": {}})", "stream_options"},
      {false, R"({"stream": true, "stream_options": []})", "stream_options"},
      {false, R"({"logprobs": 3})", "logprobs"},
      {false, R"({"best_of": 3})", "best_of"},
      {false, R"({"suffix": "x"})", "suffix"},
      {false, R"({"presence_penalty": 1})", "presence_penalty"},
      {false, R"({"logit_bias": {"5": 1}})", "logit_bias"},
      {true, "{}", "messages"},
      {true, R"({"messages": []})", "messages"},
      {true, R"({"messages": "hi"})", "messages"},
      {true, R"({"messages": ["hi"]})", "messages[0]"},
      {true, R"({"messages": [{"role": "tool", "content": ""}]})", "messages[0].role"},
      {true, R"({"messages": [{"content": "x"}]})", "messages[0].role"},
      {true, R"({"messages": [{"role": "user", "content": "x"}, {"role": "user"}]})", "messages[1].content"},
      {true, R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})",
       "messages[0].content"},
      {true, R"({"messages": [{"role": "user", "content": "x"}], "tools": [{}]})", "tools"},
      {true,
       R"({"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}})",
       "response_format"},
  };
  for (const Case& c : cases) {
    try {
      c.chat ? parse_chat_request(c.body) : parse_completion_request(c.body);
      FAIL() << c.body.substr(0, 100);
    } catch (const ApiError& error) {
      EXPECT_EQ(error.status, 400) << c.body.substr(0, 100);
      EXPECT_EQ(error.param, c.param) << c.body.substr(0, 100);
      const json parsed = json::parse(error_json(error));
      EXPECT_EQ(parsed["error"]["type"], "invalid_request_error");
      EXPECT_FALSE(parsed["error"]["message"].get<std::string>().empty());
    }
  }
}

// ---- what is answered -------------------------------------------------------------------------------------

TEST(ModelServer, AnswersWithTheTextOfASingleRun) {
  const Running running;
  GenerateOptions greedy;
  greedy.sampling.temperature = 0;
  greedy.max_new_tokens = 30;
  const json answer = running.ask_json(
      kCompletions, {{"model", "tiny"}, {"prompt", "Once"}, {"max_tokens", 30}, {"temperature", 0}});
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["model"], "tiny");
  EXPECT_EQ(answer["choices"][0]["text"], talker().alone("Once", greedy));
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(answer["usage"], json({{"prompt_tokens", 4}, {"completion_tokens", 30}, {"total_tokens", 34}}));

  const json chat = running.ask_json(
      kChat,
      {{"messages", {{{"role", "user"}, {"content", "Once"}}}}, {"max_tokens", 30}, {"temperature", 0}});
  EXPECT_EQ(chat["object"], "chat.completion");
  EXPECT_EQ(chat["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(chat["choices"][0]["message"]["content"], talker().alone("Once", greedy));

  // The context is the end of an answer too.
  const json all =
      running.ask_json(kCompletions, {{"prompt", "Once"}, {"max_tokens", 4000}, {"temperature", 0}});
  EXPECT_EQ(all["usage"]["total_tokens"], 400);
  EXPECT_EQ(all["choices"][0]["finish_reason"], "length");
}

TEST(ModelServer, EightGreedyStreamsAtOnceGiveTheTextsOfEightSingleRuns) {
  const Running running;
  GenerateOptions greedy;
  greedy.sampling.temperature = 0;
  greedy.max_new_tokens = 60;
  std::vector<std::thread> threads;
  std::vector<std::string> texts(8);
  for (std::size_t i = 0; i < 8; ++i)
    threads.emplace_back([&, i] {
      const json body = {{"prompt", std::string(1 + 3 * i, static_cast<char>('a' + i))},
                         {"max_tokens", 60},
                         {"temperature", 0},
                         {"stream", true}};
      const HttpAnswer answer = running.ask(post(kCompletions, body.dump()));
      EXPECT_EQ(answer.status, 200);
      EXPECT_NE(answer.head.find("Content-Type: text/event-stream"), std::string::npos);
      const auto all = events(answer.body);
      ASSERT_GE(all.size(), 2U);
      EXPECT_EQ(all.back(), "[DONE]");
      for (std::size_t e = 0; e + 1 < all.size(); ++e) texts[i] += json::parse(all[e])["choices"][0]["text"];
    });
  for (std::thread& t : threads) t.join();
  for (std::size_t i = 0; i < 8; ++i)
    EXPECT_EQ(texts[i], talker().alone(std::string(1 + 3 * i, static_cast<char>('a' + i)), greedy));
}

TEST(ModelServer, ChatStreamsBeginWithTheRoleAndEndWithReasonUsageAndDone) {
  const Running running;
  const json body = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}},
                     {"max_tokens", 20},
                     {"temperature", 0},
                     {"stream", true},
                     {"stream_options", {{"include_usage", true}}}};
  const auto all = events(running.ask(post(kChat, body.dump())).body);
  ASSERT_GE(all.size(), 4U);
  EXPECT_EQ(json::parse(all.front())["choices"][0]["delta"]["role"], "assistant");
  std::string text, finish;
  std::string id;
  for (std::size_t i = 0; i + 2 < all.size(); ++i) {
    const json event = json::parse(all[i]);
    EXPECT_EQ(event["object"], "chat.completion.chunk");
    if (id.empty()) id = event["id"];
    EXPECT_EQ(event["id"], id);
    text += event["choices"][0]["delta"].value("content", "");
    if (event["choices"][0]["finish_reason"].is_string()) finish = event["choices"][0]["finish_reason"];
  }
  GenerateOptions greedy;
  greedy.sampling.temperature = 0;
  greedy.max_new_tokens = 20;
  EXPECT_EQ(text, talker().alone("Hi", greedy));
  EXPECT_EQ(finish, "length");
  const json usage = json::parse(all[all.size() - 2]);
  EXPECT_TRUE(usage["choices"].empty());
  EXPECT_EQ(usage["usage"]["completion_tokens"], 20);
  EXPECT_EQ(all.back(), "[DONE]");
}

TEST(ModelServer, SeedsStopsSeveralAnswersAndEcho) {
  const Running running;
  json body = {{"prompt", "ab"}, {"max_tokens", 40}, {"temperature", 1}, {"seed", 11}, {"n", 3}};
  const json first = running.ask_json(kCompletions, body), again = running.ask_json(kCompletions, body);
  ASSERT_EQ(first["choices"].size(), 3U);
  EXPECT_EQ(first["choices"], again["choices"]);
  EXPECT_NE(first["choices"][0]["text"], first["choices"][1]["text"]);
  EXPECT_EQ(first["usage"]["completion_tokens"], 120);
  GenerateOptions seeded;
  seeded.sampling.seed = 11;
  seeded.max_new_tokens = 40;
  EXPECT_EQ(first["choices"][0]["text"], talker().alone("ab", seeded));

  // A stop string ends the answer before it, in one piece or in pieces.
  const std::string text = first["choices"][0]["text"];
  std::size_t at = 10;
  while ((text[at] & 0xC0) == 0x80) ++at;
  std::size_t end = at + 2;
  while (end < text.size() && (text[end] & 0xC0) == 0x80) ++end;
  const std::string stop = text.substr(at, end - at);
  body["n"] = 1;
  body["stop"] = stop;
  const json stopped = running.ask_json(kCompletions, body);
  EXPECT_EQ(stopped["choices"][0]["text"], text.substr(0, text.find(stop)));
  EXPECT_EQ(stopped["choices"][0]["finish_reason"], "stop");

  const json echoed =
      running.ask_json(kCompletions, {{"prompt", {"ab", "cd"}}, {"max_tokens", 3}, {"echo", true}});
  ASSERT_EQ(echoed["choices"].size(), 2U);
  EXPECT_TRUE(echoed["choices"][1]["text"].get<std::string>().starts_with("cd"));
  EXPECT_TRUE(running.rests());
}

TEST(ModelServer, OtherAddresses) {
  const Running running;
  EXPECT_EQ(json::parse(running.ask(get("/v1/models")).body)["data"][0]["id"], "tiny");
  EXPECT_EQ(json::parse(running.ask(get("/v1/models/tiny")).body)["object"], "model");
  EXPECT_EQ(running.ask(get("/v1/models/huge")).status, 404);
  EXPECT_EQ(json::parse(running.ask(get("/healthz")).body)["status"], "ok");
  const HttpAnswer page = running.ask(get("/"));
  EXPECT_EQ(page.status, 200);
  EXPECT_NE(page.head.find("text/html"), std::string::npos);
  EXPECT_NE(page.body.find("</html>"), std::string::npos);
  const HttpAnswer head = running.ask("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.body, "");

  const std::map<std::string, int> wrong = {
      {get("/nothing"), 404},
      {post("/nothing", "{}"), 404},
      {get(kCompletions), 405},
      {post("/healthz", ""), 405},
      {"DELETE /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405},
      {post(kCompletions, R"({"model": "huge"})"), 404},
      {post(kCompletions, R"({"prompt": [99999]})"), 400},
      {post(kCompletions, R"({"prompt": ""})"), 400},  // nothing to go on from
      {post(kCompletions, json({{"prompt", std::string(400, 'x')}}).dump()), 400},
      {post(kCompletions, json({{"n", 128}}).dump()), 400},
      {post(kCompletions, "{}", "Origin: http://elsewhere.example\r\n"), 403},
  };
  for (const auto& [request, status] : wrong) {
    const HttpAnswer answer = running.ask(request);
    EXPECT_EQ(answer.status, status) << request.substr(0, 200);
    const json error = json::parse(answer.body, nullptr, false);
    ASSERT_TRUE(error.is_object() && error.contains("error")) << answer.body;
    EXPECT_TRUE(error["error"]["message"].is_string());
  }
  EXPECT_EQ(running.ask(post(kCompletions, R"({"prompt": "a"})", "Origin: http://x\r\n")).status, 200);
  const json error = running.ask_json(kCompletions, {{"prompt", std::string(400, 'x')}}, 400);
  EXPECT_EQ(error["error"]["code"], "context_length_exceeded");
}

// ---- what clients do to it
// ----------------------------------------------------------------------------------

TEST(ModelServer, SaysWhatIsWrongWithARequest) {
  ModelServerOptions o = options();
  o.http.read = milliseconds(400);
  const Running running(o);
  EXPECT_EQ(running.ask(post(kCompletions, "{\"prompt\": ")).status, 400);
  EXPECT_EQ(running.ask(post(kCompletions, "{\"prompt\": \"\xc3\x28\"}")).status, 400);
  EXPECT_EQ(running.ask("\x16\x03\x01 this is not HTTP\r\n\r\n").status, 400);
  EXPECT_EQ(running.ask("GET / HTTP/9.9\r\n\r\n").status, 400);
  EXPECT_EQ(running.ask("GET /" + std::string(20'000, 'x') + " HTTP/1.1\r\nHost: x\r\n\r\n").status, 414);
  EXPECT_EQ(running.ask("GET / HTTP/1.1\r\nX: " + std::string(100'000, 'x')).status, 431);
  std::string many = "GET / HTTP/1.1\r\n";
  for (int i = 0; i < 5000; ++i) many += "X-" + std::to_string(i) + ": 0123456789\r\n";
  EXPECT_EQ(running.ask(many + "\r\n").status, 431);
  EXPECT_EQ(
      running
          .ask("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
               "Content-Length: 5\r\n\r\n--b--")
          .status,
      415);
  EXPECT_EQ(running.ask(post(kCompletions, "not gzip", "Content-Encoding: gzip\r\n")).status, 400);
  // Requests that stop in the middle.
  EXPECT_EQ(running.ask("POST /v1/completions HTT").status, 408);
  EXPECT_EQ(running.ask("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{").status,
            408);
  EXPECT_EQ(running.ask("").status, 0);  // nothing asked, nothing answered
  EXPECT_TRUE(running.rests());
}

TEST(ModelServer, ABodyOfAHundredMegabytesIsRefusedHoweverItComes) {
  const Running running;
  const std::string megabyte(1 << 20, 'x');
  {
    Client client(running.port());
    client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n");
    bool sent = true;  // stubbornly to the end, before the answer is looked at
    for (int i = 0; i < 100 && sent; ++i) sent = client.send(megabyte);
    EXPECT_TRUE(sent);
    EXPECT_EQ(client.answer().status, 413);
  }
  {
    Client client(running.port());
    client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    bool sent = true;
    for (int i = 0; i < 100 && sent; ++i) sent = client.send("100000\r\n" + megabyte + "\r\n");
    EXPECT_TRUE(sent);
    EXPECT_EQ(client.answer().status, 413);
  }
  const HttpAnswer expecting = running.ask(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: "
      "100-continue\r\nContent-Length: 104857600\r\n\r\n");
  EXPECT_EQ(expecting.status, 413);
  EXPECT_EQ(json::parse(expecting.body)["error"]["type"], "invalid_request_error");
  EXPECT_EQ(running.ask(get("/healthz")).status, 200);
}

TEST(ModelServer, OneConnectionMayAskAgainAndAnOldClientMayToo) {
  const Running running;
  Client client(running.port());
  for (int i = 0; i < 3; ++i) {
    client.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_TRUE(client.receive("\"context\":400}").starts_with("HTTP/1.1 200"));
  }
  client.send(
      "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\nConnection: "
      "close\r\n\r\n");
  const std::string both = client.receive();
  EXPECT_NE(both.find("HTTP/1.1 200", 1), std::string::npos);  // requests may follow without waiting

  const std::string body = R"({"prompt": "a", "max_tokens": 5, "stream": true})";
  Client old(running.port());
  old.send("POST /v1/completions HTTP/1.0\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
           body);
  const std::string text = old.receive();
  EXPECT_EQ(text.find("chunked"), std::string::npos);
  EXPECT_TRUE(text.ends_with("data: [DONE]\n\n")) << text;
}

TEST(ModelServer, WhoHangsUpMakesRoom) {
  const Running running;
  for (const bool stream : {true, false}) {
    json body = endless();
    body["stream"] = stream;
    const std::int64_t before = running.server.load().tokens;
    Client client(running.port());
    client.send(post(kCompletions, body.dump()));
    while (running.server.load().tokens == before) std::this_thread::sleep_for(milliseconds(1));
    client.hang_up();
    EXPECT_TRUE(running.rests());
    EXPECT_LT(running.server.load().tokens - before, 64 * 390) << "the answers ran to their end for nobody";
  }
}

TEST(ModelServer, WhoDoesNotReadHoldsNobodyUp) {
  ModelServerOptions o = options();
  o.http.write = milliseconds(300);
  const Running running(o);
  std::vector<std::unique_ptr<Client>> sleepers;
  for (int i = 0; i < 4; ++i) {
    sleepers.push_back(std::make_unique<Client>(running.port(), 2048));
    sleepers.back()->send(post(kCompletions, endless(8).dump()));
  }
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(
        running.ask_json(kCompletions, {{"prompt", "a"}, {"max_tokens", 20}})["usage"]["completion_tokens"],
        20);
  EXPECT_TRUE(running.rests());
}

TEST(HttpServer, WhoNeverReadsIsDropped) {
  HttpLimits limits;
  limits.write = milliseconds(200);
  std::atomic<int> dropped{0};
  const std::string piece(100'000, 'x');
  HttpServer server(
      "127.0.0.1", 0, limits,
      [&](const HttpRequest&) {
        return HttpResponse{.type = "text/plain", .stream = [&](const HttpWrite& write) {
                              while (write(piece)) {
                              }
                              ++dropped;
                            }};
      },
      [](int, const std::string& sentence) { return sentence; });
  Client client(server.port());
  client.send(get("/"));
  for (int i = 0; i < 1000 && dropped == 0; ++i) std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(dropped, 1);
}

TEST(ModelServer, TooManyAnswersAndTooLongOnes) {
  ModelServerOptions o = options();
  o.rows = 2;
  o.queue = 62;
  o.time = std::chrono::seconds(1);
  o.max_tokens = 390;
  const Running running(o);
  Client first(running.port());
  first.send(post(kCompletions, endless(64).dump()));
  while (running.server.load().running == 0) std::this_thread::sleep_for(milliseconds(1));
  const HttpAnswer second = running.ask(post(kCompletions, endless(63).dump()));
  if (second.status != 200) {  // unless the first was through already
    EXPECT_EQ(second.status, 503);
    EXPECT_NE(second.head.find("Retry-After: 1"), std::string::npos);
    EXPECT_EQ(json::parse(second.body)["error"]["code"], "overloaded");
  }
  first.hang_up();
  EXPECT_TRUE(running.rests());
}

TEST(ModelServer, AThousandConnections) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max < 4096)
    GTEST_SKIP() << "this machine allows a program only " << limit.rlim_max << " files";
  limit.rlim_cur = std::max<rlim_t>(limit.rlim_cur, 4096);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  ask(Running().port(), get("/healthz"));  // whatever is made once is made now
  const std::size_t files = count_of("/proc/self/fd"), threads = count_of("/proc/self/task");
  {
    const Running running;
    const Client witness(running.port());
    std::vector<Client> idle;
    for (int i = 0; i < 1000; ++i) {
      idle.emplace_back(running.port());
      ASSERT_TRUE(idle.back().connected());
    }
    // With a thousand that say nothing, somebody is answered.
    EXPECT_EQ(
        running.ask_json(kCompletions, {{"prompt", "a"}, {"max_tokens", 5}})["usage"]["completion_tokens"],
        5);
    // And now all of them ask.
    const std::string request = post(kCompletions, R"({"prompt": "a", "max_tokens": 4})");
    for (Client& client : idle) ASSERT_TRUE(client.send(request));
    std::map<int, int> statuses;
    for (Client& client : idle) ++statuses[client.answer().status];
    EXPECT_EQ(statuses[200] + statuses[503], 1000);
    EXPECT_GE(statuses[200], 8);
    EXPECT_TRUE(running.rests());
    EXPECT_EQ(running.ask(get("/healthz")).status, 200);
  }
  EXPECT_EQ(count_of("/proc/self/fd"), files);
  for (int i = 0; i < 1000 && count_of("/proc/self/task") != threads; ++i)
    std::this_thread::sleep_for(milliseconds(5));
  EXPECT_EQ(count_of("/proc/self/task"), threads);
}

TEST(ModelServer, MoreConnectionsThanAllowedAreToldSo) {
  ModelServerOptions o = options();
  o.http.connections = 3;
  o.http.read = milliseconds(5'000);
  const Running running(o);
  std::vector<std::unique_ptr<Client>> idle;
  for (int i = 0; i < 3; ++i) idle.push_back(std::make_unique<Client>(running.port()));
  std::this_thread::sleep_for(milliseconds(50));
  const HttpAnswer answer = running.ask(get("/healthz"));
  EXPECT_EQ(answer.status, 503);
  EXPECT_NE(answer.head.find("Retry-After"), std::string::npos);
  idle.clear();
  int status = 0;
  for (int i = 0; i < 200 && status != 200; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
    status = running.ask(get("/healthz")).status;
  }
  EXPECT_EQ(status, 200);
}

TEST(ModelServer, StoppingLetsStreamsEndOrSaysWhyNot) {
  for (const bool patient : {true, false}) {
    Running running;
    Client client(running.port()), idle(running.port());
    client.send(post(kCompletions, endless(patient ? 1 : 64).dump()));
    std::string text = client.receive("data: ");
    std::thread reader([&] { text += client.receive(); });
    const auto start = std::chrono::steady_clock::now();
    running.server.stop(patient ? std::chrono::seconds(60) : std::chrono::seconds(0));
    reader.join();
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(patient ? 60 : 20));
    const HttpAnswer answer = Client::parse(text);
    const auto all = events(answer.body);
    if (patient) {
      EXPECT_EQ(all.back(), "[DONE]");
    } else {
      EXPECT_EQ(json::parse(all.back())["error"]["message"], "the server is shutting down") << all.back();
    }
    EXPECT_FALSE(Client(running.port()).connected());
  }
}

TEST(ModelServer, TwoServersDoNotShareAPort) {
  const Running running;
  ModelServerOptions o = options();
  o.port = running.port();
  EXPECT_THROW(Running second(o), Error);
  o.port = 0;
  o.address = "no such host.invalid";
  EXPECT_THROW(Running third(o), Error);
}

}  // namespace
}  // namespace llm
