// What a job has to do with others in its room beside talking: a telephone's keys, calls of methods
// both ways, people who are transcribed but not talked to.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "audio/wav.h"
#include "base/status.h"
#include "job_peer.h"

namespace parley::agent {
namespace {

namespace jobv1 = parley::job::v1;
namespace roomv1 = parley::room::v1;
using FromJob = jobv1::FromJob;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

SessionConfig Engines() {
  SessionConfig config;
  config.instructions = "Count.";
  config.stt = {{.engine = "scripted"}};
  config.llm = {{.engine = "scripted"}};
  config.tts = {{.engine = "scripted"}};
  return config;
}
AgentOptions ProgramWith(std::function<void(JobContext&, SessionConfig&)> prepare,
                         std::function<void(JobContext&)> then = {}) {
  return {.agent_name = "echo", .entrypoint = [prepare, then](JobContext& job) -> absl::Status {
            SessionConfig config = Engines();
            prepare(job, config);
            PARLEY_ASSIGN_OR_RETURN(AgentSession * session, job.StartSession(std::move(config)));
            if (then) then(job);
            return session->Wait();
          }};
}

std::vector<std::string> Lines(const JobPeer& peer) {
  std::vector<std::string> lines;
  for (const FromJob& message : peer.messages) {
    if (message.has_log()) lines.push_back(message.log().message());
  }
  return lines;
}
bool UntilLogged(JobPeer& peer, const std::string& line) {
  return peer.Until([&] {
    const auto lines = Lines(peer);
    return std::find(lines.begin(), lines.end(), line) != lines.end();
  });
}
bool UntilListening(JobPeer& peer) {
  return peer.Until([&] { return !peer.states.empty() && peer.states.back() == "listening"; });
}
std::vector<roomv1::RpcPacket> Calls(const JobPeer& peer) {
  std::vector<roomv1::RpcPacket> calls;
  for (const FromJob& message : peer.messages) {
    if (message.room_command().has_rpc()) calls.push_back(message.room_command().rpc());
  }
  return calls;
}
void Press(JobPeer& peer, const std::string& key, const std::string& identity) {
  roomv1::RoomEvent event;
  event.mutable_data()->set_topic("parley.dtmf");
  event.mutable_data()->set_payload(key);
  event.mutable_data()->set_from_identity(identity);
  peer.RoomEvent(event);
}

// A person says "front center".
std::vector<int16_t> Speech() {
  auto samples = audio::ReadSpeech("/usr/share/sounds/alsa/Front_Center.wav", 48'000);
  return samples.ok() ? *samples : std::vector<int16_t>();
}

TEST(JobRoomTest, KeysAreToldAndAreATurnOfWhoIsTalkedTo) {
  JobPeer peer(ProgramWith([](JobContext& job, SessionConfig& config) {
    config.options.dtmf_pause = absl::Milliseconds(300);
    config.on_dtmf = [&job](const std::string& identity, char key) {
      job.log().Info(identity + " pressed " + std::string(1, key));
    };
  }));
  peer.Assign();
  ASSERT_TRUE(UntilListening(peer));
  Press(peer, "4", "ann");
  Press(peer, "7", "bob");
  Press(peer, "2", "ann");
  ASSERT_TRUE(peer.Until([&] { return !peer.chats.empty(); }));
  const auto& chat = peer.chats[0];
  EXPECT_EQ(chat.items(chat.items_size() - 1).message().text(), "pressed 42");
  EXPECT_TRUE(UntilLogged(peer, "bob pressed 7"));
}

TEST(JobRoomTest, KeysAreSentInOrderAndNonsenseIsNot) {
  JobPeer peer(ProgramWith([](JobContext&, SessionConfig&) {},
                           [](JobContext& job) {
                             EXPECT_TRUE(job.SendDtmf("1#A", {"phone"}).ok());
                             job.log().Info(job.SendDtmf("1w2").ok() ? "taken" : "refused");
                           }));
  peer.Assign();
  ASSERT_TRUE(UntilLogged(peer, "refused"));
  std::string sent;
  for (const FromJob& message : peer.messages) {
    const roomv1::DataPacket& packet = message.room_command().data();
    if (packet.topic() != "parley.dtmf") continue;
    sent += packet.payload();
    EXPECT_THAT(packet.destination_identities(), ElementsAre("phone"));
  }
  EXPECT_EQ(sent, "1#A");
}

TEST(JobRoomTest, MethodsAreCalledAndFail) {
  JobPeer peer(ProgramWith([](JobContext& job, SessionConfig&) {
    job.RegisterRpc("add", [](const std::string& caller, const std::string& payload) {
      return absl::StatusOr<std::string>(caller + " " + payload);
    });
    job.RegisterRpc("fail", [](const std::string&, const std::string&) {
      return absl::StatusOr<std::string>(
          WithReason(Internal("no"), "MINE", {{"code", "77"}, {"data", "more"}}));
    });
    job.RegisterRpc("throw",
                    [](const std::string&, const std::string&) -> absl::StatusOr<std::string> {
                      throw std::runtime_error("secret");
                    });
  }));
  peer.Assign();
  ASSERT_TRUE(UntilListening(peer));
  for (const char* method : {"add", "fail", "throw", "nothing"}) {
    roomv1::RoomEvent event;
    event.mutable_rpc()->set_request_id(method);
    event.mutable_rpc()->set_from_identity("ann");
    event.mutable_rpc()->mutable_request()->set_method(method);
    event.mutable_rpc()->mutable_request()->set_payload("1");
    peer.RoomEvent(event);
  }
  ASSERT_TRUE(peer.Until([&] { return Calls(peer).size() == 8; }));
  std::map<std::string, roomv1::RpcResponse> answers;
  for (const roomv1::RpcPacket& packet : Calls(peer)) {
    EXPECT_EQ(packet.destination_identity(), "ann");
    if (packet.has_response()) {
      answers[packet.request_id()] = packet.response();
    } else {
      EXPECT_TRUE(packet.has_ack());
      EXPECT_FALSE(answers.contains(packet.request_id())) << "the answer came first";
    }
  }
  EXPECT_EQ(answers["add"].payload(), "ann 1");
  EXPECT_EQ(answers["fail"].error().code(), 77u);
  EXPECT_EQ(answers["fail"].error().message(), "no");
  EXPECT_EQ(answers["fail"].error().data(), "more");
  EXPECT_EQ(answers["throw"].error().code(), 1500u);
  EXPECT_THAT(answers["throw"].error().message(), ::testing::Not(::testing::HasSubstr("secret")));
  EXPECT_EQ(answers["nothing"].error().code(), 1400u);
}

TEST(JobRoomTest, CallsAreAnsweredRefusedAndGivenUp) {
  JobPeer peer(ProgramWith(
      [](JobContext&, SessionConfig&) {},
      [](JobContext& job) {
        for (const char* who : {"ann", "nobody", "silent"}) {
          const auto result = job.PerformRpc(who, "ask", "1", absl::Milliseconds(400));
          job.log().Info(std::string(who) + ": " +
                         (result.ok() ? *result : ReasonOf(result.status()).metadata["code"]));
        }
      }));
  peer.Assign();
  const auto request_to = [&](const std::string& who) {
    roomv1::RpcPacket found;
    peer.Until([&] {
      for (const roomv1::RpcPacket& packet : Calls(peer)) {
        if (packet.destination_identity() == who) found = packet;
      }
      return found.has_request();
    });
    return found;
  };
  const auto answer = [&](const roomv1::RpcPacket& request) {
    roomv1::RoomEvent event;
    event.mutable_rpc()->set_request_id(request.request_id());
    event.mutable_rpc()->mutable_ack();
    peer.RoomEvent(event);
    return event;
  };
  const roomv1::RpcPacket first = request_to("ann");
  EXPECT_EQ(first.request().method(), "ask");
  EXPECT_EQ(first.request().response_timeout_ms(), 400u);
  roomv1::RoomEvent event = answer(first);
  event.mutable_rpc()->mutable_response()->set_payload("two");
  peer.RoomEvent(event);
  EXPECT_TRUE(UntilLogged(peer, "ann: two"));
  event = answer(request_to("nobody"));
  event.mutable_rpc()->mutable_response()->mutable_error()->set_code(1401);
  peer.RoomEvent(event);
  EXPECT_TRUE(UntilLogged(peer, "nobody: 1401"));
  answer(request_to("silent"));
  EXPECT_TRUE(UntilLogged(peer, "silent: 1502"));
}

// Two people: one is talked to, the other is written down under his own name.
TEST(JobRoomTest, EverybodyIsTranscribedAsWhoTheyAre) {
  JobPeer peer(ProgramWith([](JobContext& job, SessionConfig& config) {
    config.transcribe_everybody = true;
    config.on_overheard = [&job](const std::string& identity, std::string_view text) {
      job.log().Info(identity + ": " + std::string(text));
    };
  }));
  peer.Assign();
  ASSERT_TRUE(UntilListening(peer));
  roomv1::RoomEvent event;
  event.mutable_participant_joined()->mutable_participant()->set_identity("bob");
  event.mutable_participant_joined()->mutable_participant()->set_name("Bob");
  peer.RoomEvent(event);
  event.mutable_subscription_started()->set_participant_identity("bob");
  event.mutable_subscription_started()->mutable_track()->set_sid("TR_bob");
  event.mutable_subscription_started()->set_track_number(8);
  peer.RoomEvent(event);
  std::vector<int16_t> speech = Speech();
  speech.resize(speech.size() + 48'000);  // and a second of silence
  peer.finals = {"so says bob"};
  peer.Speak(speech, 8);
  ASSERT_TRUE(UntilLogged(peer, "bob: so says bob"));
  EXPECT_THAT(peer.chats, IsEmpty()) << "it is no turn";
  peer.finals = {"what did he say"};
  peer.Speak(speech, 7);
  ASSERT_TRUE(peer.Until([&] { return !peer.chats.empty(); }));
  std::vector<std::string> said;
  for (const auto& item : peer.chats[0].items()) said.push_back(item.message().text());
  EXPECT_THAT(said, ElementsAre("Count.", "Bob: so says bob", "what did he say"));
  std::map<std::string, std::string> tracks;
  for (const FromJob& message : peer.messages) {
    const roomv1::TextPacket& text = message.room_command().text();
    if (text.topic() == "lk.transcription" && text.from_identity() != "agent-AJ_1")
      tracks[text.from_identity()] = text.attributes().at("lk.transcribed_track_id");
  }
  EXPECT_THAT(tracks, ElementsAre(std::pair("ann", "TR_ann"), std::pair("bob", "TR_bob")));
}

// A model that hears and speaks, played by the test: audio there and back, a tool, an interruption.
TEST(JobRoomTest, AModelThatSpeaksIsHeardAndInterrupted) {
  JobPeer peer({.agent_name = "echo", .entrypoint = [](JobContext& job) -> absl::Status {
                  SessionConfig config;
                  config.instructions = "Be kind.";
                  config.greeting = "Good day.";
                  config.realtime = {.engine = "openai-realtime", .model = "m", .voice = "v"};
                  config.tools = {{.name = "rate", .run = [](std::string_view) {
                                     return absl::StatusOr<std::string>("89");
                                   }}};
                  PARLEY_ASSIGN_OR_RETURN(AgentSession * session,
                                          job.StartSession(std::move(config)));
                  return session->Wait();
                }});
  int responses = 0;
  peer.on_realtime = [&](const jobv1::RealtimeCommand& command) {
    if (!command.request().has_respond()) return;
    const uint32_t response = command.request().respond().response();
    const auto tell = [&](const std::function<void(parley::llm::v1::RealtimeResponse&)>& fill) {
      JobPeer::ToJob message;
      message.mutable_realtime()->set_stream(command.stream());
      fill(*message.mutable_realtime()->mutable_response());
      peer.Send(message);
    };
    if (++responses == 2) {
      tell([&](auto& out) {
        out.mutable_tool_call()->set_response(response);
        out.mutable_tool_call()->mutable_call()->set_call_id("c1");
        out.mutable_tool_call()->mutable_call()->set_name("rate");
        out.mutable_tool_call()->mutable_call()->set_arguments_json("{}");
      });
    } else {
      const int seconds = responses == 3 ? 8 : 1;
      tell([&](auto& out) {
        out.mutable_text()->set_response(response);
        out.mutable_text()->set_delta("One two three four.");
      });
      tell([&](auto& out) {
        std::vector<int16_t> samples(static_cast<size_t>(24'000) * static_cast<size_t>(seconds));
        for (size_t i = 0; i < samples.size(); ++i) samples[i] = i / 40 % 2 == 0 ? 6'000 : -6'000;
        out.mutable_audio()->set_response(response);
        out.mutable_audio()->set_data(std::string(audio::AsBytes(samples)));
      });
    }
    tell([&](auto& out) { out.mutable_done()->set_response(response); });
  };
  peer.Assign();
  ASSERT_TRUE(peer.Until([&] { return peer.agent_said == "One two three four.|"; }));
  ASSERT_GE(peer.realtime.size(), 2u);
  const auto& config = peer.realtime[0].request().config();
  EXPECT_EQ(config.model().engine(), "openai-realtime");
  EXPECT_EQ(config.voice(), "v");
  EXPECT_EQ(config.tools(0).name(), "rate");
  EXPECT_EQ(config.items(0).message().text(), "Be kind.");
  EXPECT_EQ(config.input_rate_hz(), 16'000);
  EXPECT_THAT(peer.realtime[1].request().respond().instructions(),
              ::testing::HasSubstr("Good day."));

  std::vector<int16_t> speech = Speech();
  const auto spoken = static_cast<double>(speech.size()) / 48'000;
  speech.resize(speech.size() + 48'000);
  peer.Speak(speech);
  ASSERT_TRUE(peer.Until([&] { return responses == 3; }));
  EXPECT_GT(static_cast<double>(peer.realtime_audio.size()) / 32'000, spoken * 0.7);
  bool committed = false;
  std::string output;
  for (const jobv1::RealtimeCommand& command : peer.realtime) {
    committed = committed || command.request().has_commit();
    if (command.request().has_item()) output = command.request().item().tool_result().output();
  }
  EXPECT_TRUE(committed);
  EXPECT_EQ(output, "89");

  // Its long answer is talked over.
  const size_t before = peer.realtime.size();
  peer.Speak(speech);
  ASSERT_TRUE(peer.Until([&] { return responses == 4; }));
  int64_t heard_ms = -1;
  for (size_t i = before; i < peer.realtime.size(); ++i) {
    const auto& request = peer.realtime[i].request();
    if (request.has_truncate()) heard_ms = request.truncate().audio_ms();
  }
  EXPECT_GT(heard_ms, 300);
  EXPECT_LT(heard_ms, 4'000);

  // The stream is lost: another one is told what was said.
  JobPeer::ToJob lost;
  lost.mutable_realtime()->set_stream(peer.realtime[0].stream());
  lost.mutable_realtime()->mutable_failed()->set_message("gone");
  peer.Send(lost);
  ASSERT_TRUE(peer.Until([&] {
    return peer.realtime.back().request().has_config() && peer.realtime.back().stream() > 1;
  }));
  EXPECT_GE(peer.realtime.back().request().config().items_size(), 4);
}

}  // namespace
}  // namespace parley::agent
