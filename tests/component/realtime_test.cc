// Models that hear and speak: the gateway over real gRPC, against a server of the protocol that
// checks every message.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "audio/pcm.h"
#include "gateway_fixture.h"
#include "llm_gateway/llm_gateway.h"
#include "parley/llm/v1/llm.grpc.pb.h"
#include "testing/matchers.h"
#include "testing/realtime_provider.h"

namespace parley {
namespace {

using llm::v1::RealtimeRequest;
using llm::v1::RealtimeResponse;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::RealtimeProvider;
using testing::RunningGateway;
using Json = nlohmann::json;

std::vector<int16_t> Tone(int ms, int rate_hz) {
  std::vector<int16_t> samples(static_cast<size_t>(ms) * static_cast<size_t>(rate_hz) / 1000);
  for (size_t i = 0; i < samples.size(); ++i) {
    const double angle = 2 * std::numbers::pi * 440 * static_cast<double>(i) / rate_hz;
    samples[i] = static_cast<int16_t>(8000 * std::sin(angle));
  }
  return samples;
}

LlmGatewayConfig ConfigFor(const std::string& url) {
  LlmGatewayConfig config;
  config.openai.base_url = url;
  config.openai.key = "secret-key";
  return config;
}

// One conversation with the gateway.
class Talk {
 public:
  explicit Talk(const std::string& url) : Talk(ConfigFor(url)) {}
  explicit Talk(const LlmGatewayConfig& config)
      : gateway_("llm-gateway", config, llm_gateway::Run), call_(gateway_.Call()) {
    stub_ = llm::v1::LanguageModelService::NewStub(gateway_.channel());
    stream_ = stub_->Realtime(call_.get());
  }
  ~Talk() {
    call_->TryCancel();
    if (!over_) (void)End();
  }

  void Open(const std::function<void(llm::v1::RealtimeConfig&)>& change = {}) {
    RealtimeRequest request;
    llm::v1::RealtimeConfig& config = *request.mutable_config();
    config.mutable_model()->set_engine("openai-realtime");
    config.mutable_model()->set_model("model-1");
    config.set_voice("marin");
    config.set_input_rate_hz(16'000);
    config.set_output_rate_hz(24'000);
    auto* system = config.add_items()->mutable_message();
    system->set_role("system");
    system->set_text("You are kind.");
    auto* tool = config.add_tools();
    tool->set_name("room_rate");
    tool->set_parameters_json(R"({"type":"object","properties":{}})");
    if (change) change(config);
    stream_->Write(request);
  }
  void Say(int ms, uint64_t utterance) {
    RealtimeRequest request;
    const std::vector<int16_t> samples = Tone(ms, 16'000);
    for (size_t at = 0; at < samples.size(); at += 1600) {
      const size_t size = std::min<size_t>(1600, samples.size() - at);
      request.set_audio(std::string(audio::AsBytes(std::span(samples).subspan(at, size))));
      stream_->Write(request);
    }
    if (utterance == 0) return;
    request.mutable_commit()->set_utterance(utterance);
    stream_->Write(request);
  }
  void Quiet(int ms) {
    RealtimeRequest request;
    request.set_audio(std::string(static_cast<size_t>(ms) * 32, '\0'));
    stream_->Write(request);
  }
  void Clear(uint64_t from) {
    RealtimeRequest request;
    request.mutable_clear()->set_from_utterance(from);
    stream_->Write(request);
  }
  void Respond(uint32_t number, const std::string& instructions = {}) {
    RealtimeRequest request;
    request.mutable_respond()->set_response(number);
    request.mutable_respond()->set_instructions(instructions);
    stream_->Write(request);
  }
  void Cancel(uint32_t number) {
    RealtimeRequest request;
    request.mutable_cancel()->set_response(number);
    stream_->Write(request);
  }
  void Truncate(uint32_t number, int64_t ms) {
    RealtimeRequest request;
    request.mutable_truncate()->set_response(number);
    request.mutable_truncate()->set_audio_ms(ms);
    stream_->Write(request);
  }
  void Result(const std::string& call_id, const std::string& output) {
    RealtimeRequest request;
    request.mutable_item()->mutable_tool_result()->set_call_id(call_id);
    request.mutable_item()->mutable_tool_result()->set_output(output);
    stream_->Write(request);
  }
  void Write(const RealtimeRequest& request) { stream_->Write(request); }
  // Reads until a message of this kind; the stream's end fails the test. Audio and text are added
  // up on the way.
  RealtimeResponse Until(RealtimeResponse::MessageCase kind) {
    RealtimeResponse response;
    while (stream_->Read(&response)) {
      if (response.has_audio())
        audio::AppendSamples(response.audio().data(), heard[response.audio().response()]);
      if (response.has_text()) text[response.text().response()] += response.text().delta();
      if (response.message_case() == kind) return response;
    }
    ADD_FAILURE() << "the stream ended: " << End();
    return response;
  }
  absl::Status End() {
    RealtimeResponse response;
    while (stream_->Read(&response)) {
    }
    over_ = true;
    return rpc::FromGrpcStatus(stream_->Finish());
  }
  std::map<uint32_t, std::vector<int16_t>> heard;
  std::map<uint32_t, std::string> text;

 private:
  bool over_ = false;
  RunningGateway<LlmGatewayConfig> gateway_;
  std::unique_ptr<grpc::ClientContext> call_;
  std::unique_ptr<llm::v1::LanguageModelService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<RealtimeRequest, RealtimeResponse>> stream_;
};

TEST(RealtimeTest, HearsAndSpeaks) {
  std::vector<RealtimeProvider::Asked> asked;
  RealtimeProvider provider([&](const RealtimeProvider::Asked& one) {
    asked.push_back(one);
    return RealtimeProvider::Answer{.text = "Good day to you.", .samples = Tone(900, 24'000)};
  });
  Talk talk(provider.url());
  talk.Open();
  EXPECT_EQ(talk.Until(RealtimeResponse::kReady).ready().model(), "model-1");
  talk.Say(800, 7);
  talk.Respond(3);
  const auto partial = talk.Until(RealtimeResponse::kTranscript).transcript();
  EXPECT_EQ(partial.utterance(), 7u);
  EXPECT_FALSE(partial.final());
  EXPECT_EQ(partial.text(), "what");
  const auto done = talk.Until(RealtimeResponse::kDone).done();
  EXPECT_EQ(done.response(), 3u);
  EXPECT_EQ(done.finish_reason(), "stop");
  EXPECT_EQ(done.usage().output_tokens(), 20);
  EXPECT_EQ(talk.text[3], "Good day to you.");
  EXPECT_NEAR(static_cast<double>(talk.heard[3].size()), 21'600, 240);
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_THAT(asked[0].said, ElementsAre("audio"));
  EXPECT_EQ(asked[0].session["instructions"], "You are kind.");
  EXPECT_EQ(asked[0].session["audio"]["output"]["voice"], "marin");
  // 16 kHz came in, 24 kHz went out, and it is the same tone: as loud, as long.
  EXPECT_NEAR(static_cast<double>(asked[0].heard.size()), 19'200, 480);
  const auto loudest = *std::max_element(asked[0].heard.begin(), asked[0].heard.end());
  EXPECT_NEAR(loudest, 8000, 400);
  EXPECT_THAT(provider.violations(), IsEmpty());
}

TEST(RealtimeTest, TheFirstVersionsNamesAreUnderstood) {
  RealtimeProvider provider({.old_names = true}, [](const RealtimeProvider::Asked&) {
    return RealtimeProvider::Answer{.text = "Yes.", .samples = Tone(200, 24'000)};
  });
  Talk talk(provider.url());
  talk.Open();
  talk.Respond(1);
  talk.Until(RealtimeResponse::kDone);
  EXPECT_EQ(talk.text[1], "Yes.");
  EXPECT_FALSE(talk.heard[1].empty());
}

TEST(RealtimeTest, TheHistoryIsToldAndToolsAreCalled) {
  std::vector<RealtimeProvider::Asked> asked;
  RealtimeProvider provider([&](const RealtimeProvider::Asked& one) {
    asked.push_back(one);
    if (one.response > 1)
      return RealtimeProvider::Answer{.text = "89.", .samples = Tone(200, 24'000)};
    return RealtimeProvider::Answer{.calls = {{"room_rate", R"({"room":"single"})"}}};
  });
  Talk talk(provider.url());
  talk.Open([](llm::v1::RealtimeConfig& config) {
    for (const auto& [role, text] : {std::pair("user", "hello"), std::pair("assistant", "Hi.")}) {
      auto* message = config.add_items()->mutable_message();
      message->set_role(role);
      message->set_text(text);
    }
    auto* call = config.add_items()->mutable_tool_call();
    call->set_call_id("call_before");
    call->set_name("room_rate");
    call->set_arguments_json("{}");
    auto* result = config.add_items()->mutable_tool_result();
    result->set_call_id("call_before");
    result->set_output("99");
  });
  talk.Respond(1, "Be quick.");
  const auto call = talk.Until(RealtimeResponse::kToolCall).tool_call();
  EXPECT_EQ(call.call().name(), "room_rate");
  EXPECT_EQ(call.call().arguments_json(), R"({"room":"single"})");
  EXPECT_EQ(talk.Until(RealtimeResponse::kDone).done().finish_reason(), "tool_calls");
  talk.Result(call.call().call_id(), "89 euros");
  talk.Respond(2);
  EXPECT_EQ(talk.Until(RealtimeResponse::kDone).done().finish_reason(), "stop");
  ASSERT_EQ(asked.size(), 2u);
  EXPECT_THAT(asked[0].said, ElementsAre("hello"));
  EXPECT_EQ(asked[0].instructions, "You are kind.\n\nBe quick.");
  EXPECT_EQ(asked[1].outputs[call.call().call_id()], "89 euros");
  EXPECT_THAT(provider.violations(), IsEmpty());
}

TEST(RealtimeTest, AnInterruptedAnswerIsCancelledAndCutAndTheNextWaitsForIt) {
  RealtimeProvider provider([](const RealtimeProvider::Asked& one) {
    RealtimeProvider::Answer answer{.text = "This is a long one.", .samples = Tone(20'000, 24'000)};
    answer.speed = 4;
    if (one.response > 1) answer = {.text = "Yes?", .samples = Tone(300, 24'000)};
    return answer;
  });
  Talk talk(provider.url());
  talk.Open();
  talk.Respond(1);
  while (talk.heard[1].size() < 24'000) talk.Until(RealtimeResponse::kAudio);
  talk.Cancel(1);
  talk.Truncate(1, 640);
  talk.Respond(2);  // at once: the first may still be on its way
  EXPECT_EQ(talk.Until(RealtimeResponse::kDone).done().finish_reason(), "cancelled");
  const size_t heard = talk.heard[1].size();
  EXPECT_EQ(talk.Until(RealtimeResponse::kDone).done().response(), 2u);
  EXPECT_EQ(talk.text[2], "Yes?");
  EXPECT_EQ(talk.heard[1].size(), heard) << "of what was cancelled nothing follows";
  EXPECT_EQ(provider.received("response.cancel").size(), 1u);
  ASSERT_EQ(provider.received("conversation.item.truncate").size(), 1u);
  EXPECT_EQ(provider.received("conversation.item.truncate")[0]["audio_end_ms"], 640);
  EXPECT_THAT(provider.violations(), IsEmpty());
}

TEST(RealtimeTest, ItsOwnDetectionTells) {
  RealtimeProvider provider([](const RealtimeProvider::Asked&) {
    return RealtimeProvider::Answer{.text = "Yes.", .samples = Tone(200, 24'000)};
  });
  Talk talk(provider.url());
  talk.Open([](llm::v1::RealtimeConfig& config) {
    config.set_server_turns(true);
    config.set_silence_ms(400);
  });
  for (uint64_t utterance = 1; utterance <= 2; ++utterance) {
    talk.Say(500, 0);
    const auto started = talk.Until(RealtimeResponse::kSpeech).speech();
    EXPECT_TRUE(started.started());
    EXPECT_EQ(started.utterance(), utterance);
    talk.Quiet(500);
    const auto stopped = talk.Until(RealtimeResponse::kSpeech).speech();
    EXPECT_FALSE(stopped.started());
    EXPECT_EQ(stopped.utterance(), utterance);
    EXPECT_EQ(talk.Until(RealtimeResponse::kTranscript).transcript().utterance(), utterance);
  }
  // It speaks only when told to.
  EXPECT_THAT(provider.received("response.create"), IsEmpty());
  EXPECT_THAT(provider.violations(), IsEmpty());
}

TEST(RealtimeTest, WhatIsTakenBackWasNeverSaid) {
  std::vector<RealtimeProvider::Asked> asked;
  RealtimeProvider provider([&](const RealtimeProvider::Asked& one) {
    asked.push_back(one);
    return RealtimeProvider::Answer{.text = "Yes.", .samples = Tone(200, 24'000)};
  });
  Talk talk(provider.url());
  talk.Open();
  talk.Say(800, 1);
  talk.Until(RealtimeResponse::kTranscript);
  talk.Say(700, 2);
  talk.Say(600, 0);
  talk.Clear(1);  // the first is an item by now, the second on its way, the third not committed
  EXPECT_TRUE(testing::Eventually(
      [&] { return provider.received("conversation.item.delete").size() == 2; }));
  talk.Say(500, 3);
  talk.Respond(1);
  talk.Until(RealtimeResponse::kDone);
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_NEAR(static_cast<double>(asked[0].heard.size()), 12'000, 480);
  EXPECT_THAT(provider.violations(), IsEmpty());
}

TEST(RealtimeTest, ARefusedUtteranceTakesNobodysPlace) {
  RealtimeProvider provider(
      [](const RealtimeProvider::Asked&) { return RealtimeProvider::Answer{}; });
  Talk talk(provider.url());
  talk.Open();
  talk.Say(40, 1);  // too short for it
  talk.Say(800, 2);
  EXPECT_EQ(talk.Until(RealtimeResponse::kTranscript).transcript().utterance(), 2u);
  EXPECT_THAT(provider.violations(), ElementsAre(HasSubstr("less than 100 ms")));
}

TEST(RealtimeTest, AFailedAnswerEndsNothing) {
  RealtimeProvider provider([](const RealtimeProvider::Asked& one) {
    RealtimeProvider::Answer answer{.text = "Yes.", .samples = Tone(200, 24'000)};
    if (one.response == 1) answer.fails = "the model is overloaded";
    return answer;
  });
  Talk talk(provider.url());
  talk.Open();
  talk.Respond(1);
  const auto failed = talk.Until(RealtimeResponse::kDone).done();
  EXPECT_EQ(failed.finish_reason(), "failed");
  EXPECT_EQ(failed.error(), "server_error") << "its sentences may quote people";
  talk.Respond(2);
  EXPECT_EQ(talk.Until(RealtimeResponse::kDone).done().finish_reason(), "stop");
}

TEST(RealtimeTest, AProviderThatHangsUpEndsTheStream) {
  RealtimeProvider provider([](const RealtimeProvider::Asked&) {
    RealtimeProvider::Answer answer{.text = "This is it.", .samples = Tone(2000, 24'000)};
    answer.hangs_up = true;
    return answer;
  });
  Talk talk(provider.url());
  talk.Open();
  talk.Respond(1);
  EXPECT_THAT(talk.End(), testing::HasCode(absl::StatusCode::kUnavailable));
}

TEST(RealtimeTest, WhatCannotBeSaysWhy) {
  RealtimeProvider provider({.key = "another-key"}, [](const RealtimeProvider::Asked&) {
    return RealtimeProvider::Answer{};
  });
  {
    Talk talk(provider.url());
    talk.Open();
    const absl::Status refused = talk.End();
    EXPECT_THAT(refused, testing::HasCode(absl::StatusCode::kUnavailable));
    EXPECT_THAT(std::string(Message(refused)), HasSubstr("401"));
    EXPECT_THAT(std::string(Message(refused)),
                ::testing::ContainsRegex("request [0-9a-f]+-[0-9a-f]+"));
    EXPECT_THAT(std::string(Message(refused)), HasSubstr("there req_refused"));
  }
  {
    Talk talk("http://127.0.0.1:1/v1");
    talk.Open();
    EXPECT_THAT(talk.End(), testing::HasCode(absl::StatusCode::kUnavailable));
  }
  const std::vector<std::pair<std::function<void(llm::v1::RealtimeConfig&)>, absl::StatusCode>>
      bad = {
          {[](auto& config) { config.mutable_model()->set_engine("x"); },
           absl::StatusCode::kNotFound},
          {[](auto& config) { config.mutable_model()->set_model(""); },
           absl::StatusCode::kInvalidArgument},
          {[](auto& config) { (*config.mutable_model()->mutable_options())["x"] = "y"; },
           absl::StatusCode::kInvalidArgument},
          {[](auto& config) { config.set_input_rate_hz(0); }, absl::StatusCode::kInvalidArgument}};
  for (const auto& [change, code] : bad) {
    Talk talk(provider.url());
    talk.Open(change);
    EXPECT_THAT(talk.End(), testing::HasCode(code));
  }
  Talk early(provider.url());
  early.Respond(1);
  EXPECT_THAT(early.End(), testing::HasCode(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace parley
