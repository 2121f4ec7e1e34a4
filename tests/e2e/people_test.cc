// An agent among several people, with the real binaries: who said what, keys of telephones, calls
// of methods both ways; agents that only write down, and agents that interpret.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>

#include "auth/token.h"
#include "base/status.h"
#include "caller/connection.h"
#include "testing/calls.h"
#include "testing/matchers.h"

namespace parley::testing {
namespace {

namespace roomv1 = parley::room::v1;
using nlohmann::json;

constexpr absl::Duration kLong = absl::Seconds(30);
constexpr char kScript[] = R"({
  "stt": {"delay": "30ms", "utterances": ["good morning"]},
  "llm": {"delay": "20ms", "answers": [{"when": "good morning", "text": "Guten Morgen."}]},
  "tts": {"delay": "30ms", "per_character": "30ms"}})";

class PeopleTest : public ::testing::Test {
 protected:
  void Start(const std::string& agent_binary) {
    std::string pattern = ::testing::TempDir() + "people-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    ClusterOptions options;
    options.work_dir = pattern;
    options.agent_binary = agent_binary;
    std::ofstream(pattern + "/script.json") << kScript;
    for (const std::string kind : {"stt", "tts", "llm"}) {
      options.extra_arguments[kind + "-gateway"] = {"--" + kind + "-script",
                                                    pattern + "/script.json"};
    }
    PARLEY_ASSERT_OK_AND_ASSIGN(cluster_, Cluster::Start(options));
    api_ = std::make_unique<Api>(*cluster_);
  }
  void TearDown() override {
    const std::string folder = cluster_ == nullptr ? "" : cluster_->work_dir();
    api_.reset();
    cluster_.reset();
    std::error_code ignored;
    if (!folder.empty()) std::filesystem::remove_all(folder, ignored);
  }

  absl::StatusOr<std::unique_ptr<caller::Caller>> Connect(const std::string& token) {
    caller::CallerOptions options;
    options.token = token;
    options.media_url = cluster_->Address("room-server");
    options.record = false;
    PARLEY_ASSIGN_OR_RETURN(auto caller, caller::Caller::Connect(options));
    PARLEY_RETURN_IF_ERROR(caller->WaitForAgent(kLong).status());
    return caller;
  }
  static std::string TokenFor(const std::string& identity, const std::string& room) {
    auth::Claims claims;
    claims.identity = identity;
    claims.video.room_join = true;
    claims.video.room = room;
    return auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Minutes(5));
  }
  absl::Status Speak(caller::Caller& caller) {
    PARLEY_ASSIGN_OR_RETURN(const std::vector<int16_t> speech, api_->Speech("good morning"));
    return caller.Play(speech, kSpeechRateHz);
  }
  // Whose words `caller` is shown: final transcripts of people.
  static std::set<std::string> Spoke(const caller::Caller& caller) {
    std::set<std::string> identities;
    for (const caller::Transcript& one : caller.transcripts()) {
      if (!one.agent && one.final && one.text == "good morning") identities.insert(one.identity);
    }
    return identities;
  }
  static int AgentSpeeches(const caller::Caller& caller) {
    const auto events = caller.events();
    return static_cast<int>(std::count_if(events.begin(), events.end(), [](const auto& event) {
      return event.type == caller::CallEvent::Type::kAgentSpeechStarted;
    }));
  }

  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<Api> api_;
};

// The next event for which `wanted` is true.
template <typename Wanted>
roomv1::RoomEvent Next(caller::Connection& peer, Wanted wanted) {
  const absl::Time end = absl::Now() + kLong;
  while (absl::Now() < end) {
    const auto received = peer.Receive(end - absl::Now());
    if (received.done) break;
    if (received.message && received.message->has_event() && wanted(received.message->event()))
      return received.message->event();
  }
  ADD_FAILURE() << "it never came";
  return {};
}

void Tell(caller::Connection& peer, const roomv1::ParticipantCommand& command) {
  roomv1::JoinRequest request;
  *request.mutable_command() = command;
  ASSERT_TRUE(peer.Send(std::move(request)));
}

TEST_F(PeopleTest, KeysAndCallsGoBothWaysAndEachIsWrittenDownAsWhoTheyAre) {
  ASSERT_NO_FATAL_FAILURE(Start("parley-people-agent"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const json session,
                              api_->Call("POST", "/api/sessions", {{"agent", "people"}}));
  const auto room = session["roomName"].get<std::string>();
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto ann,
                              Connect(session["participantToken"].get<std::string>()));
  PARLEY_ASSERT_OK(ann->WaitForAgentState("listening", kLong));  // she is talked to
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto bob, Connect(TokenFor("bob", room)));

  // Bob is written down and not answered, ann is answered.
  PARLEY_ASSERT_OK(Speak(*bob));
  EXPECT_TRUE(Eventually([&] { return Spoke(*ann) == std::set<std::string>{"bob"}; }, kLong));
  EXPECT_EQ(AgentSpeeches(*ann), 0);
  const int64_t at_us = ann->NowMicros();
  PARLEY_ASSERT_OK(Speak(*ann));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto answer, ann->WaitForTranscript(true, at_us, kLong));
  EXPECT_EQ(answer.text, "Guten Morgen.");
  EXPECT_EQ(Spoke(*bob), (std::set<std::string>{"bob", ann->identity()}));

  // A telephone comes: the agent calls its method, and one that nobody has.
  roomv1::JoinRoom join;
  join.set_token(TokenFor("phone", room));
  PARLEY_ASSERT_OK_AND_ASSIGN(
      const auto phone, caller::Connection::Join(cluster_->Address("room-server"), join, kLong));
  const auto asked = Next(*phone, [](const auto& event) { return event.has_rpc(); }).rpc();
  EXPECT_EQ(asked.request().method(), "name");
  EXPECT_EQ(asked.request().payload(), "who?");
  roomv1::ParticipantCommand command;
  command.mutable_rpc()->set_request_id(asked.request_id());
  command.mutable_rpc()->set_destination_identity(asked.from_identity());
  command.mutable_rpc()->mutable_ack();
  Tell(*phone, command);
  command.mutable_rpc()->mutable_response()->set_payload("a telephone");
  Tell(*phone, command);
  const auto answers =
      Next(*phone, [](const auto& event) { return event.data().topic() == "answers"; }).data();
  EXPECT_EQ(answers.payload(), "a telephone 1401");

  // … and calls the agent's.
  command.Clear();
  command.mutable_rpc()->set_request_id("c1");
  command.mutable_rpc()->set_destination_identity(asked.from_identity());
  command.mutable_rpc()->mutable_request()->set_method("greet");
  command.mutable_rpc()->mutable_request()->set_payload("hello");
  command.mutable_rpc()->mutable_request()->set_response_timeout_ms(5'000);
  Tell(*phone, command);
  const auto greeted =
      Next(*phone, [](const auto& event) { return event.rpc().has_response(); }).rpc();
  EXPECT_EQ(greeted.request_id(), "c1");
  EXPECT_EQ(greeted.response().payload(), "hello, phone!");

  for (const std::string key : {"4", "#"}) {
    command.Clear();
    command.mutable_data()->set_topic("parley.dtmf");
    command.mutable_data()->set_payload(key);
    command.mutable_data()->add_destination_identities(asked.from_identity());
    Tell(*phone, command);
    const auto back =
        Next(*phone, [](const auto& event) { return event.data().topic() == "parley.dtmf"; });
    EXPECT_EQ(back.data().payload(), key);
    EXPECT_EQ(back.data().from_identity(), asked.from_identity());
  }
}

TEST_F(PeopleTest, OneOnlyWritesDownAndOneInterprets) {
  ASSERT_NO_FATAL_FAILURE(Start("parley-agent-server"));
  const std::string engines = R"(, "stt": [{"engine": "scripted"}], "llm": [{"engine": "scripted"}],
      "tts": [{"engine": "scripted"}]})";
  PARLEY_ASSERT_OK(api_->Register(
      R"({"id": "writer", "greeting": "Hello.", "stt": [{"engine": "scripted"}],
          "transcription": {"only": true, "speakers": "all"}})"));
  PARLEY_ASSERT_OK(api_->Register(
      R"({"id": "interpreter", "transcription": {"translate_to": "German"})" + engines));

  PARLEY_ASSERT_OK_AND_ASSIGN(const json session,
                              api_->Call("POST", "/api/sessions", {{"agent", "writer"}}));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto ann,
                              Connect(session["participantToken"].get<std::string>()));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto bob,
                              Connect(TokenFor("bob", session["roomName"].get<std::string>())));
  PARLEY_ASSERT_OK(ann->WaitForAgentState("listening", kLong));
  PARLEY_ASSERT_OK(Speak(*ann));
  PARLEY_ASSERT_OK(Speak(*bob));
  EXPECT_TRUE(Eventually(
      [&] {
        return Spoke(*ann) == std::set<std::string>{"bob", ann->identity()};
      },
      kLong));

  PARLEY_ASSERT_OK_AND_ASSIGN(const auto caller, api_->Call("interpreter"));
  PARLEY_ASSERT_OK(caller->WaitForAgentState("listening", kLong));
  PARLEY_ASSERT_OK(Speak(*caller));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto translated, caller->WaitForTranscript(true, 0, kLong));
  EXPECT_EQ(translated.text, "Guten Morgen.");
  EXPECT_EQ(AgentSpeeches(*caller), 1);
  // By now the other would long have said something.
  EXPECT_EQ(AgentSpeeches(*ann), 0);
  for (const caller::Transcript& one : ann->transcripts()) EXPECT_FALSE(one.agent) << one.text;
}

}  // namespace
}  // namespace parley::testing
