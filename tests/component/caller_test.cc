// The scripted caller against a real room server: what it plays arrives, what it hears is recorded
// where it belongs.
#include "caller/caller.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <future>
#include <numbers>

#include "audio/level.h"
#include "audio/opus.h"
#include "audio/pcm.h"
#include "audio/wav.h"
#include "component/room_server_fixture.h"

namespace parley {
namespace {

using ::parley::caller::Caller;
using ::parley::caller::CallerOptions;
using ::parley::caller::CallEvent;
using ::parley::testing::HasCode;
using ::parley::testing::HasReason;

std::vector<int16_t> Tone(int rate_hz, int ms, double hz = 440) {
  std::vector<int16_t> samples(static_cast<size_t>(rate_hz * ms / 1000));
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i] = static_cast<int16_t>(
        8000 * std::sin(2 * std::numbers::pi * hz * static_cast<double>(i) / rate_hz));
  }
  return samples;
}

class CallerTest : public RoomServerTest {
 protected:
  absl::StatusOr<std::unique_ptr<Caller>> Call(CallerOptions options = {}) {
    options.media_url = server().url();
    auth::Claims claims = Joiner("caller");
    claims.video.can_update_own_metadata = true;
    if (options.token.empty()) options.token = Token(claims);
    return Caller::Connect(std::move(options));
  }
  // An agent that publishes a voice, from this test's hand.
  struct Agent {
    Peer peer;
    std::string sid;
    audio::OpusEncoder encoder;
    uint32_t timestamp = 0;

    void Speak(int ms, double hz = 300) {
      const auto tone = Tone(audio::kRoomRateHz, ms, hz);
      std::vector<uint8_t> packet(audio::OpusEncoder::kMaxPacketBytes);
      for (size_t at = 0; at + 960 <= tone.size(); at += 960) {
        const auto bytes = encoder.Encode(std::span(tone).subspan(at, 960), packet);
        ASSERT_TRUE(bytes.ok());
        peer.SendAudio(sid, std::string(reinterpret_cast<const char*>(packet.data()), *bytes),
                       timestamp);
        timestamp += 960;
        absl::SleepFor(absl::Milliseconds(20));
      }
    }
    void Say(const std::string& stream, const std::string& text, bool final) {
      pb::ParticipantCommand command;
      command.mutable_text()->set_topic("lk.transcription");
      command.mutable_text()->set_stream_id(stream);
      command.mutable_text()->set_text(text);
      auto& attributes = *command.mutable_text()->mutable_attributes();
      attributes["lk.segment_id"] = "SG_1";
      attributes["lk.transcription_final"] = final ? "true" : "false";
      peer.Command(command);
    }
    void SetState(const std::string& state) {
      pb::ParticipantCommand command;
      (*command.mutable_update()->mutable_attributes())["lk.agent.state"] = state;
      peer.Command(command);
    }
  };
  Agent JoinAgent() {
    auth::Claims claims = Joiner("agent");
    claims.kind = "agent";
    claims.video.can_update_own_metadata = true;
    Agent agent{Join(claims), {}, *audio::OpusEncoder::Create()};
    agent.peer.Publish("voice");
    agent.sid = agent.peer.PublishedSid();
    return agent;
  }
};

// What keeps time gets several tries: a machine that is busy with others may spoil some.
constexpr int kTries = 5;

// The loud frames of the next tone that comes.
int LoudFrames(Peer& peer) {
  auto decoder = *audio::OpusDecoder::Create(48'000);
  std::vector<int16_t> samples(audio::OpusDecoder::MaxSamples(48'000));
  int loud = 0;
  for (int quiet = 0, all = 0; quiet < 5 && all < 200; ++all) {
    const auto count = decoder.Decode(peer.Audio().data(), samples);
    if (!count.ok()) return -1;
    const bool is_loud = audio::LevelDbov(std::span(samples).first(*count)) > -30;
    loud += is_loud ? 1 : 0;
    if (loud > 0) quiet = is_loud ? 0 : quiet + 1;
  }
  return loud;
}

TEST_F(CallerTest, PlaysInRealTimeAtAnyRate) {
  Agent agent = JoinAgent();
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto call, Call());
  PARLEY_ASSERT_OK(call->WaitForAgent(absl::Seconds(5)));
  double took_us = 0;
  for (int i = 0; i < kTries && std::abs(took_us - 500'000) > 40'000; ++i) {
    // What the other side decodes is the tone, for as long as it lasted.
    auto listening = std::async(std::launch::async, [&agent] { return LoudFrames(agent.peer); });
    const int64_t begin_us = call->NowMicros();
    PARLEY_ASSERT_OK(call->Play(Tone(16'000, 500), 16'000));
    PARLEY_ASSERT_OK_AND_ASSIGN(const int64_t end_us, call->WaitPlayed(absl::Seconds(5)));
    took_us = static_cast<double>(end_us - begin_us);
    EXPECT_NEAR(listening.get(), 25, 1);
  }
  EXPECT_NEAR(took_us, 500'000, 40'000);
  EXPECT_EQ(call->counters().frames_dropped, 0);
}

TEST_F(CallerTest, HearsWhenTheAgentSpeaksAndRecordsBothSides) {
  Agent agent = JoinAgent();
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto call, Call());
  PARLEY_ASSERT_OK(call->WaitForAgent(absl::Seconds(5)));
  EXPECT_THAT(call->WaitForAgentAudio(0, absl::Milliseconds(100)),
              HasCode(absl::StatusCode::kDeadlineExceeded));
  int64_t asked_us = 0, first_us = 0, end_us = 0;
  bool in_time = false;
  for (int i = 0; i < kTries && !in_time; ++i) {
    PARLEY_ASSERT_OK(call->Play(Tone(48'000, 200), 48'000));
    PARLEY_ASSERT_OK_AND_ASSIGN(asked_us, call->WaitPlayed(absl::Seconds(5)));
    absl::SleepFor(absl::Milliseconds(100));
    const int64_t before_us = call->NowMicros();
    agent.Speak(300);
    PARLEY_ASSERT_OK_AND_ASSIGN(first_us, call->WaitForAgentAudio(asked_us, absl::Seconds(5)));
    PARLEY_ASSERT_OK_AND_ASSIGN(
        end_us, call->WaitForAgentSilence(first_us, absl::Milliseconds(200), absl::Seconds(5)));
    in_time =
        std::abs(first_us - before_us) < 40'000 && std::abs(end_us - first_us - 300'000) < 60'000;
  }
  EXPECT_TRUE(in_time) << "heard for " << end_us - first_us << " us";
  PARLEY_ASSERT_OK(call->WaitFor(
      "the end of speech",
      [](const CallEvent& event) { return event.type == CallEvent::Type::kAgentSpeechEnded; },
      absl::Seconds(5)));
  EXPECT_GT(audio::LevelDbov(call->AgentAudio(first_us + 50'000, first_us + 200'000)), -30);
  EXPECT_LT(audio::LevelDbov(call->AgentAudio(asked_us, first_us - 50'000)), -90);

  ::parley::testing::TemporaryDirectory directory;
  call->HangUp();
  PARLEY_ASSERT_OK(call->SaveRecording(directory.path() + "/call.wav"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const audio::Wav wav, audio::ReadWav(directory.path() + "/call.wav"));
  EXPECT_EQ(wav.channels, 2);
  EXPECT_EQ(wav.rate_hz, 48'000);
  const auto left = audio::Channel(wav.samples, 2, 0);
  const auto at = [](int64_t us) { return static_cast<size_t>(us * 48 / 1000); };
  EXPECT_GT(audio::LevelDbov(std::span(left).subspan(at(asked_us - 150'000), 4800)), -30)
      << "the caller's words end when WaitPlayed said so";
  EXPECT_LT(audio::LevelDbov(std::span(left).subspan(at(asked_us + 20'000), 2400)), -60);
}

TEST_F(CallerTest, FollowsTranscriptsStatesAndChat) {
  Agent agent = JoinAgent();
  std::vector<std::string> live;
  CallerOptions options;
  Mutex mutex;
  options.on_event = [&](const CallEvent& event) {
    MutexLock lock(&mutex);
    live.emplace_back(Name(event.type));
  };
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto call, Call(options));
  PARLEY_ASSERT_OK(call->WaitForAgent(absl::Seconds(5)));
  agent.SetState("listening");
  PARLEY_ASSERT_OK(call->WaitForAgentState("listening", absl::Seconds(5)));
  agent.Say("st1", "A single ", false);
  agent.Say("st1", "room is ", false);
  agent.Say("st1", "90 euros.", true);
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto transcript,
                              call->WaitForTranscript(true, 0, absl::Seconds(5)));
  EXPECT_EQ(transcript.text, "A single room is 90 euros.");
  EXPECT_EQ(transcript.identity, "agent");
  PARLEY_ASSERT_OK(call->SendText("how much?"));
  const auto text = agent.peer.Event(pb::RoomEvent::kText).text();
  EXPECT_EQ(text.topic(), "lk.chat");
  EXPECT_EQ(text.text(), "how much?");
  EXPECT_EQ(text.from_identity(), "caller");
  agent.peer.Cut();
  PARLEY_ASSERT_OK(call->WaitFor(
      "the agent to leave",
      [](const CallEvent& event) { return event.type == CallEvent::Type::kParticipantLeft; },
      absl::Seconds(5)));
  call->HangUp();
  EXPECT_FALSE(call->connected());
  EXPECT_THAT(call->WaitForAgent(absl::Seconds(5)), HasCode(absl::StatusCode::kCancelled));
  MutexLock lock(&mutex);
  EXPECT_EQ(live.back(), "disconnected");
}

TEST_F(CallerTest, SaysWhyItCouldNotCall) {
  CallerOptions options;
  options.token = "nonsense";
  EXPECT_THAT(Call(options), HasReason("TOKEN_MALFORMED"));
  auth::Claims mute = Joiner("mute");
  mute.video.can_publish = false;
  options.token = Token(mute);
  EXPECT_THAT(Call(options), HasCode(absl::StatusCode::kPermissionDenied));
  options.microphone = false;
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto call, Call(options));
  EXPECT_THAT(call->Play(Tone(48'000, 20), 48'000), HasCode(absl::StatusCode::kFailedPrecondition));
}

TEST_F(CallerTest, AClientMayAskForAnotherCodec) {
  Agent agent = JoinAgent();
  auto listener = TryJoin(Token(Joiner("listener")), pb::CODEC_PCM16);
  PARLEY_ASSERT_OK(listener);
  agent.peer.Event(pb::RoomEvent::kTrackSubscribed);
  agent.Speak(100);
  std::vector<int16_t> samples;
  for (int i = 0; i < 5; ++i) {
    const pb::AudioFrame frame = listener->Audio();
    EXPECT_EQ(frame.codec(), pb::CODEC_PCM16);
    EXPECT_EQ(frame.data().size(), 1920u);
    EXPECT_EQ(frame.timestamp(), 960u * static_cast<uint32_t>(i));
    audio::AppendSamples(frame.data(), samples);
  }
  EXPECT_GT(audio::LevelDbov(samples), -30);

  auto opus_listener = TryJoin(Token(Joiner("opus")), pb::CODEC_OPUS);
  PARLEY_ASSERT_OK(opus_listener);
  listener->Publish("pcm", pb::CODEC_PCM16);
  const std::string sid = listener->PublishedSid();
  const auto tone = Tone(48'000, 20);
  listener->SendAudio(sid, std::string(audio::AsBytes(tone)));
  const pb::AudioFrame frame =
      opus_listener
          ->Next([&](const auto& message) {
            return message.has_audio() && message.audio().track_sid() == sid;
          })
          ->audio();
  EXPECT_EQ(frame.codec(), pb::CODEC_OPUS);
  EXPECT_LT(frame.data().size(), 500u);
}

}  // namespace
}  // namespace parley
