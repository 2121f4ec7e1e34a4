// The parts of a job that need no process: what it makes of the room, and of its messages.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <span>

#include "agent/job/convert.h"
#include "agent/job/frame.h"
#include "agent/job/lateness.h"
#include "agent/job/listener.h"
#include "agent/job/room_view.h"
#include "audio/opus.h"
#include "audio/pcm.h"
#include "audio/sounds.h"
#include "registry/definition.h"

namespace parley::agent {
namespace {

namespace dispatchv1 = parley::dispatch::v1;
namespace jobv1 = parley::job::v1;
namespace roomv1 = parley::room::v1;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

roomv1::Participant Somebody(const std::string& identity, const std::string& sid,
                             roomv1::ParticipantKind kind) {
  roomv1::Participant one;
  one.set_identity(identity);
  one.set_sid(sid);
  one.set_kind(kind);
  return one;
}

class RoomViewTest : public ::testing::Test {
 protected:
  RoomViewTest() {
    roomv1::Joined joined;
    joined.mutable_participant()->set_identity("agent");
    *joined.add_others() = Somebody("zoe", "PA_1", roomv1::PARTICIPANT_KIND_STANDARD);
    *joined.add_others() = Somebody("recorder", "PA_2", roomv1::PARTICIPANT_KIND_RECORDER);
    room_.OnJoined(joined);
    Join(Somebody("ann", "PA_3", roomv1::PARTICIPANT_KIND_SIP));
  }
  void Join(const roomv1::Participant& one) {
    roomv1::RoomEvent event;
    *event.mutable_participant_joined()->mutable_participant() = one;
    room_.OnEvent(event);
  }
  void Leave(const std::string& identity, const std::string& sid) {
    roomv1::RoomEvent event;
    event.mutable_participant_left()->set_identity(identity);
    event.mutable_participant_left()->set_sid(sid);
    room_.OnEvent(event);
  }
  void Subscribe(const std::string& identity, uint32_t number, const std::string& sid,
                 roomv1::TrackSource source, roomv1::TrackKind kind = roomv1::TRACK_KIND_AUDIO) {
    roomv1::RoomEvent event;
    auto& started = *event.mutable_subscription_started();
    started.set_participant_identity(identity);
    started.set_track_number(number);
    started.mutable_track()->set_sid(sid);
    started.mutable_track()->set_source(source);
    started.mutable_track()->set_kind(kind);
    room_.OnEvent(event);
  }
  std::vector<std::string> People() const {
    std::vector<std::string> names;
    for (const session::Person& one : room_.people()) names.push_back(one.identity);
    return names;
  }
  RoomView room_;
};

TEST_F(RoomViewTest, PeopleComeInTheirOrder) {
  EXPECT_THAT(People(), ElementsAre("zoe", "ann"));
  EXPECT_EQ(room_.participants().size(), 3U);
  EXPECT_FALSE(room_.IsPerson("recorder"));
  roomv1::Participant hidden = Somebody("spy", "PA_4", roomv1::PARTICIPANT_KIND_STANDARD);
  hidden.mutable_permission()->set_hidden(true);
  Join(hidden);
  Join(Somebody("agent", "PA_5", roomv1::PARTICIPANT_KIND_AGENT));
  EXPECT_THAT(People(), ElementsAre("zoe", "ann"));
}

TEST_F(RoomViewTest, AnOldConnectionThatEndsTakesNobodyAway) {
  Join(Somebody("zoe", "PA_9", roomv1::PARTICIPANT_KIND_STANDARD));
  Leave("zoe", "PA_1");
  EXPECT_TRUE(room_.Has("zoe"));
  Leave("zoe", "PA_9");
  EXPECT_FALSE(room_.Has("zoe"));
}

TEST_F(RoomViewTest, TheMicrophoneIsTheVoice) {
  Subscribe("ann", 1, "TR_film", roomv1::TRACK_SOURCE_CAMERA, roomv1::TRACK_KIND_VIDEO);
  Subscribe("ann", 2, "TR_screen", roomv1::TRACK_SOURCE_SCREEN_SHARE_AUDIO);
  EXPECT_TRUE(room_.IsVoiceOf("ann", 2)) << "better than nothing";
  Subscribe("ann", 3, "TR_mic", roomv1::TRACK_SOURCE_MICROPHONE);
  EXPECT_FALSE(room_.IsVoiceOf("ann", 2));
  EXPECT_TRUE(room_.IsVoiceOf("ann", 3));
  EXPECT_FALSE(room_.IsVoiceOf("zoe", 3));
  EXPECT_EQ(room_.TrackOf("ann"), "TR_mic");
  roomv1::RoomEvent event;
  event.mutable_track_unpublished()->set_track_sid("TR_mic");
  room_.OnEvent(event);
  EXPECT_TRUE(room_.IsVoiceOf("ann", 2));
  Leave("ann", "PA_3");
  EXPECT_EQ(room_.TrackOf("ann"), "");
}

TEST(ConvertTest, HandoffsAreToolsOfTheModel) {
  SessionConfig config;
  config.name = "desk";
  config.stt = {{.engine = "scripted"}};
  config.llm = {{.engine = "scripted"}};
  config.tts = {{.engine = "scripted"}};
  config.handoffs = {"billing"};
  config.agents = {{.name = "billing", .description = "Refunds.", .handoffs = {"desk"}}};
  ASSERT_TRUE(CheckConfig(config).ok());
  const auto request = ChatRequestOf(config, {.llm = config.llm, .handoffs = config.handoffs});
  ASSERT_EQ(request.tools_size(), 1);
  EXPECT_EQ(request.tools(0).name(), "transfer_to_billing");
  EXPECT_EQ(request.tools(0).description(), "Hands the conversation over to billing. Refunds.");
  config.agents[0].handoffs = {"cook"};
  EXPECT_EQ(CheckConfig(config).message(), "handoffs: there is no agent cook");
  config.agents[0] = {.name = "desk"};
  EXPECT_EQ(CheckConfig(config).message(), "agents: \"desk\" is no name of its own");
}

TEST(ConvertTest, WhyTheRoomIsOverDecidesHowTheJobEnds) {
  const auto reason = [](roomv1::DisconnectReason why) {
    roomv1::Disconnected disconnected;
    disconnected.set_reason(why);
    std::string error;
    const dispatchv1::JobReason ends = ReasonOf(EndOf(disconnected, error));
    return std::pair(ends, !error.empty());
  };
  using std::pair;
  EXPECT_EQ(reason(roomv1::DISCONNECT_REASON_ROOM_DELETED),
            pair(dispatchv1::JOB_REASON_ROOM_CLOSED, false));
  EXPECT_EQ(reason(roomv1::DISCONNECT_REASON_ROOM_CLOSED),
            pair(dispatchv1::JOB_REASON_ROOM_CLOSED, false));
  EXPECT_EQ(reason(roomv1::DISCONNECT_REASON_PARTICIPANT_REMOVED),
            pair(dispatchv1::JOB_REASON_TERMINATED, true));
  EXPECT_EQ(reason(roomv1::DISCONNECT_REASON_CONNECTION_LOST),
            pair(dispatchv1::JOB_REASON_ENTRYPOINT_ERROR, true));
}

TEST(ConvertTest, PeopleWhoseConnectionBrokeMayComeBack) {
  EXPECT_TRUE(LeftForGood(roomv1::DISCONNECT_REASON_CLIENT_INITIATED));
  EXPECT_TRUE(LeftForGood(roomv1::DISCONNECT_REASON_PARTICIPANT_REMOVED));
  EXPECT_FALSE(LeftForGood(roomv1::DISCONNECT_REASON_CONNECTION_LOST));
}

TEST(BackgroundTest, EverySoundThatADefinitionMayNameIsMade) {
  EXPECT_EQ(registry::kSounds, audio::kSoundNames);
}

TEST(FrameTest, WhatWasParsedBeforeLeavesNothingBehind) {
  jobv1::ToJob first;
  first.set_seq(1);
  first.set_time_us(5);
  first.mutable_audio()->set_timestamp(960);
  first.mutable_audio()->set_level(30);
  first.mutable_audio()->set_data("packet");
  jobv1::ToJob second;
  second.mutable_audio()->set_track_number(2);
  jobv1::ToJob third;
  third.set_seq(3);
  third.mutable_ping()->set_id(7);
  jobv1::ToJob parsed;
  for (const jobv1::ToJob* sent : {&first, &second, &first, &third, &second}) {
    ASSERT_TRUE(ParseAgain(sent->SerializeAsString(), parsed));
    EXPECT_EQ(parsed.ShortDebugString(), sent->ShortDebugString());
  }
  EXPECT_FALSE(ParseAgain("\x07", parsed));
}

TEST(FrameTest, TooLongAFrameIsRefused) {
  FrameReader reader;
  reader.Append(std::string("\x01\x00\x10\x00", 4));
  EXPECT_FALSE(reader.Next().ok());
}

// Hears 1 s of a tone, in packets of 20 ms, less those that are lost.
class ListenerTest : public ::testing::Test {
 protected:
  ListenerTest() {
    auto made = Listener::Create({.voice =
                                      [this](bool speech, int64_t quiet_us) {
                                        ++frames_;
                                        if (speech) quiet_us_ = quiet_us;
                                      },
                                  .recogniser = [this](std::string_view pcm) { fed_ += pcm; }},
                                 audio::NewWebrtcVad());
    listener_ = *std::move(made);
  }
  void Hear(int packets, int lost_at = -1, int lost = 0) {
    auto encoder = audio::OpusEncoder::Create({.complexity = 0});
    std::vector<int16_t> tone(960);
    for (size_t i = 0; i < tone.size(); ++i) tone[i] = i / 60 % 2 == 0 ? 4'000 : -4'000;
    std::vector<uint8_t> packet(audio::OpusEncoder::kMaxPacketBytes);
    for (int i = 0; i < packets; ++i) {
      const size_t bytes = encoder->Encode(tone, packet).value();
      if (i >= lost_at && i < lost_at + lost) continue;
      listener_->OnOpus({reinterpret_cast<const char*>(packet.data()), bytes},
                        static_cast<uint32_t>(i) * 960);
    }
  }
  // `packets` in a row of a tone with this amplitude; the sender says that they have this level.
  void HearLevel(int packets, int16_t amplitude, uint32_t level) {
    std::vector<int16_t> tone(960);
    for (size_t i = 0; i < tone.size(); ++i) {
      tone[i] = static_cast<int16_t>(i / 60 % 2 == 0 ? amplitude : -amplitude);
    }
    std::vector<uint8_t> packet(audio::OpusEncoder::kMaxPacketBytes);
    for (int i = 0; i < packets; ++i) {
      const size_t bytes = encoder_.Encode(tone, packet).value();
      listener_->OnOpus({reinterpret_cast<const char*>(packet.data()), bytes}, timestamp_, level);
      timestamp_ += 960;
    }
  }
  audio::OpusEncoder encoder_ = audio::OpusEncoder::Create({.complexity = 0}).value();
  uint32_t timestamp_ = 0;
  std::unique_ptr<Listener> listener_;
  int frames_ = 0;
  int64_t quiet_us_ = -1;  // of the last frame of speech
  std::string fed_;
};

TEST_F(ListenerTest, TheEndOfSpeechIsNotTheEndOfItsFrame) {
  // A buzz with syllables, as the detector wants it, that ends 5 ms into a frame of raw samples.
  constexpr size_t kEnd = size_t{48} * 1'005;
  std::vector<int16_t> samples(size_t{48} * 1'200);
  for (size_t i = 0; i < kEnd; ++i) {
    const double loud = 0.55 + 0.45 * std::sin(static_cast<double>(i) / 48'000 * 2 * M_PI * 4);
    samples[i] = static_cast<int16_t>((i % 400 < 40 ? 16'000 : -1'600) * loud);
  }
  for (size_t at = 0; at < samples.size(); at += 960) {
    const auto frame = std::span(samples).subspan(at, 960);
    listener_->OnPcm({reinterpret_cast<const char*>(frame.data()), frame.size_bytes()});
  }
  // The resampler moves it by about a millisecond.
  EXPECT_GE(quiet_us_, 10'000);
  EXPECT_LE(quiet_us_, 15'000);
}

TEST(LatenessTest, IsWhatTheWayAddsToTheQuickest) {
  Lateness lateness;
  int64_t sent_us = 5'000'000;
  uint32_t timestamp = 4'294'900'000U;  // it wraps
  const auto after = [&](int64_t way_us) {
    sent_us += 20'000;
    return lateness.Of(timestamp += 960, sent_us + way_us);
  };
  EXPECT_EQ(after(7'000), 0);
  EXPECT_EQ(after(9'000), 2'000);
  EXPECT_EQ(after(4'000), 0);
  EXPECT_EQ(after(9'000), 5'000);
  EXPECT_EQ(after(90'000), Lateness::kMostUs);
  // A way that has become longer is the way, after some seconds.
  int64_t last = 0;
  for (int i = 0; i < 250; ++i) last = after(20'000);
  EXPECT_EQ(last, 0);
  // Another clock is no lateness, nor is what came in one go.
  timestamp += 12'345'678;
  sent_us += 60'000'000;
  EXPECT_EQ(after(0), 0);
  for (int i = 0; i < 500; ++i) EXPECT_EQ(lateness.Of(timestamp += 960, sent_us), 0);
}

TEST_F(ListenerTest, SilenceIsKeptAndNotDecoded) {
  constexpr int16_t kSoft = 8;  // -72 dBov
  HearLevel(20, 4'000, 18);
  HearLevel(30, kSoft, 72);
  EXPECT_EQ(frames_, 50) << "600 ms of it are decoded: the end of speech shows in it";
  HearLevel(219, kSoft, 72);
  EXPECT_EQ(frames_, 50);
  HearLevel(1, kSoft, 72);
  EXPECT_EQ(frames_, 56) << "the last of it, to see whether it is true";
  HearLevel(30, kSoft, 72);
  EXPECT_EQ(frames_, 56);
  HearLevel(1, 4'000, 18);
  EXPECT_EQ(frames_, 62) << "the last five and the louder one";
  listener_->Feed(absl::Milliseconds(400));
  EXPECT_EQ(fed_.size(), 400U * 32);
}

TEST_F(ListenerTest, SilenceThatIsNoneIsHeard) {
  HearLevel(1, 4'000, 18);
  HearLevel(200, 4'000, 70);
  EXPECT_EQ(frames_, 201) << "the sender's levels are not believed once the first have been heard";
}

TEST_F(ListenerTest, SilenceThatIsNoneAnyMoreIsHeard) {
  HearLevel(1, 4'000, 18);
  HearLevel(100, 8, 72);
  EXPECT_EQ(frames_, 31);
  HearLevel(200, 4'000, 72);
  EXPECT_EQ(frames_, 31 + 6 + 50) << "within 5 s, and from then on";
}

TEST_F(ListenerTest, SendersWithoutLevelsAreHeard) {
  HearLevel(200, 8, 127);
  EXPECT_EQ(frames_, 200);
}

TEST_F(ListenerTest, WhatTheRecogniserGetsIsDecoded) {
  HearLevel(1, 4'000, 18);
  listener_->Feed(absl::ZeroDuration());
  HearLevel(200, 8, 72);
  EXPECT_EQ(frames_, 201);
  listener_->StopFeeding();
  HearLevel(40, 8, 72);
  EXPECT_EQ(frames_, 201) << "it has been soft for long enough";
}

TEST_F(ListenerTest, JudgesEachFrameAndConcealsShortLoss) {
  Hear(50, 20, 2);
  EXPECT_EQ(frames_, 50);
  frames_ = 0;
  listener_->Reset();
  Hear(50, 20, 20);
  EXPECT_EQ(frames_, 30) << "the sender was silent";
}

TEST_F(ListenerTest, PrerollComesFirst) {
  Hear(50);
  EXPECT_THAT(fed_, IsEmpty());
  listener_->Feed(absl::Milliseconds(400));
  EXPECT_EQ(fed_.size(), 400U * 32);
  for (int i = 0; i < 5; ++i) listener_->OnPcm(std::string(960 * 2, '\0'));
  listener_->StopFeeding();
  EXPECT_EQ(fed_.size(), 480U * 32) << "whole frames; the resampler holds the fifth back";
  for (int i = 0; i < 5; ++i) listener_->OnPcm(std::string(960 * 2, '\0'));
  EXPECT_EQ(fed_.size(), 480U * 32);
}

TEST_F(ListenerTest, PrerollIsWhatThereIs) {
  Hear(5);
  listener_->Feed(absl::Milliseconds(400));
  EXPECT_EQ(fed_.size(), 100U * 32);
}

TEST_F(ListenerTest, NonsenseIsPassedOver) {
  listener_->OnOpus(std::string(3, '\xff'), 0);
  listener_->OnOpus("", 960);
  listener_->OnPcm("x");
  EXPECT_EQ(frames_, 0);
}

}  // namespace
}  // namespace parley::agent
