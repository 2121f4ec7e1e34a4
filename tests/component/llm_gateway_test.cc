// The model gateway over real gRPC: rules, and the OpenAI-compatible engine against a server of the
// test's own.
#include "llm_gateway/llm_gateway.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <fstream>

#include "base/status.h"
#include "gateway_fixture.h"
#include "parley/llm/v1/llm.grpc.pb.h"
#include "provider.h"

namespace parley {
namespace {

using llm::v1::ChatRequest;
using llm::v1::ChatResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Provider;
using testing::RunningGateway;
using testing::TextFile;

const char* const kOk =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
std::string Text(const std::string& text) {
  return "data: {\"model\":\"m-1\",\"choices\":[{\"delta\":{\"content\":\"" + text + "\"}}]}\n\n";
}
const char* const kStop = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const char* const kDone =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n"
    "data: [DONE]\n\n";

struct Answer {
  std::vector<std::string> texts;
  std::vector<llm::v1::ToolCall> calls;
  llm::v1::Done done;
  absl::Status status;
};

Answer Ask(RunningGateway<LlmGatewayConfig>& gateway, const ChatRequest& request) {
  auto call = gateway.Call();
  auto stub = llm::v1::LanguageModelService::NewStub(gateway.channel());
  auto reader = stub->Chat(call.get(), request);
  Answer answer;
  ChatResponse response;
  while (reader->Read(&response)) {
    if (response.has_text()) answer.texts.push_back(response.text().text());
    if (response.has_tool_call()) answer.calls.push_back(response.tool_call());
    if (response.has_done()) answer.done = response.done();
  }
  answer.status = rpc::FromGrpcStatus(reader->Finish());
  return answer;
}

ChatRequest Request(const std::string& engine, const std::string& said) {
  ChatRequest request;
  auto* model = request.add_models();
  model->set_engine(engine);
  model->set_model(engine == "openai" ? "m" : "");
  auto* message = request.add_items()->mutable_message();
  message->set_role("user");
  message->set_text(said);
  return request;
}

LlmGatewayConfig ConfigFor(const std::string& url) {
  LlmGatewayConfig config;
  config.openai.base_url = url;
  config.openai.key = "secret-key";
  config.max_chats = 2;
  return config;
}

TEST(LlmGatewayTest, RulesCallAToolAndSayItsResult) {
  RunningGateway<LlmGatewayConfig> gateway("llm-gateway", {}, llm_gateway::Run);
  ChatRequest request = Request("rules", "how much is a single room");
  request.mutable_models(0)->set_rules_json(
      R"([{"when": "how much .* {room:single|double}", "call": "room_rate",
           "say": "A {room} room is {result} euros."}])");
  request.add_tools()->set_name("room_rate");
  const Answer first = Ask(gateway, request);
  ASSERT_TRUE(first.status.ok()) << first.status;
  ASSERT_EQ(first.calls.size(), 1u);
  EXPECT_EQ(first.calls[0].arguments_json(), R"({"room":"single"})");
  EXPECT_EQ(first.done.finish_reason(), "tool_calls");
  EXPECT_EQ(first.done.engine(), "rules");
  *request.add_items()->mutable_tool_call() = first.calls[0];
  auto* result = request.add_items()->mutable_tool_result();
  result->set_call_id(first.calls[0].call_id());
  result->set_name("room_rate");
  result->set_output("89");
  const Answer second = Ask(gateway, request);
  EXPECT_THAT(second.texts, ElementsAre("A single room is 89 euros."));
  EXPECT_EQ(second.done.finish_reason(), "stop");
}

TEST(LlmGatewayTest, OpenAiStreamsTextWithUsage) {
  Provider provider(
      {kOk, Text("Good"), Text(" day.").substr(0, 20), Text(" day.").substr(20), kStop, kDone},
      absl::Milliseconds(5));
  RunningGateway<LlmGatewayConfig> gateway("llm-gateway", ConfigFor(provider.url()),
                                           llm_gateway::Run);
  const Answer answer = Ask(gateway, Request("openai", "hello"));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_THAT(answer.texts, ElementsAre("Good", " day."));
  EXPECT_EQ(answer.done.model(), "m-1");
  EXPECT_EQ(answer.done.usage().input_tokens(), 7);
  EXPECT_THAT(provider.asked(), HasSubstr("POST /v1/chat/completions"));
  EXPECT_THAT(provider.asked(), HasSubstr("Bearer secret-key"));
  EXPECT_THAT(provider.asked(), HasSubstr(R"("content":"hello")"));
}

TEST(LlmGatewayTest, OpenAiToolCallsComeComplete) {
  Provider provider(
      {kOk,
       "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\"function\":"
       "{\"name\":\"rate\",\"arguments\":\"{\\\"room\\\":\"}}]}}]}\n\n",
       "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":"
       "{\"arguments\":\"1}\"}}]},\"finish_reason\":\"tool_calls\"}]}\n\n",
       kDone});
  RunningGateway<LlmGatewayConfig> gateway("llm-gateway", ConfigFor(provider.url()),
                                           llm_gateway::Run);
  const Answer answer = Ask(gateway, Request("openai", "hello"));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  ASSERT_EQ(answer.calls.size(), 1u);
  EXPECT_EQ(answer.calls[0].call_id(), "c1");
  EXPECT_EQ(answer.calls[0].arguments_json(), R"({"room":1})");
}

TEST(LlmGatewayTest, ProviderErrorsAreToldFromThePromptsOwn) {
  const auto status_for = [](const std::string& head, const std::string& body) {
    Provider provider({"HTTP/1.1 " + head + "\r\nConnection: close\r\n\r\n" + body});
    RunningGateway<LlmGatewayConfig> gateway("llm-gateway", ConfigFor(provider.url()),
                                             llm_gateway::Run);
    return Ask(gateway, Request("openai", "hello")).status;
  };
  const absl::Status prompt =
      status_for("400 Bad", R"({"error":{"message":"hello is too long","code":"too_long"}})");
  EXPECT_EQ(prompt.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(prompt), AllOf(HasSubstr("too_long"), Not(HasSubstr("hello"))));
  const absl::Status busy = status_for("429 Slow\r\nRetry-After: 2", "");
  EXPECT_EQ(busy.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(busy).metadata.at("retry_after_ms"), "2000");
  const absl::Status key = status_for("401 No", "");
  EXPECT_EQ(ReasonOf(key).reason, "PROVIDER_KEY_REFUSED");
  EXPECT_THAT(Message(key), Not(HasSubstr("secret-key")));
  EXPECT_EQ(status_for("500 Oops", "").code(), absl::StatusCode::kUnavailable);
}

TEST(LlmGatewayTest, CutAnswersAreAnErrorAfterWhatWasSaid) {
  Provider provider({kOk, Text("Half")});
  RunningGateway<LlmGatewayConfig> gateway("llm-gateway", ConfigFor(provider.url()),
                                           llm_gateway::Run);
  ChatRequest request = Request("openai", "hello");
  request.add_models()->set_engine("rules");  // too late for it
  const Answer answer = Ask(gateway, request);
  EXPECT_THAT(answer.texts, ElementsAre("Half"));
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kUnavailable);
}

TEST(LlmGatewayTest, ChainGoesOnWhenTheProviderIsGone) {
  RunningGateway<LlmGatewayConfig> gateway("llm-gateway", ConfigFor("http://127.0.0.1:1/v1"),
                                           llm_gateway::Run);
  ChatRequest request = Request("openai", "hello");
  EXPECT_EQ(Ask(gateway, request).status.code(), absl::StatusCode::kUnavailable);
  auto* rules = request.add_models();
  rules->set_engine("rules");
  rules->set_rules_json(R"([{"otherwise": "Good day."}])");
  const Answer answer = Ask(gateway, request);
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_THAT(answer.texts, ElementsAre("Good day."));
  EXPECT_EQ(answer.done.engine(), "rules");
}

TEST(LlmGatewayTest, CancellingAndDeadlinesFreeTheThread) {
  Provider provider({kOk, Text("never ending")}, absl::Seconds(20));
  RunningGateway<LlmGatewayConfig> gateway("llm-gateway", ConfigFor(provider.url()),
                                           llm_gateway::Run);
  auto stub = llm::v1::LanguageModelService::NewStub(gateway.channel());
  const auto start = std::chrono::steady_clock::now();
  {
    auto call = gateway.Call();
    auto reader = stub->Chat(call.get(), Request("openai", "hello"));
    call->TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  ChatRequest late = Request("openai", "hello");
  late.mutable_context()->set_deadline_unix_ms(absl::ToUnixMillis(absl::Now()) + 300);
  EXPECT_EQ(Ask(gateway, late).status.code(), absl::StatusCode::kDeadlineExceeded);
  late.mutable_context()->set_deadline_unix_ms(1);
  EXPECT_EQ(Ask(gateway, late).status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(LlmGatewayTest, PicturesAndJsonGoToEnginesThatCan) {
  Provider provider({kOk, Text("{}"), kStop, kDone});
  LlmGatewayConfig config = ConfigFor(provider.url());
  config.max_chats = 16;  // a place is free a moment after its answer
  RunningGateway<LlmGatewayConfig> gateway("llm-gateway", config, llm_gateway::Run);
  // The rules cannot: they are passed over, and asked alone they say so.
  ChatRequest request = Request("rules", "what is it");
  request.mutable_models(0)->set_rules_json(R"([{"otherwise": "Good day."}])");
  llm::v1::Image* image = request.mutable_items(0)->mutable_message()->add_images();
  image->set_url("https://pictures.example/a.png");
  EXPECT_EQ(Ask(gateway, request).status.code(), absl::StatusCode::kInvalidArgument);
  request.mutable_response_format()->set_kind(llm::v1::ResponseFormat::KIND_JSON_OBJECT);
  EXPECT_THAT(Message(Ask(gateway, request).status), HasSubstr("JSON"));
  auto* second = request.add_models();
  second->set_engine("openai");
  second->set_model("m");
  const Answer answer = Ask(gateway, request);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_THAT(answer.texts, ElementsAre("{}"));
  EXPECT_THAT(provider.asked(), HasSubstr(R"("response_format":{"type":"json_object"})"));
  EXPECT_THAT(provider.asked(),
              HasSubstr(R"("image_url":{"url":"https://pictures.example/a.png"})"));
  image->set_url("https://10.0.0.1/a.png");
  EXPECT_THAT(Message(Ask(gateway, request).status), HasSubstr("picture"));
  image->set_url("https://pictures.example/a.png");
  request.mutable_items(0)->mutable_message()->set_role("assistant");
  EXPECT_THAT(Message(Ask(gateway, request).status), HasSubstr("users"));
}

TEST(LlmGatewayTest, AnswersEndWhereTheyShall) {
  const TextFile script(R"({"llm": {"answers": [{"text": "one two three four"}]}})");
  LlmGatewayConfig config;
  config.script = script.path();
  RunningGateway<LlmGatewayConfig> gateway("llm-gateway", config, llm_gateway::Run);
  ChatRequest request = Request("scripted", "count");
  request.add_stop("ee fo");  // over the border of two pieces
  const Answer answer = Ask(gateway, request);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  std::string text;
  for (const std::string& piece : answer.texts) text += piece;
  EXPECT_EQ(text, "one two thr");
  EXPECT_EQ(answer.done.finish_reason(), "stop");
  request.set_stop(0, "");
  EXPECT_EQ(Ask(gateway, request).status.code(), absl::StatusCode::kInvalidArgument);
  request.set_stop(0, std::string(257, 'x'));
  EXPECT_EQ(Ask(gateway, request).status.code(), absl::StatusCode::kInvalidArgument);
}

// A folder with keys, as a secret is mounted.
struct KeyFolder {
  KeyFolder() {
    EXPECT_NE(mkdtemp(path.data()), nullptr);
    std::ofstream(path + "/hotel") << "hotels-key\n";
    std::filesystem::create_directory(path + "/..data");
  }
  ~KeyFolder() { std::filesystem::remove_all(path); }
  std::string path = ::testing::TempDir() + "keys-XXXXXX";
};

TEST(LlmGatewayTest, ProjectsMayBringTheirOwnKeys) {
  const KeyFolder keys;
  Provider provider({kOk, Text("Hi"), kStop, kDone});
  LlmGatewayConfig config = ConfigFor(provider.url());
  config.openai.project_keys = keys.path;
  config.max_chats = 16;
  RunningGateway<LlmGatewayConfig> gateway("llm-gateway", config, llm_gateway::Run);
  ChatRequest request = Request("openai", "hello");
  request.mutable_context()->set_project("hotel");
  EXPECT_TRUE(Ask(gateway, request).status.ok());
  EXPECT_THAT(provider.asked(), HasSubstr("Bearer hotels-key\r\n"));
  EXPECT_THAT(provider.asked(), HasSubstr("x-client-request-id: "));
  request.mutable_context()->set_project("other");
  EXPECT_TRUE(Ask(gateway, request).status.ok());
  EXPECT_THAT(provider.asked(), HasSubstr("Bearer secret-key\r\n"));
}

TEST(LlmGatewayTest, AKeyThatIsRefusedIsItsProjectsOwnTrouble) {
  const KeyFolder keys;
  Provider provider({"HTTP/1.1 401 No\r\nx-request-id: req_a7\r\nConnection: close\r\n\r\n"});
  LlmGatewayConfig config = ConfigFor(provider.url());
  config.openai.project_keys = keys.path;
  config.max_chats = 16;
  RunningGateway<LlmGatewayConfig> gateway("llm-gateway", config, llm_gateway::Run);
  ChatRequest request = Request("openai", "hello");
  request.mutable_context()->set_project("hotel");
  for (int i = 0; i < 5; ++i) {
    const absl::Status refused = Ask(gateway, request).status;
    EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
    EXPECT_THAT(Message(refused), AllOf(HasSubstr("hotel"), HasSubstr("request "),
                                        HasSubstr("req_a7"), Not(HasSubstr("hotels-key"))));
  }
  auto* rules = request.add_models();
  rules->set_engine("rules");
  rules->set_rules_json(R"([{"otherwise": "Good day."}])");
  EXPECT_THAT(Ask(gateway, request).texts, ElementsAre("Good day."));
  // Nobody closed the provider for the others.
  request = Request("openai", "hello");
  EXPECT_EQ(ReasonOf(Ask(gateway, request).status).reason, "PROVIDER_KEY_REFUSED");
}

TEST(LlmGatewayTest, MistakesAreNamed) {
  RunningGateway<LlmGatewayConfig> gateway("llm-gateway", {}, llm_gateway::Run);
  const Answer unknown = Ask(gateway, Request("openai", "hello"));
  EXPECT_EQ(unknown.status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(unknown.status).reason, "UNKNOWN_ENGINE");
  EXPECT_EQ(Ask(gateway, {}).status.code(), absl::StatusCode::kInvalidArgument);
  ChatRequest bad = Request("rules", "x");
  bad.mutable_models(0)->set_rules_json("[1]");
  EXPECT_THAT(Message(Ask(gateway, bad).status), HasSubstr("rule 1"));
  auto stub = llm::v1::LanguageModelService::NewStub(gateway.channel());
  grpc::ClientContext anonymous;
  EXPECT_EQ(stub->Chat(&anonymous, bad)->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  grpc::ClientContext foreign;
  rpc::SetBearer(foreign, "not-a-token");
  EXPECT_EQ(stub->Chat(&foreign, bad)->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST(LlmGatewayTest, ScriptedModelAndTheListOfModels) {
  const TextFile script(
      R"({"llm": {"per_token": "1ms", "answers": [{"when": "bye", "text": "Good bye now."},
          {"call": "look", "arguments": {"a": 1}}]}})");
  LlmGatewayConfig config;
  config.script = script.path();
  RunningGateway<LlmGatewayConfig> gateway("llm-gateway", config, llm_gateway::Run);
  EXPECT_THAT(Ask(gateway, Request("scripted", "BYE!")).texts,
              ElementsAre("Good", " bye", " now."));
  EXPECT_EQ(Ask(gateway, Request("scripted", "hm")).calls.at(0).name(), "look");
  auto call = gateway.Call();
  llm::v1::ListModelsResponse models;
  auto stub = llm::v1::LanguageModelService::NewStub(gateway.channel());
  ASSERT_TRUE(stub->ListModels(call.get(), {}, &models).ok());
  ASSERT_EQ(models.models_size(), 2);
  EXPECT_TRUE(models.models(0).embedded());
}

}  // namespace
}  // namespace parley
