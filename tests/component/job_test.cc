// A job process, forked as the zygote would, talked to as its agent server would.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <span>
#include <sstream>

#include "audio/level.h"
#include "audio/wav.h"
#include "base/status.h"
#include "job_peer.h"
#include "registry/definition.h"
#include "session/recording.h"

namespace parley::agent {
namespace {

namespace dispatchv1 = parley::dispatch::v1;
namespace jobv1 = parley::job::v1;
namespace roomv1 = parley::room::v1;
using FromJob = jobv1::FromJob;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

SessionConfig Engines() {
  SessionConfig config;
  config.instructions = "Be brief.";
  config.stt = {{.engine = "scripted"}};
  config.llm = {{.engine = "scripted"}};
  config.tts = {{.engine = "scripted"}};
  return config;
}

// An agent that holds one conversation.
AgentOptions Talker(SessionConfig config) {
  return {.agent_name = "echo", .entrypoint = [config](JobContext& job) -> absl::Status {
            PARLEY_ASSIGN_OR_RETURN(AgentSession * session, job.StartSession(config));
            return session->Wait();
          }};
}

AgentOptions Program(std::function<absl::Status(JobContext&)> entrypoint) {
  return {.agent_name = "echo", .entrypoint = std::move(entrypoint)};
}

// A person who says "front center".
std::vector<int16_t> Recording() {
  auto samples = audio::ReadSpeech("/usr/share/sounds/alsa/Front_Center.wav", 48'000);
  return samples.ok() ? *samples : std::vector<int16_t>();
}
std::vector<int16_t> Silence(int ms) { return std::vector<int16_t>(static_cast<size_t>(ms) * 48); }

parley::llm::v1::ChatResponse Text(const std::string& text) {
  parley::llm::v1::ChatResponse response;
  response.mutable_text()->set_text(text);
  return response;
}

const jobv1::Ended& EndOf(JobPeer& peer) {
  static const jobv1::Ended kNone;
  return peer.UntilHas(FromJob::kEnded) ? peer.Find(FromJob::kEnded)->ended() : kNone;
}

TEST(JobTest, GreetsHearsAndAnswers) {
  if (Recording().empty()) GTEST_SKIP() << "alsa-utils is not installed";
  SessionConfig config = Engines();
  config.greeting = "Good day.";
  config.keep_transcript = true;
  JobPeer peer(Talker(config));
  peer.finals = {"front center"};
  peer.answers = {Text("It is over there.")};
  ASSERT_TRUE(peer.UntilHas(FromJob::kHello));
  peer.Assign();
  ASSERT_TRUE(peer.Until([&] { return peer.agent_said == "Good day.|"; })) << peer.agent_said;
  const size_t greeting_frames = peer.frames_us.size();
  EXPECT_EQ(greeting_frames, 20U) << "two words of 200 ms";
  peer.Speak(Recording());
  peer.Speak(Silence(700));
  ASSERT_TRUE(peer.Until([&] { return !peer.turns.empty() && peer.states.back() == "listening"; }));

  EXPECT_EQ(peer.user_said, "front center|");
  EXPECT_EQ(peer.agent_said, "Good day.|It is over there.|");
  EXPECT_THAT(peer.states, ElementsAre("initializing", "listening", "speaking", "listening",
                                       "thinking", "speaking", "listening"));
  // About a second of speech, 400 ms before it, 450 ms after.
  EXPECT_GT(peer.stt_audio.size(), 2 * 16'000U);
  EXPECT_LT(peer.stt_audio.size(), 2 * 16'000U * 5 / 2);
  EXPECT_GT(audio::LevelDbov(peer.heard), -30);
  const jobv1::TurnReport& turn = peer.turns[0];
  EXPECT_NEAR(turn.endpointing_ms() + turn.transcript_ms() + turn.llm_ms() + turn.tts_ms() +
                  turn.output_ms(),
              turn.total_ms(), 0.01);
  // A busy machine adds to it: bench/pipeline holds it to milliseconds.
  EXPECT_GT(turn.total_ms(), 440);
  EXPECT_LT(turn.total_ms(), 2'000);
  EXPECT_EQ(peer.chats.at(0).items(0).message().text(), "Be brief.");
  EXPECT_EQ(peer.chats.at(0).context().turn_id(), "1");
  EXPECT_FALSE(peer.checkpoints.empty());

  peer.PersonLeaves(roomv1::DISCONNECT_REASON_CLIENT_INITIATED);
  const jobv1::Ended& ended = EndOf(peer);
  EXPECT_EQ(ended.reason(), dispatchv1::JOB_REASON_PARTICIPANTS_LEFT);
  EXPECT_EQ(ended.session().usage().turns(), 1);
  EXPECT_EQ(ended.session().transcript_size(), 3);
  EXPECT_EQ(peer.Exit(), 0);
}

TEST(JobTest, FramesLeaveEvery20Ms) {
  SessionConfig config = Engines();
  config.greeting = "One two three four five six seven eight nine ten.";
  JobPeer peer(Talker(config));
  peer.Assign();
  ASSERT_TRUE(peer.Until([&] { return peer.frames_us.size() >= 100; }));
  // Absolute time: whatever one frame is late, the last ones are not. Of ten the promptest.
  const auto behind_us = [&](size_t from) {
    int64_t least_us = INT64_MAX;
    for (size_t i = from; i < from + 10; ++i) {
      least_us = std::min(least_us, peer.frames_us[i] - static_cast<int64_t>(i) * 20'000);
    }
    return least_us;
  };
  EXPECT_NEAR(static_cast<double>(behind_us(90) - behind_us(0)) / 1000, 0, 25);
  for (size_t i = 1; i < peer.frame_timestamps.size(); ++i) {
    EXPECT_EQ(peer.frame_timestamps[i] - peer.frame_timestamps[i - 1], 960U);
  }
}

TEST(JobTest, WhatIsSaidBeforeTheSessionBeginsIsHeard) {
  if (Recording().empty()) GTEST_SKIP() << "alsa-utils is not installed";
  JobPeer peer(Program([](JobContext& job) -> absl::Status {
    PARLEY_RETURN_IF_ERROR(job.Connect());
    // A program that looks something up first.
    if (job.WaitForShutdown(absl::Seconds(2))) return absl::OkStatus();
    PARLEY_ASSIGN_OR_RETURN(AgentSession * session, job.StartSession(Engines()));
    return session->Wait();
  }));
  peer.finals = {"front center"};
  peer.answers = {Text("There.")};
  peer.Assign();
  ASSERT_TRUE(peer.UntilHas(FromJob::kJoin));
  peer.Speak(Recording());
  EXPECT_EQ(peer.Find(FromJob::kStt), nullptr) << "nobody listens yet";
  peer.Speak(Silence(1'500));
  ASSERT_TRUE(peer.Until([&] { return peer.agent_said == "There.|"; })) << peer.agent_said;
  EXPECT_EQ(peer.user_said, "front center|");
  // All of it: about 0.9 s are speech.
  EXPECT_GT(peer.stt_audio.size(), 2 * 16'000U);
}

TEST(JobTest, ABackgroundIsATrackOfItsOwn) {
  const auto definition = registry::ParseDefinition(R"(
id: desk
stt: [{engine: scripted}]
llm: [{engine: scripted}]
tts: [{engine: scripted}]
greeting: One two three four five.
background: {ambient: rain}
)",
                                                    "test.yaml");
  ASSERT_TRUE(definition.ok()) << definition.status();
  JobPeer peer({.entrypoint = RunConfiguredAgent});
  peer.Assign(registry::ToJson(*definition));
  ASSERT_TRUE(peer.Until([&] { return !peer.background_timestamps.empty(); }));
  const int64_t begin_us = Clock::Real().MonotonicMicros();
  ASSERT_TRUE(peer.Until([&] { return peer.background_timestamps.size() >= 100; }));
  // At its pace, through the agent's speech and after it; a busy machine takes longer.
  const double seconds = static_cast<double>(Clock::Real().MonotonicMicros() - begin_us) / 1e6;
  EXPECT_GT(seconds, 1.7);
  EXPECT_LT(seconds, 3);
  ASSERT_TRUE(peer.Until([&] { return peer.agent_said == "One two three four five.|"; }));
  EXPECT_EQ(peer.frames_us.size(), 50U) << "five words of 200 ms";
  for (size_t i = 1; i < peer.background_timestamps.size(); ++i) {
    EXPECT_EQ(peer.background_timestamps[i] - peer.background_timestamps[i - 1], 960U);
  }
  const float level = audio::LevelDbov(std::span(peer.background).subspan(8'000));
  EXPECT_GT(level, -60);
  EXPECT_LT(level, -30) << "softer than speech";
  const auto published = std::ranges::count_if(peer.messages, [](const FromJob& message) {
    return message.room_command().publish().name() == "background_audio";
  });
  EXPECT_EQ(published, 1);
  // With nobody there, nothing is played to them.
  peer.PersonLeaves(roomv1::DISCONNECT_REASON_CONNECTION_LOST);
  ASSERT_TRUE(peer.Until([&] { return peer.states.back() == "idle"; }));
  peer.Until([] { return false; }, 400);  // it fades
  const size_t by_then = peer.background_timestamps.size();
  EXPECT_FALSE(peer.Until([&] { return peer.background_timestamps.size() > by_then; }, 300));
}

TEST(JobTest, ASoundWhileTheAgentThinks) {
  SessionConfig config = Engines();
  config.background.thinking.samples = std::vector<int16_t>(4'800, 3'000);
  config.tools = {{.name = "look", .run = [](std::string_view) -> absl::StatusOr<std::string> {
                     usleep(700'000);
                     return "found";
                   }}};
  JobPeer peer(Talker(config));
  peer.answers.emplace_back().mutable_tool_call()->set_name("look");
  peer.answers.push_back(Text("Here it is."));
  peer.Assign();
  ASSERT_TRUE(
      peer.Until([&] { return !peer.states.empty() && peer.states.back() == "listening"; }));
  EXPECT_FALSE(peer.Until([&] { return !peer.background_timestamps.empty(); }, 300));
  peer.Chat("find it");
  ASSERT_TRUE(peer.Until([&] { return std::ranges::count(peer.states, "speaking") == 1; }));
  // 700 ms of thinking, and then some that fades.
  const size_t thinking = peer.background_timestamps.size();
  EXPECT_GE(thinking * 20, 650U);
  ASSERT_TRUE(peer.Until([&] { return peer.agent_said == "Here it is.|"; })) << peer.agent_said;
  EXPECT_LE(peer.background_timestamps.size() * 20, thinking * 20 + 300);
}

TEST(JobTest, ASoundThatThereIsNotIsRefused) {
  SessionConfig config = Engines();
  config.background.ambient.name = "/etc/passwd";
  JobPeer peer(Program([config](JobContext& job) { return job.StartSession(config).status(); }));
  peer.Assign();
  const jobv1::Ended& ended = EndOf(peer);
  EXPECT_THAT(ended.error(), HasSubstr("background: ambient: there is no sound \"/etc/passwd\""));
}

TEST(JobTest, BargeInCutsTheAgent) {
  if (Recording().empty()) GTEST_SKIP() << "alsa-utils is not installed";
  SessionConfig config = Engines();
  config.greeting =
      "One two three four five six seven eight nine ten eleven twelve thirteen fourteen.";
  JobPeer peer(Talker(config));
  peer.finals = {"front center"};
  peer.answers = {Text("Yes.")};
  peer.Assign();
  ASSERT_TRUE(peer.Until([&] { return peer.frames_us.size() >= 10; }));
  peer.Speak(Recording());
  peer.Speak(Silence(1'000));
  ASSERT_TRUE(peer.Until([&] { return !peer.turns.empty(); }));
  EXPECT_THAT(peer.agent_said, HasSubstr("One two"));
  EXPECT_THAT(peer.agent_said, Not(HasSubstr("fourteen")));
  EXPECT_THAT(peer.agent_said, HasSubstr("Yes.|"));
  EXPECT_TRUE(peer.chats.at(0).items(1).message().interrupted());
}

TEST(JobTest, ToolsOfBothKindsRun) {
  SessionConfig config = Engines();
  config.tools = {
      {.name = "rate"},
      {.name = "greet", .run = [](std::string_view arguments) -> absl::StatusOr<std::string> {
         return "hello " + std::string(arguments);
       }}};
  JobPeer peer(Talker(config));
  for (const char* name : {"rate", "greet"}) {
    auto& call = *peer.answers.emplace_back().mutable_tool_call();
    call.set_name(name);
    call.set_arguments_json(R"({"a":1})");
  }
  peer.answers.push_back(Text("Ninety."));
  peer.Assign();
  ASSERT_TRUE(
      peer.Until([&] { return !peer.states.empty() && peer.states.back() == "listening"; }));
  peer.Chat("how much?");
  ASSERT_TRUE(peer.Until([&] { return !peer.turns.empty(); }));
  EXPECT_EQ(peer.turns[0].tool_calls(), 2);
  ASSERT_EQ(peer.chats.size(), 3U);
  EXPECT_EQ(peer.chats[1].items(3).tool_result().output(), "90");
  EXPECT_EQ(peer.chats[2].items(5).tool_result().output(), R"(hello {"a":1})");
  EXPECT_EQ(peer.agent_said, "Ninety.|");
}

TEST(JobTest, NextAttemptRemembers) {
  std::string checkpoint;
  SessionConfig config = Engines();
  config.greeting = "Good day.";
  {
    JobPeer peer(Talker(config));
    peer.Assign();
    ASSERT_TRUE(peer.Until([&] { return !peer.checkpoints.empty(); }));
    checkpoint = peer.checkpoints.back();
  }
  JobPeer peer(Talker(config));
  peer.answers = {Text("As I said.")};
  peer.Assign("", checkpoint);
  ASSERT_TRUE(
      peer.Until([&] { return !peer.states.empty() && peer.states.back() == "listening"; }));
  peer.Chat("what did you say?");
  ASSERT_TRUE(peer.Until([&] { return !peer.turns.empty(); }));
  EXPECT_EQ(peer.agent_said, "As I said.|") << "no second greeting";
  EXPECT_EQ(peer.chats.at(0).items(1).message().text(), "Good day.");
}

// ---- given to a successor, or frozen ----

bool Listening(JobPeer& peer) {
  return peer.Until([&] { return !peer.states.empty() && peer.states.back() == "listening"; });
}
void HandOver(JobPeer& peer, int wait_ms) {
  jobv1::ToJob message;
  message.mutable_hand_over()->set_wait_ms(wait_ms);
  peer.Send(message);
}
void CallHandOverOff(JobPeer& peer) {
  jobv1::ToJob message;
  message.mutable_hand_over()->set_cancel(true);
  peer.Send(message);
}
void Freeze(JobPeer& peer, bool on) {
  jobv1::ToJob message;
  message.mutable_freeze()->set_on(on);
  peer.Send(message);
}
// Everything sent so far has been handled.
void Settle(JobPeer& peer) {
  const auto pongs = [&] {
    return std::count_if(peer.messages.begin(), peer.messages.end(),
                         [](const FromJob& message) { return message.has_pong(); });
  };
  const auto before = pongs();
  jobv1::ToJob ping;
  ping.mutable_ping()->set_id(1);
  peer.Send(ping);
  ASSERT_TRUE(peer.Until([&] { return pongs() > before; }));
}

TEST(JobTest, HandedOverBetweenTurnsWithAllItRemembers) {
  std::string checkpoint;
  SessionConfig config = Engines();
  config.greeting = "Good day.";
  {
    JobPeer peer(Talker(config));
    peer.answers = {Text("A double is ninety.")};
    peer.Assign();
    // It has greeted, to the end.
    ASSERT_TRUE(peer.Until([&] { return peer.agent_said == "Good day.|"; }));
    ASSERT_TRUE(Listening(peer));
    peer.Chat("how much is a double?");
    ASSERT_TRUE(peer.Until([&] { return !peer.turns.empty(); }));
    HandOver(peer, 10'000);
    ASSERT_TRUE(peer.UntilHas(FromJob::kHandedOver));
    checkpoint = peer.Find(FromJob::kHandedOver)->handed_over().checkpoint();
  }
  JobPeer successor(Talker(config));
  successor.answers = {Text("As I said.")};
  successor.Assign("", checkpoint);
  ASSERT_TRUE(Listening(successor));
  successor.Chat("what did you say?");
  ASSERT_TRUE(successor.Until([&] { return !successor.turns.empty(); }));
  EXPECT_EQ(successor.agent_said, "As I said.|");
  const auto& items = successor.chats.at(0).items();
  EXPECT_EQ(items.Get(1).message().text(), "Good day.");
  EXPECT_EQ(items.Get(2).message().text(), "how much is a double?");
  EXPECT_EQ(items.Get(3).message().text(), "A double is ninety.");
}

TEST(JobTest, HandOverWaitsForTheAgentsLastWord) {
  SessionConfig config = Engines();
  config.greeting = "One two three four five six seven.";
  JobPeer peer(Talker(config));
  peer.Assign();
  ASSERT_TRUE(peer.Until([&] { return peer.frames_us.size() >= 10; }));
  HandOver(peer, 10'000);
  ASSERT_TRUE(peer.UntilHas(FromJob::kHandedOver));
  EXPECT_THAT(peer.agent_said, HasSubstr("seven."));
  EXPECT_GE(peer.frames_us.size(), 60U);  // 7 words of 200 ms
}

TEST(JobTest, HandOverThatCannotWaitKeepsWhatWasHeard) {
  SessionConfig config = Engines();
  config.greeting = "One two three four five six seven eight nine ten eleven twelve.";
  JobPeer peer(Talker(config));
  peer.Assign();
  ASSERT_TRUE(peer.Until([&] { return peer.frames_us.size() >= 20; }));
  HandOver(peer, 100);
  ASSERT_TRUE(peer.UntilHas(FromJob::kHandedOver));
  const std::string checkpoint = peer.Find(FromJob::kHandedOver)->handed_over().checkpoint();
  EXPECT_THAT(checkpoint, HasSubstr("One two"));
  EXPECT_THAT(checkpoint, ::testing::Not(HasSubstr("twelve")));
  const size_t frames = peer.frames_us.size();
  Settle(peer);
  EXPECT_LE(peer.frames_us.size(), frames + 1);  // and not a word more
}

TEST(JobTest, HandOverThatIsCalledOffLosesNothing) {
  JobPeer peer(Talker(Engines()));
  peer.answers = {Text("Yes."), Text("And yes.")};
  peer.Assign();
  ASSERT_TRUE(Listening(peer));
  HandOver(peer, 10'000);
  ASSERT_TRUE(peer.UntilHas(FromJob::kHandedOver));
  peer.Chat("are you there?");
  Settle(peer);
  EXPECT_TRUE(peer.chats.empty());
  CallHandOverOff(peer);
  ASSERT_TRUE(peer.Until([&] { return peer.turns.size() == 1; }));
  EXPECT_EQ(peer.agent_said, "Yes.|");
  // Called off while it waits for a quiet moment: the agent is not even interrupted.
  peer.Chat("still?");
  ASSERT_TRUE(peer.Until([&] { return peer.chats.size() == 2; }));
  HandOver(peer, 10'000);
  CallHandOverOff(peer);
  ASSERT_TRUE(peer.Until([&] { return peer.turns.size() == 2; }));
  EXPECT_EQ(peer.agent_said, "Yes.|And yes.|");
}

TEST(JobTest, PausedJobStillEndsWhenToldTo) {
  JobPeer peer(Talker(Engines()));
  peer.Assign();
  ASSERT_TRUE(Listening(peer));
  HandOver(peer, 10'000);
  ASSERT_TRUE(peer.UntilHas(FromJob::kHandedOver));
  peer.Shutdown(jobv1::Shutdown::TERMINATED);
  EXPECT_EQ(EndOf(peer).reason(), dispatchv1::JOB_REASON_TERMINATED);
  EXPECT_EQ(peer.Exit(), 0);
}

TEST(JobTest, FrozenJobNeitherListensNorThinks) {
  JobPeer peer(Talker(Engines()));
  peer.answers = {Text("Here I am.")};
  peer.Assign();
  ASSERT_TRUE(Listening(peer));
  Freeze(peer, true);
  peer.Chat("hello?");
  Settle(peer);
  EXPECT_TRUE(peer.chats.empty());
  Freeze(peer, false);
  ASSERT_TRUE(peer.Until([&] { return !peer.turns.empty(); }));
  EXPECT_EQ(peer.agent_said, "Here I am.|");
}

TEST(JobTest, ProgramWithoutASessionIsHandedOverAtOnce) {
  JobPeer peer(Program([](JobContext& job) {
    job.WaitForShutdown(absl::Minutes(1));
    return absl::OkStatus();
  }));
  peer.Assign();
  ASSERT_TRUE(peer.UntilHas(FromJob::kEntered));
  HandOver(peer, 10'000);
  ASSERT_TRUE(peer.UntilHas(FromJob::kHandedOver));
  EXPECT_EQ(peer.Find(FromJob::kHandedOver)->handed_over().checkpoint(), "");
}

TEST(JobTest, AnswersPings) {
  JobPeer peer(Program([](JobContext& job) {
    job.WaitForShutdown(absl::Minutes(1));
    return absl::OkStatus();
  }));
  jobv1::ToJob ping;
  ping.mutable_ping()->set_id(42);
  peer.Send(ping);
  ASSERT_TRUE(peer.UntilHas(FromJob::kPong));
  EXPECT_EQ(peer.Find(FromJob::kPong)->pong().id(), 42U);
}

TEST(JobTest, ShutdownRunsHooksInOrder) {
  JobPeer peer(Program([](JobContext& job) {
    job.AddShutdownHook([&job] { job.log().Info("first"); });
    job.AddShutdownHook([&job] { job.log().Info("second", {{"n", 2}}); });
    job.WaitForShutdown(absl::Minutes(1));
    return absl::OkStatus();
  }));
  peer.Assign();
  ASSERT_TRUE(peer.UntilHas(FromJob::kEntered));
  peer.Shutdown(jobv1::Shutdown::TERMINATED);
  EXPECT_EQ(EndOf(peer).reason(), dispatchv1::JOB_REASON_TERMINATED);
  std::vector<std::string> lines;
  for (const FromJob& message : peer.messages) {
    if (message.has_log()) lines.push_back(message.log().message());
  }
  EXPECT_THAT(lines, ElementsAre("first", "second"));
  EXPECT_EQ(peer.Exit(), 0);
}

TEST(JobTest, EndsWithinItsGraceWhateverTheEntrypointDoes) {
  int64_t took_us = INT64_MAX;
  for (int i = 0; i < 3 && took_us > 1'000'000; ++i) {  // a busy machine makes some late
    JobPeer peer(Program([](JobContext&) {
      while (true) sleep(1000);
      return absl::OkStatus();
    }));
    peer.Assign();
    ASSERT_TRUE(peer.UntilHas(FromJob::kEntered));
    const int64_t start_us = Clock::Real().MonotonicMicros();
    peer.Shutdown(jobv1::Shutdown::DRAIN, 1'000);
    EXPECT_EQ(EndOf(peer).reason(), dispatchv1::JOB_REASON_DRAIN_DEADLINE);
    took_us = Clock::Real().MonotonicMicros() - start_us;
    EXPECT_EQ(peer.Exit(), 0);
  }
  EXPECT_LT(took_us, 1'000'000);
}

TEST(JobTest, EntrypointErrorsAreReported) {
  JobPeer failing(Program([](JobContext&) { return Unavailable("no printer"); }));
  failing.Assign();
  EXPECT_EQ(EndOf(failing).reason(), dispatchv1::JOB_REASON_ENTRYPOINT_ERROR);
  EXPECT_EQ(EndOf(failing).error(), "no printer");
  JobPeer throwing(Program([](JobContext&) -> absl::Status { throw std::runtime_error("boom"); }));
  throwing.Assign();
  EXPECT_THAT(EndOf(throwing).error(), HasSubstr("boom"));
  EXPECT_EQ(throwing.Exit(), 0);
}

TEST(JobTest, EntrypointThatNeverEntersTheRoomEndsTheJob) {
  JobPeer peer(Program([](JobContext&) { return absl::OkStatus(); }));
  peer.Assign();
  EXPECT_EQ(EndOf(peer).reason(), dispatchv1::JOB_REASON_SHUTDOWN);
}

TEST(JobTest, RoomThatCannotBeEnteredIsAnError) {
  JobPeer peer(Talker(Engines()));
  peer.fail_join = true;
  peer.Assign();
  EXPECT_THAT(EndOf(peer).error(), HasSubstr("STALE_TOKEN: a newer attempt is here"));
}

TEST(JobTest, ConfigurationIsChecked) {
  SessionConfig config = Engines();
  config.tts.clear();
  JobPeer peer(Talker(config));
  peer.Assign();
  EXPECT_THAT(EndOf(peer).error(), HasSubstr("tts: name at least one engine"));
}

TEST(JobTest, ReplacedOnesLeaveQuietly) {
  JobPeer peer(Talker(Engines()));
  peer.Assign();
  ASSERT_TRUE(
      peer.Until([&] { return !peer.states.empty() && peer.states.back() == "listening"; }));
  roomv1::RoomEvent event;
  event.mutable_disconnected()->set_reason(roomv1::DISCONNECT_REASON_REPLACED);
  peer.RoomEvent(event);
  EXPECT_EQ(peer.Exit(), 0);
  EXPECT_EQ(peer.Find(FromJob::kEnded), nullptr);
}

TEST(JobTest, RoomClosedEndsIt) {
  JobPeer peer(Talker(Engines()));
  peer.Assign();
  ASSERT_TRUE(
      peer.Until([&] { return !peer.states.empty() && peer.states.back() == "listening"; }));
  roomv1::RoomEvent event;
  event.mutable_disconnected()->set_reason(roomv1::DISCONNECT_REASON_ROOM_DELETED);
  peer.RoomEvent(event);
  EXPECT_EQ(EndOf(peer).reason(), dispatchv1::JOB_REASON_ROOM_CLOSED);
}

TEST(JobTest, DefinitionsBecomeSessions) {
  const auto definition = registry::ParseDefinition(R"(
id: front-desk
instructions: You are the front desk.
greeting: Good day.
stt: [{engine: scripted, grammar: rooms}]
llm: [{engine: rules, rules: rooms}]
tts: [{engine: scripted, voice: slt}]
tools:
  - name: room_rate
    description: Nightly rate
    parameters: {type: object, properties: {room: {type: string}}, required: [room]}
    http: {method: GET, url: "https://rates.example/{room}", timeout: 2s}
grammars: {rooms: "#JSGF V1.0; grammar rooms; public <u> = how much;"}
rules:
  rooms:
    - {when: "how much .* {room:single|double}", call: room_rate, say: "It is {result}."}
    - {otherwise: "I can tell you our room rates."}
)",
                                                    "test.yaml");
  ASSERT_TRUE(definition.ok()) << definition.status();
  AgentOptions options;
  options.entrypoint = RunConfiguredAgent;
  JobPeer peer(options);
  peer.answers = {Text("It is ninety.")};
  peer.Assign(registry::ToJson(*definition));
  ASSERT_TRUE(peer.Until([&] { return peer.agent_said == "Good day.|"; })) << peer.agent_said;
  peer.Chat("how much is a single");
  ASSERT_TRUE(peer.Until([&] { return !peer.turns.empty(); }));
  const parley::llm::v1::ChatRequest& chat = peer.chats.at(0);
  EXPECT_EQ(chat.items(0).message().text(), "You are the front desk.");
  EXPECT_EQ(chat.tools(0).name(), "room_rate");
  EXPECT_EQ(chat.models(0).engine(), "rules");
  EXPECT_THAT(chat.models(0).rules_json(), HasSubstr("single|double"));
  for (const FromJob& message : peer.messages) {
    if (!message.stt().has_open()) continue;
    EXPECT_THAT(message.stt().open().engines(0).grammar(), HasSubstr("#JSGF V1.0"));
  }
}

TEST(JobTest, HandsOverToAnAgentWithAnotherVoice) {
  const auto definition = registry::ParseDefinition(R"(
id: desk
llm: [{engine: scripted}]
tts: [{engine: scripted, voice: slt}]
handoffs: [billing]
agents:
  billing:
    description: Refunds.
    instructions: You do the bills.
    greeting: Billing here.
    tts: [{engine: scripted, voice: rms}]
)",
                                                    "test.yaml");
  ASSERT_TRUE(definition.ok()) << definition.status();
  AgentOptions options;
  options.entrypoint = RunConfiguredAgent;
  JobPeer peer(options);
  peer.answers.emplace_back().mutable_tool_call()->set_name("transfer_to_billing");
  peer.answers.push_back(Text("It is done."));
  peer.Assign(registry::ToJson(*definition));
  ASSERT_TRUE(
      peer.Until([&] { return !peer.states.empty() && peer.states.back() == "listening"; }));
  peer.Chat("a refund please");
  ASSERT_TRUE(peer.Until([&] { return peer.agent_said == "Billing here.|"; })) << peer.agent_said;
  peer.Chat("number seven");
  ASSERT_TRUE(peer.Until([&] { return peer.turns.size() == 2; }));
  ASSERT_EQ(peer.chats.size(), 2U);
  EXPECT_THAT(peer.chats[0].tools(0).description(), HasSubstr("Refunds."));
  EXPECT_EQ(peer.chats[1].items(0).message().text(), "You do the bills.");
  EXPECT_EQ(peer.chats[1].items(1).message().text(), "a refund please");
  EXPECT_EQ(peer.chats[1].tools_size(), 0);
  for (const FromJob& message : peer.messages) {
    if (!message.tts().has_open()) continue;
    EXPECT_EQ(message.tts().open().voices(0).voice(), "rms");
  }
  EXPECT_THAT(peer.checkpoints.back(), HasSubstr(R"("agent":"billing")"));
}

TEST(JobTest, ReadyAudioNeedsNoVoice) {
  JobPeer peer(Program([](JobContext& job) -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(AgentSession * session, job.StartSession(Engines()));
    EXPECT_FALSE(session->SayAudio({}).ok());
    // Half a second of a square wave.
    std::vector<int16_t> samples(12'000);
    for (size_t i = 0; i < samples.size(); ++i) samples[i] = i % 60 < 30 ? 9'000 : -9'000;
    PARLEY_RETURN_IF_ERROR(session->SayAudio(samples, "A signal.").status());
    session->Say("Then", {.more = true}).Add(" words.", true);
    return session->Wait();
  }));
  peer.Assign();
  ASSERT_TRUE(peer.Until([&] { return peer.agent_said == "A signal.|Then words.|"; }))
      << peer.agent_said;
  EXPECT_EQ(peer.frames_us.size(), 25U + 20U) << "half a second, and two words of 200 ms";
  const size_t signal = size_t{16'000} / 2;
  ASSERT_GT(peer.heard.size(), signal);
  EXPECT_GT(audio::LevelDbov(std::span(peer.heard).subspan(2'000, signal - 4'000)), -16);
  int voices = 0;
  for (const FromJob& message : peer.messages) voices += message.tts().has_open() ? 1 : 0;
  EXPECT_EQ(voices, 1);
}

TEST(JobTest, AToolThatHangsIsNamed) {
  SessionConfig config = Engines();
  config.tools = {{.name = "look",
                   .timeout = absl::Milliseconds(1'000),
                   .run = [](std::string_view) -> absl::StatusOr<std::string> {
                     while (true) pause();
                   },
                   .filler = "One moment."}};
  JobPeer peer(Talker(config));
  peer.answers.emplace_back().mutable_tool_call()->set_name("look");
  peer.answers.push_back(Text("I could not find it."));
  peer.Assign();
  ASSERT_TRUE(
      peer.Until([&] { return !peer.states.empty() && peer.states.back() == "listening"; }));
  peer.Chat("find it");
  ASSERT_TRUE(peer.UntilHas(FromJob::kStalled));
  const jobv1::Stalled& stalled = peer.Find(FromJob::kStalled)->stalled();
  EXPECT_EQ(stalled.stage(), "tool");
  EXPECT_EQ(stalled.detail(), "look");
  const auto told = [&peer] {  // and the room
    return std::any_of(peer.messages.begin(), peer.messages.end(), [](const FromJob& message) {
      const auto& data = message.room_command().data();
      return data.topic() == "parley.stalled" &&
             data.payload().find(R"("stage":"tool")") != std::string::npos;
    });
  };
  EXPECT_TRUE(peer.Until(told));
  ASSERT_TRUE(peer.Until([&] { return !peer.turns.empty(); }));
  EXPECT_EQ(peer.agent_said, "One moment. I could not find it.|");
  EXPECT_TRUE(peer.chats.at(1).items(3).tool_result().is_error());
}

TEST(JobTest, TurnsTakenByHandEndWhenTheCallerSaysSo) {
  if (Recording().empty()) GTEST_SKIP() << "alsa-utils is not installed";
  const auto definition = registry::ParseDefinition(R"(
id: radio
stt: [{engine: scripted}]
llm: [{engine: scripted}]
tts: [{engine: scripted}]
turn_detection: {mode: manual}
)",
                                                    "test.yaml");
  ASSERT_TRUE(definition.ok()) << definition.status();
  JobPeer peer({.entrypoint = RunConfiguredAgent});
  peer.finals = {"front center", "front left"};
  peer.answers = {Text("Over."), Text("And out.")};
  peer.Assign(registry::ToJson(*definition));
  ASSERT_TRUE(
      peer.Until([&] { return !peer.states.empty() && peer.states.back() == "listening"; }));
  peer.Speak(Recording());
  peer.Speak(Silence(1'500));
  ASSERT_TRUE(peer.Until([&] { return peer.user_said == "front center|"; })) << peer.user_said;
  EXPECT_TRUE(peer.chats.empty()) << "nobody has said that the turn is over";
  roomv1::RoomEvent button;
  button.mutable_data()->set_topic("parley.turn");
  button.mutable_data()->set_payload("commit");
  button.mutable_data()->set_from_identity("somebody else");
  peer.RoomEvent(button);
  EXPECT_FALSE(peer.Until([&] { return !peer.chats.empty(); }, 300)) << "not theirs to say";
  button.mutable_data()->set_from_identity("ann");
  peer.RoomEvent(button);
  EXPECT_TRUE(peer.Until([&] { return peer.agent_said == "Over.|"; })) << peer.agent_said;
  // And whether it is by hand at all.
  button.mutable_data()->set_payload("detect vad");
  peer.RoomEvent(button);
  peer.Speak(Recording());
  peer.Speak(Silence(1'500));
  EXPECT_TRUE(peer.Until([&] { return peer.agent_said == "Over.|And out.|"; })) << peer.agent_said;
}

TEST(JobTest, WhereTheRecogniserSaysWhenSpeechIsOverNoSilenceEndsTheTurn) {
  const std::vector<int16_t> words = Recording();
  if (words.empty()) GTEST_SKIP() << "alsa-utils is not installed";
  SessionConfig config = Engines();
  config.options.turn_detection = session::TurnDetection::kStt;
  JobPeer peer(Talker(config));
  peer.finals = {"front center"};
  peer.answers = {Text("It is over there.")};
  peer.Assign();
  ASSERT_TRUE(
      peer.Until([&] { return !peer.states.empty() && peer.states.back() == "listening"; }));
  const auto middle = words.begin() + static_cast<std::ptrdiff_t>(words.size() / 2);
  peer.Speak({words.begin(), middle});
  peer.Activity(/*begins=*/true);
  peer.Speak({middle, words.end()});
  peer.Speak(Silence(900));
  EXPECT_EQ(peer.finals_asked, 0) << "twice the silence that ends an utterance else";
  peer.Activity(/*begins=*/false);
  ASSERT_TRUE(peer.Until([&] { return !peer.turns.empty(); }));
  EXPECT_EQ(peer.finals_asked, 1);
  EXPECT_EQ(peer.user_said, "front center|");
}

TEST(JobTest, ARealCallIsDecidedAgainToTheByte) {
  if (Recording().empty()) GTEST_SKIP() << "alsa-utils is not installed";
  const std::string path = ::testing::TempDir() + "/recording-" + std::to_string(getpid());
  SessionConfig config = Engines();
  config.greeting = "One two three four five six seven eight nine ten.";
  config.on_recording = [path](std::string_view line) {  // in the job's process
    std::ofstream(path, std::ios::app) << line;
  };
  JobPeer peer(Talker(config));
  peer.finals = {"front center"};
  peer.answers = {Text("Yes.")};
  peer.Assign();
  ASSERT_TRUE(peer.Until([&] { return peer.frames_us.size() >= 10; }));
  peer.Speak(Recording());
  peer.Speak(Silence(1'000));
  ASSERT_TRUE(peer.Until([&] { return !peer.turns.empty(); }));
  peer.PersonLeaves(roomv1::DISCONNECT_REASON_CLIENT_INITIATED);
  EndOf(peer);
  EXPECT_EQ(peer.Exit(), 0);
  std::ostringstream recording;
  recording << std::ifstream(path).rdbuf();
  std::remove(path.c_str());
  const auto replayed = session::Replay(recording.str());
  ASSERT_TRUE(replayed.ok()) << replayed.status();
  EXPECT_TRUE(replayed->complete);
  EXPECT_TRUE(replayed->identical);
}

TEST(JobTest, BadDefinitionsAreNotTriedAgain) {
  AgentOptions options;
  options.entrypoint = RunConfiguredAgent;
  JobPeer peer(options);
  peer.Assign(R"({"id":"x","nonsense":true})");
  EXPECT_EQ(EndOf(peer).reason(), dispatchv1::JOB_REASON_DEFINITION_INVALID);
  EXPECT_EQ(peer.Exit(), 0);
}

TEST(JobTest, NonsenseOnTheChannelEndsTheProcess) {
  JobPeer peer(Talker(Engines()));
  peer.SendBytes(std::string(64, '\xff'));
  EXPECT_EQ(peer.Exit(), 1);
}

TEST(JobTest, ServerThatIsGoneEndsTheProcess) {
  JobPeer peer(Talker(Engines()));
  peer.Assign();
  ASSERT_TRUE(peer.UntilHas(FromJob::kEntered));
  peer.Hangup();
  EXPECT_EQ(peer.Exit(), 1);
}

}  // namespace
}  // namespace parley::agent
