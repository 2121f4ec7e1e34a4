// What a caller makes of what it is told: placement on the timeline, speech, transcripts.
#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <vector>

#include "audio/level.h"
#include "audio/opus.h"
#include "audio/pcm.h"
#include "caller/call_log.h"
#include "caller/microphone.h"
#include "caller/recording.h"
#include "testing/matchers.h"

namespace parley::caller {
namespace {

namespace pb = ::parley::room::v1;

TEST(PlacementTest, FramesFollowEachOtherThoughTheyArriveUnevenly) {
  Placement placement;
  EXPECT_EQ(placement.Place(1000, 4800), 4800);
  EXPECT_EQ(placement.Place(1960, 4800 + 1500), 5760);
  EXPECT_EQ(placement.Place(2920, 4800 + 1600), 6720) << "two at once";
}

TEST(PlacementTest, APauseWithoutFramesBeginsAnew) {
  Placement placement;
  placement.Place(0, 0);
  EXPECT_EQ(placement.Place(960, 48'000), 48'000) << "the clock stood still, time did not";
  EXPECT_EQ(placement.Place(1920, 48'960), 48'960);
}

TEST(PlacementTest, TheMediaClockMayWrapOrJump) {
  Placement placement;
  EXPECT_EQ(placement.Place(0xffffffffu - 959, 960), 960);
  EXPECT_EQ(placement.Place(0, 1920), 1920);
  EXPECT_EQ(placement.Place(3'000'000'000u, 2880), 2880);
}

TEST(RecordingTest, MixesOverlapsAndSaturates) {
  Recording recording;
  const std::vector<int16_t> loud(4, 30'000);
  recording.AddAgent(2, loud);
  recording.AddAgent(4, loud);
  EXPECT_EQ(recording.agent().size(), 8u);
  EXPECT_EQ(recording.agent()[0], 0);
  EXPECT_EQ(recording.agent()[3], 30'000);
  EXPECT_EQ(recording.agent()[4], 32'767);
  recording.AddCaller(-5, loud);
  recording.AddCaller(Recording::kMaxSamples, loud);
  EXPECT_TRUE(recording.caller().empty());
}

TEST(MicrophoneTest, FillsTheLastFrameAndGoesQuiet) {
  auto microphone = *Microphone::Create(0, false);
  EXPECT_EQ(microphone.Next(), std::nullopt);
  microphone.Queue(std::vector<int16_t>(1000, 1000));
  const auto first = microphone.Next();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->timestamp, 960u) << "the clock ran on in the silence";
  EXPECT_FALSE(first->last);
  const auto second = microphone.Next();
  ASSERT_TRUE(second);
  EXPECT_TRUE(second->last);
  EXPECT_EQ(second->samples[39], 1000);
  EXPECT_EQ(second->samples[40], 0);
  EXPECT_EQ(microphone.Next(), std::nullopt);
}

TEST(MicrophoneTest, SpeaksAfterALongSilence) {
  auto microphone = *Microphone::Create(0, true);
  auto decoder = *audio::OpusDecoder::Create(audio::kRoomRateHz);
  std::vector<int16_t> heard(audio::kRoomFrameSamples * 6);
  std::vector<int16_t> tone(audio::kRoomFrameSamples * 20);
  for (size_t i = 0; i < tone.size(); ++i) tone[i] = (i / 50) % 2 == 0 ? 8000 : -8000;
  const auto loudest = [&](int frames) {
    uint32_t level = 127;  // of RFC 6464: 0 is the loudest
    for (int i = 0; i < frames; ++i) {
      const auto frame = microphone.Next();
      const auto count = decoder.Decode(frame->packet, heard);
      EXPECT_EQ(*count, audio::kRoomFrameSamples);
      level = std::min(level, audio::Level(std::span<const int16_t>(heard).first(*count)));
    }
    return level;
  };
  EXPECT_GT(loudest(100), 90u);
  microphone.Queue(tone);
  EXPECT_LT(loudest(20), 20u);
  loudest(10);
  EXPECT_GT(loudest(100), 90u);
}

class CallLogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    pb::Joined joined;
    joined.mutable_participant()->set_identity("me");
    auto* agent = joined.add_others();
    agent->set_identity("agent");
    agent->set_kind(pb::PARTICIPANT_KIND_AGENT);
    log_.OnJoined(joined);
  }
  void Text(const std::string& stream, const std::string& text, bool final, int64_t at_us) {
    pb::RoomEvent event;
    event.mutable_text()->set_topic("lk.transcription");
    event.mutable_text()->set_stream_id(stream);
    event.mutable_text()->set_text(text);
    event.mutable_text()->set_from_identity("me");
    auto& attributes = *event.mutable_text()->mutable_attributes();
    attributes["lk.segment_id"] = "SG_1";
    attributes["lk.transcription_final"] = final ? "true" : "false";
    log_.OnEvent(event, at_us);
  }
  int Count(CallEvent::Type type) const {
    int count = 0;
    for (const auto& event : log_.events()) count += event.type == type ? 1 : 0;
    return count;
  }
  CallLog log_;
};

TEST_F(CallLogTest, ANewStreamReplacesTheSegmentsText) {
  Text("s1", "how much", false, 10);
  Text("s2", "how much is", false, 20);
  Text("s3", "how much is a room", true, 30);
  ASSERT_EQ(log_.transcripts().size(), 1u);
  EXPECT_EQ(log_.transcripts()[0].text, "how much is a room");
  EXPECT_TRUE(log_.transcripts()[0].final);
  EXPECT_FALSE(log_.transcripts()[0].agent);
  EXPECT_EQ(log_.transcripts()[0].first_at_us, 10);
}

TEST_F(CallLogTest, SpeechEndsAfterItsGap) {
  log_.OnAgentFrame("agent", false, 0);
  EXPECT_TRUE(log_.spoken().empty());
  log_.OnAgentFrame("agent", true, 100'000);
  log_.OnAgentFrame("agent", true, 120'000);
  log_.OnTime(300'000, 600'000);
  EXPECT_EQ(Count(CallEvent::Type::kAgentSpeechEnded), 0);
  log_.OnAgentFrame("agent", true, 400'000);
  log_.OnTime(1'100'000, 600'000);
  ASSERT_EQ(Count(CallEvent::Type::kAgentSpeechEnded), 1);
  EXPECT_EQ(log_.events().back().at_us, 420'000);
  EXPECT_EQ(Count(CallEvent::Type::kAgentSpeechStarted), 1);
  EXPECT_EQ(log_.spoken().size(), 2u);
}

TEST_F(CallLogTest, AttributesAreToldWhenTheyChange) {
  pb::RoomEvent event;
  auto* participant = event.mutable_participant_updated()->mutable_participant();
  participant->set_identity("agent");
  participant->set_kind(pb::PARTICIPANT_KIND_AGENT);
  (*participant->mutable_attributes())["lk.agent.state"] = "thinking";
  log_.OnEvent(event, 5);
  log_.OnEvent(event, 6);
  EXPECT_EQ(Count(CallEvent::Type::kAttribute), 1);
  EXPECT_EQ(log_.AgentAttribute("lk.agent.state"), "thinking");
  participant->clear_attributes();
  log_.OnEvent(event, 7);
  EXPECT_EQ(Count(CallEvent::Type::kAttribute), 2);
  EXPECT_EQ(log_.AgentAttribute("lk.agent.state"), "");
}

TEST_F(CallLogTest, TheEndIsToldOnce) {
  log_.OnDisconnected("room deleted", 1);
  log_.OnDisconnected("stream over", 2);
  EXPECT_EQ(Count(CallEvent::Type::kDisconnected), 1);
  EXPECT_TRUE(log_.over());
}

}  // namespace
}  // namespace parley::caller
