// OpenAI's HTTP on the real api_server before the real gateways: chat, speech, transcriptions, and
// what they refuse; what was used, over HTTP and by the command line. The published client's test
// is openai_client (label clients).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "audio/wav.h"
#include "auth/token.h"
#include "gateway_fixture.h"
#include "http/client.h"
#include "http/sse.h"
#include "provider.h"
#include "testing/calls.h"
#include "testing/matchers.h"
#include "testing/redis_fixture.h"

namespace parley {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr const char* kScript = R"({"llm": {"delay": "300ms", "answers": [
  {"when": "how much", "call": "room_rate", "arguments": {"room": "single"}},
  {"when": "room_rate", "text": "It is 89 euros."},
  {"text": "Good day to you."}]}})";
// A provider whose answer breaks off.
constexpr const char* kHalf =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"Half an\"}}]}\n\n";
constexpr const char* kAgent = R"({"id": "desk", "instructions": "Be short.", "llm": [
  {"engine": "rules", "rules": "desk"}],
  "rules": {"desk": [{"when": "breakfast", "say": "From seven to ten."}, {"otherwise": "Sorry?"}]}})";
constexpr const char* kGrammar =
    "#JSGF V1.0; grammar rooms; public <u> = how much is a (single | double | suite) room;";

class OpenAiEdgeTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    script_ = new testing::TextFile(kScript);
    provider_ = new testing::Provider({kHalf});
    keys_ = new testing::TemporaryDirectory;
    std::ofstream(keys_->path() + "/default") << "its-own-key\n";
    testing::ClusterOptions options;
    options.services = {"agent-registry", "stt-gateway", "tts-gateway", "llm-gateway",
                        "api-server"};
    options.agent_servers = 0;
    options.extra_arguments["llm-gateway"] = {"--llm-script",
                                              script_->path(),
                                              "--llm-openai-base-url",
                                              provider_->url(),
                                              "--llm-openai-project-keys",
                                              keys_->path(),
                                              "--llm-openai-max-streams",
                                              "7",
                                              "--llm-spend-caps",
                                              "*/tokens/day=1000,hotel/tokens/session=5"};
    options.extra_arguments["stt-gateway"] = {"--stt-preload", "false"};
    options.extra_arguments["api-server"] = {"--v1-max-requests", "2"};
    auto cluster = testing::Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = cluster->release();
    PARLEY_ASSERT_OK(testing::Api(*cluster_).Register(kAgent));
  }
  static void TearDownTestSuite() {
    delete cluster_;
    delete script_;
    delete provider_;
    delete keys_;
  }
  static std::string Token(bool may, bool admin = false) {
    auth::Claims claims;
    claims.video.room_create = may;
    claims.agent_admin = admin;
    return auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(1));
  }
  static http::Reply Post(const std::string& path, const std::string& body,
                          const std::string& token = Token(true),
                          const std::string& type = "application/json") {
    return Send("POST", path, body, token, type);
  }
  static http::Reply Get(const std::string& path, const std::string& token) {
    return Send("GET", path, "", token, "");
  }
  static http::Reply Send(const std::string& method, const std::string& path,
                          const std::string& body, const std::string& token,
                          const std::string& type) {
    http::Client client;
    http::Call call;
    call.method = method;
    call.url = "http://" + cluster_->Address("api-server") + path;
    call.headers = {{"authorization", "Bearer " + token}, {"content-type", type}};
    call.body = body;
    call.timeout = absl::Seconds(30);
    call.reach = http::Reach::kLoopbackToo;
    const auto reply = client.Fetch(call);
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.ok() ? *reply : http::Reply();
  }
  static http::Reply Ask(const std::string& text, json more = json::object(),
                         const std::string& token = Token(true)) {
    more["model"] = more.value("model", "scripted");
    more["messages"] = json::array({{{"role", "user"}, {"content", text}}});
    return Post("/v1/chat/completions", more.dump(), token);
  }

  // A part of a form, and one with a file.
  static std::string Part(const std::string& name, const std::string& value) {
    return "--x\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n";
  }
  static std::string File(const std::string& bytes) {
    return "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n"
           "Content-Type: audio/wav\r\n\r\n" +
           bytes + "\r\n--x--\r\n";
  }
  static http::Reply Transcribe(const std::string& form) {
    return Post("/v1/audio/transcriptions", form, Token(true), "multipart/form-data; boundary=x");
  }

  static testing::Cluster* cluster_;
  static testing::TextFile* script_;
  static testing::Provider* provider_;
  static testing::TemporaryDirectory* keys_;
};
testing::Cluster* OpenAiEdgeTest::cluster_ = nullptr;
testing::TextFile* OpenAiEdgeTest::script_ = nullptr;
testing::Provider* OpenAiEdgeTest::provider_ = nullptr;
testing::TemporaryDirectory* OpenAiEdgeTest::keys_ = nullptr;

TEST_F(OpenAiEdgeTest, AnswersWholeAndInPieces) {
  const http::Reply whole = Ask("hello");
  ASSERT_EQ(whole.status, 200) << whole.body;
  const json answer = json::parse(whole.body);
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "Good day to you.");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");

  const http::Reply streamed =
      Ask("hello", {{"stream", true}, {"stream_options", {{"include_usage", true}}}});
  ASSERT_EQ(streamed.status, 200) << streamed.body;
  EXPECT_EQ(streamed.headers.at("content-type"), "text/event-stream");
  http::SseParser parser;
  ASSERT_TRUE(parser.Append(streamed.body));
  std::string text;
  std::string last;
  bool usage = false;
  int pieces = 0;
  while (const auto event = parser.Next()) {
    last = event->data;
    if (last == "[DONE]") continue;
    const json chunk = json::parse(last);
    usage = usage || chunk.contains("usage");
    for (const json& choice : chunk["choices"]) {
      text += choice["delta"].value("content", "");
      ++pieces;
    }
  }
  EXPECT_EQ(text, "Good day to you.");
  EXPECT_GT(pieces, 3);
  EXPECT_TRUE(usage);
  EXPECT_EQ(last, "[DONE]");
}

TEST_F(OpenAiEdgeTest, CallsToolsAndTakesTheirResults) {
  const json tools = json::parse(
      R"([{"type":"function","function":{"name":"room_rate","parameters":{"type":"object"}}}])");
  const http::Reply first = Ask("how much is it", {{"tools", tools}});
  ASSERT_EQ(first.status, 200) << first.body;
  const json choice = json::parse(first.body)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  const json call = choice["message"]["tool_calls"][0];
  EXPECT_EQ(call["function"]["name"], "room_rate");
  EXPECT_EQ(json::parse(call["function"]["arguments"].get<std::string>())["room"], "single");
  const json next = {
      {"model", "scripted"},
      {"tools", tools},
      {"messages",
       json::array({{{"role", "user"}, {"content", "how much is it"}},
                    choice["message"],
                    {{"role", "tool"}, {"tool_call_id", call["id"]}, {"content", "89"}}})}};
  const http::Reply second = Post("/v1/chat/completions", next.dump());
  EXPECT_THAT(second.body, HasSubstr("It is 89 euros."));
}

TEST_F(OpenAiEdgeTest, UnderstandsWhatItSays) {
  const http::Reply spoken = Post("/v1/audio/speech", json({{"model", "flite"},
                                                            {"voice", "slt"},
                                                            {"input", "how much is a double room"},
                                                            {"response_format", "wav"}})
                                                          .dump());
  ASSERT_EQ(spoken.status, 200) << spoken.body;
  EXPECT_EQ(spoken.headers.at("content-type"), "audio/wav");
  const http::Reply heard = Transcribe(Part("model", "pocketsphinx") + Part("prompt", kGrammar) +
                                       Part("response_format", "verbose_json") + File(spoken.body));
  ASSERT_EQ(heard.status, 200) << heard.body;
  const json answer = json::parse(heard.body);
  EXPECT_EQ(answer["text"], "how much is a double room");
  ASSERT_EQ(answer["words"].size(), 6u);
  EXPECT_LT(answer["words"][0]["start"], answer["words"][5]["start"]);
  EXPECT_GT(answer["duration"], 0.8);
}

TEST_F(OpenAiEdgeTest, RefusesInTheShapeThatItsClientsRead) {
  const auto error = [](const http::Reply& reply) { return json::parse(reply.body)["error"]; };
  const http::Reply stranger = Ask("hello", json::object(), "nonsense");
  EXPECT_EQ(stranger.status, 401);
  EXPECT_EQ(error(stranger)["type"], "authentication_error");
  const http::Reply guest = Ask("hello", json::object(), Token(false));
  EXPECT_EQ(guest.status, 401);
  EXPECT_EQ(error(guest)["code"], "GRANT_MISSING");
  const http::Reply role = Post("/v1/chat/completions",
                                R"({"model":"scripted","messages":[{"role":"x","content":"y"}]})");
  EXPECT_EQ(role.status, 400);
  EXPECT_THAT(error(role)["message"].get<std::string>(), HasSubstr("role"));
  EXPECT_EQ(Ask("hello", {{"n", 2}}).status, 400);
  EXPECT_EQ(Post("/v1/audio/speech", R"({"input":"x","response_format":"mp3"})").status, 400);
}

TEST_F(OpenAiEdgeTest, AnAnswerThatBreaksOffSaysSo) {
  // Whole: an error; streamed: what there was, then an error in the place of the end.
  EXPECT_EQ(Ask("hello", {{"model", "gpt-x"}}).status, 503);
  const http::Reply streamed = Ask("hello", {{"model", "gpt-x"}, {"stream", true}});
  EXPECT_EQ(streamed.status, 200);
  EXPECT_THAT(streamed.body, HasSubstr("Half an"));
  EXPECT_THAT(streamed.body, HasSubstr(R"(data: {"error":{)"));
  EXPECT_THAT(streamed.body, ::testing::Not(HasSubstr("[DONE]")));
  EXPECT_THAT(provider_->asked(), HasSubstr(R"("model":"gpt-x")"));
}

TEST_F(OpenAiEdgeTest, PicturesFormsAndStopsGoToTheProvider) {
  json request = {{"model", "gpt-x"},
                  {"stop", json::array({"END"})},
                  {"response_format", {{"type", "json_object"}}}};
  request["messages"] = json::parse(
      R"([{"role":"user","content":[{"type":"text","text":"What is it?"},
          {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}}]}])");
  EXPECT_EQ(Post("/v1/chat/completions", request.dump()).status, 503);  // it breaks off
  for (
      const char* part :
      {"Bearer its-own-key\r\n", R"("stop":["END"])", R"("response_format":{"type":"json_object"})",
       R"({"image_url":{"detail":"low","url":"data:image/png;base64,AAAA"},"type":"image_url"})"}) {
    EXPECT_THAT(provider_->asked(), HasSubstr(part));
  }
  const http::Reply stopped = Ask("hello", {{"stop", "ay to"}});
  ASSERT_EQ(stopped.status, 200) << stopped.body;
  EXPECT_EQ(json::parse(stopped.body)["choices"][0]["message"]["content"], "Good d");
}

TEST_F(OpenAiEdgeTest, AnAgentsModelAnswersAsTheAgentIsMade) {
  const auto said = [](const http::Reply& reply) {
    EXPECT_EQ(reply.status, 200) << reply.body;
    return json::parse(reply.body)["choices"][0]["message"]["content"];
  };
  EXPECT_EQ(said(Ask("when is breakfast", {{"model", "agents/desk"}})), "From seven to ten.");
  EXPECT_EQ(said(Ask("good day", {{"model", "agents/desk"}})), "Sorry?");
  EXPECT_EQ(Ask("hello", {{"model", "agents/nobody"}}).status, 404);
  EXPECT_EQ(Ask("hello", {{"model", "agents/"}}).status, 400);

  const http::Reply models = Get("/v1/models", Token(true));
  ASSERT_EQ(models.status, 200) << models.body;
  std::vector<std::string> ids;
  const json listed = json::parse(models.body);
  for (const json& model : listed["data"]) ids.push_back(model["id"]);
  EXPECT_THAT(ids, ::testing::IsSupersetOf({"rules", "scripted"}));
  EXPECT_EQ(Get("/v1/models", "").status, 401);
}

// A clear error for each, and the same server afterwards.
TEST_F(OpenAiEdgeTest, WhatIsMalformedHasAClearError) {
  const std::vector<int16_t> silence(1600);
  const std::string pcm(3200, '\0');
  const auto wav = [&pcm](int rate_hz) { return audio::WavHeader(pcm.size(), rate_hz) + pcm; };
  const auto chat = [](const std::string& rest) {
    return Post("/v1/chat/completions", R"({"model":"scripted",)" + rest + "}");
  };
  const std::string hello = R"("messages":[{"role":"user","content":"hello"}])";
  const std::string text = R"({"model":"flite","input":")";
  const struct {
    const char* what;
    http::Reply reply;
    int status;
  } kCases[] = {
      {"no form", Post("/v1/audio/transcriptions", "{}"), 400},
      {"a form without a file", Transcribe(Part("model", "pocketsphinx") + "--x--\r\n"), 400},
      {"no audio at all", Transcribe(File("")), 400},
      {"a WAV file without samples", Transcribe(File(audio::WavHeader(0, 16'000))), 400},
      {"half a WAV file", Transcribe(File(wav(16'000).substr(0, 30))), 400},
      {"an odd rate", Transcribe(File(wav(7'999))), 400},
      {"too high a rate", Transcribe(File(wav(96'000))), 400},
      {"a model that is not UTF-8", Transcribe(Part("model", "\xff\xfe") + File(wav(16'000))), 400},
      {"a prompt that is not UTF-8", Transcribe(Part("prompt", "\xc0\x80") + File(wav(16'000))),
       400},
      {"a grammar that is none", Transcribe(Part("prompt", "#JSGF (((") + File(wav(16'000))), 400},
      {"an unknown form of answers", Transcribe(Part("response_format", "srt") + File(wav(16'000))),
       400},
      {"text that is not UTF-8", Post("/v1/audio/speech", text + "\xff\"}"), 400},
      {"text of 1 MB", Post("/v1/audio/speech", text + std::string(1 << 20, 'a') + "\"}"), 400},
      {"a rate that is no number", Post("/v1/audio/speech", text + R"(x","speed":1e999})"), 400},
      {"an unknown voice", Post("/v1/audio/speech", text + R"(x","voice":"darth"})"), 404},
      {"brackets without end", chat(R"("messages":)" + std::string(100'000, '[')), 400},
      {"content that is not UTF-8",
       chat(R"("messages":[{"role":"user","content":")"
            "\xff\"}]"),
       400},
      {"no messages", chat(R"("messages":[])"), 400},
      {"a picture that is none",
       chat(R"("messages":[{"role":"user","content":[{"type":"image_url"}]}])"), 400},
      {"a picture in the operator's network",
       chat(
           R"("messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://169.254.169.254/a.png"}}]}])"),
       400},
      {"sound", chat(R"("messages":[{"role":"user","content":[{"type":"input_audio"}]}])"), 400},
      {"a result of no call",
       chat(R"("messages":[{"role":"tool","tool_call_id":"c","content":"1"}])"), 400},
      {"a tool that is none", chat(hello + R"(,"tool_choice":"rate")"), 400},
      {"tools that are no list", chat(hello + R"(,"tools":{})"), 400},
      {"a temperature beyond", chat(hello + R"(,"temperature":3)"), 400},
      {"no tokens at all", chat(hello + R"(,"max_tokens":0)"), 400},
      {"two answers", chat(hello + R"(,"n":2)"), 400},
      {"a form that is none", chat(hello + R"(,"response_format":{"type":"xml"})"), 400},
      {"a schema without a name",
       chat(hello + R"(,"response_format":{"type":"json_schema","json_schema":{"schema":{}}})"),
       400},
      {"JSON of those who promise none",
       Ask("hello", {{"model", "agents/desk"}, {"response_format", {{"type", "json_object"}}}}),
       400},
      {"an empty stop", chat(hello + R"(,"stop":"")"), 400},
      {"five stops", chat(hello + R"(,"stop":["a","b","c","d","e"])"), 400},
      {"a stop that is no text", chat(hello + R"(,"stop":[1])"), 400},
      {"a history without end",
       Post("/v1/chat/completions",
            R"({"model":"scripted","messages":[{"role":"user","content":")" +
                std::string(4 << 20, 'a') + R"("}]})"),
       400},
      {"more than a request may hold", chat(R"("x":")" + std::string(11 << 20, 'a') + "\""), 413},
  };
  for (const auto& [what, reply, status] : kCases) {
    EXPECT_EQ(reply.status, status) << what << ": " << reply.body.substr(0, 300);
    if (status == 413) continue;  // the HTTP server's own
    const json error = json::parse(reply.body, nullptr, false);
    ASSERT_TRUE(error.is_object() && error.contains("error")) << what << ": " << reply.body;
    EXPECT_GT(error["error"]["message"].get<std::string>().size(), 10u) << what;
  }
  EXPECT_EQ(Ask("hello").status, 200);
}

TEST_F(OpenAiEdgeTest, TellsWhatWasUsedAndWhatMayBe) {
  ASSERT_EQ(Post("/v1/audio/speech", R"({"model":"flite","input":"good day"})").status, 200);
  EXPECT_EQ(Get("/api/usage", Token(true)).status, 401);  // needs agent.admin
  const http::Reply reply = Get("/api/usage?session=AS_none", Token(false, true));
  ASSERT_EQ(reply.status, 200) << reply.body;
  const json usage = json::parse(reply.body);
  EXPECT_EQ(usage["project"], "default");
  EXPECT_EQ(usage["session"], json({{"engines", json::object()}}));
  EXPECT_EQ(usage["silentGateways"], json::array());
  ASSERT_EQ(usage["caps"].size(), 1u) << "of another project nothing is told: " << usage["caps"];
  const json& cap = usage["caps"][0];
  EXPECT_EQ(cap["gateway"], "llm");
  EXPECT_EQ(cap["project"], "*");
  EXPECT_EQ(cap["limit"], "tokens");
  EXPECT_EQ(cap["period"], "day");
  EXPECT_EQ(cap["most"], 1000);
  EXPECT_TRUE(testing::Eventually([] {  // each gateway writes down every half second
    const json now = json::parse(Get("/api/usage", Token(false, true)).body);
    return now["day"]["engines"].contains("flite") &&
           now["day"]["engines"]["flite"].value("ttsCharacters", 0) >= 8;
  }));
}

TEST_F(OpenAiEdgeTest, BudgetsAreInTheMetrics) {
  http::Client client;
  http::Call call;
  call.url = "http://" + cluster_->AdminAddress("llm-gateway") + "/metrics";
  call.reach = http::Reach::kLoopbackToo;
  EXPECT_TRUE(testing::Eventually([&] {
    const auto reply = client.Fetch(call);
    return reply.ok() &&
           reply->body.find(R"(parley_budget_shared{engine="openai",key="operator"} 1)") !=
               std::string::npos &&
           reply->body.find(R"(parley_budget_shared{engine="openai",key="projects"} 1)") !=
               std::string::npos;
  }));
  // The project `default` has a key of its own, and with it a budget.
  EXPECT_EQ(Ask("hello", {{"model", "gpt-x"}}).status, 503);  // it breaks off
  const auto granted = [&] {
    const auto page = client.Fetch(call);
    constexpr std::string_view kName =
        R"(parley_budget_granted_total{engine="openai",key="projects"} )";
    const size_t at = page.ok() ? page->body.find(kName) : std::string::npos;
    return at == std::string::npos ? 0 : std::atoi(page->body.c_str() + at + kName.size());
  };
  EXPECT_TRUE(testing::Eventually([&] { return granted() >= 1; }));
  const auto reply = client.Fetch(call);
  ASSERT_TRUE(reply.ok()) << reply.status();
  for (const char* line : {R"(parley_budget_limit{engine="openai",key="operator",of="streams"} 7)",
                           R"(parley_budget_limit{engine="openai",key="projects",of="streams"} 7)",
                           R"(parley_budget_streams_held{engine="openai",key="operator"} 0)",
                           R"(parley_budget_replicas{engine="openai",key="operator"} 1)",
                           R"(parley_budget_replicas{engine="openai",key="projects"} 1)",
                           R"(parley_budget_waiting{engine="openai",key="operator"} 0)",
                           R"(parley_budget_granted_total{engine="openai",key="operator"} 0)",
                           R"(parley_budget_refused_total{engine="openai",key="projects"} 0)",
                           "parley_spend_cap_refused_total 0"}) {
    EXPECT_THAT(reply->body, HasSubstr(line));
  }
}

// Two requests wait 300 ms each for their model: of eight at once some are told to come back.
TEST_F(OpenAiEdgeTest, MoreThanMayWaitAreToldWhenToComeBack) {
  std::vector<http::Reply> replies(8);
  std::vector<std::thread> threads;
  for (http::Reply& reply : replies) threads.emplace_back([&reply] { reply = Ask("hello"); });
  for (std::thread& thread : threads) thread.join();
  int served = 0;
  int refused = 0;
  for (const http::Reply& reply : replies) {
    if (reply.status == 200) ++served;
    if (reply.status != 429) continue;
    ++refused;
    EXPECT_EQ(reply.headers.at("retry-after"), "1");
    EXPECT_EQ(json::parse(reply.body)["error"]["type"], "rate_limit_error");
  }
  EXPECT_GE(served, 2);
  EXPECT_GE(refused, 1);
  EXPECT_EQ(served + refused, 8);
  EXPECT_EQ(Ask("hello").status, 200);  // their places are free again
}

}  // namespace
}  // namespace parley
