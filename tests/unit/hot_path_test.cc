// Nothing is allocated for a frame of audio in a job: counted, from the bytes that come out of its
// socket to the bytes that go in again.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cmath>

#include "agent/job/conversation.h"
#include "agent/job/frame.h"
#include "agent/job/link.h"
#include "agent/job/room_view.h"
#include "audio/opus.h"
#include "audio/pcm.h"
#include "base/check.h"
#include "count_allocations.h"

namespace parley::agent {
namespace {

namespace jobv1 = parley::job::v1;
namespace roomv1 = parley::room::v1;
using testing::allocations;

constexpr int kWarm = 250;  // frames: buffers have found their size, one utterance is over
constexpr int kFrames = 500;

// The server's end: knows just enough to start a call.
class HotPathTest : public ::testing::Test {
 protected:
  HotPathTest() {
    PARLEY_CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds_.data()) == 0);
    link_ = std::make_unique<JobLink>(
        loop_, fds_[0],
        JobLink::Callbacks{.on_message = [this](const jobv1::ToJob& m) { OnMessage(m); },
                           .on_closed = [](const std::string& error) { FAIL() << error; }});
    roomv1::Joined joined;
    joined.mutable_participant()->set_identity("agent");
    auto& person = *joined.add_others();
    person.set_identity("ann");
    person.set_kind(roomv1::PARTICIPANT_KIND_STANDARD);
    room_.OnJoined(joined);
    roomv1::RoomEvent event;
    auto& started = *event.mutable_subscription_started();
    started.set_participant_identity("ann");
    started.set_track_number(1);
    started.mutable_track()->set_kind(roomv1::TRACK_KIND_AUDIO);
    started.mutable_track()->set_source(roomv1::TRACK_SOURCE_MICROPHONE);
    room_.OnEvent(event);
    auto& published = *event.mutable_track_published();
    published.set_participant_identity("agent");
    published.set_cid(kVoiceCid);
    published.mutable_track()->set_sid("TR_agent");
    room_.OnEvent(event);
    SessionConfig config;
    config.stt = {{.engine = "scripted"}};
    config.llm = {{.engine = "scripted"}};
    config.tts = {{.engine = "scripted"}};
    config.greeting = "Good day.";
    auto made = Conversation::Create(
        loop_, std::make_shared<Mailbox>(&loop_),
        {.send = [this](jobv1::FromJob& m) { link_->Send(m); },
         .send_fresh = [this](jobv1::FromJob& m, bool more) { link_->SendFresh(m, more); },
         .present = [](const std::vector<std::shared_ptr<AgentHooks>>&) {},
         .ended = [](session::EndReason, const std::string& error) { FAIL() << error; }},
        room_, jobv1::Assignment(), config, {});
    PARLEY_CHECK(made.ok());
    conversation_ = *std::move(made);
    conversation_->Start();
  }
  ~HotPathTest() override { close(fds_[1]); }

  void OnMessage(const jobv1::ToJob& message) {
    conversation_->OnMessage(message, loop_.NowMicros());
    ++handled_;
  }
  // As the agent server: one frame of a voice or of silence.
  void Give(int index, bool speech) {
    std::vector<int16_t> samples(audio::kRoomFrameSamples);
    for (size_t i = 0; speech && i < samples.size(); ++i) {
      const double t = static_cast<double>(index * 960 + static_cast<int>(i)) / 48'000;
      // Syllables of a buzzing voice.
      const double loud = 0.6 + 0.4 * std::sin(2 * M_PI * 4 * t);
      samples[i] = static_cast<int16_t>(6'000 * loud * std::sin(2 * M_PI * 140 * t) +
                                        4'000 * loud * std::sin(2 * M_PI * 560 * t));
    }
    std::vector<uint8_t> packet(audio::OpusEncoder::kMaxPacketBytes);
    const size_t bytes = *encoder_.Encode(samples, packet);
    jobv1::ToJob message;
    message.set_seq(++seq_);
    jobv1::AudioIn& in = *message.mutable_audio();
    in.set_track_number(1);
    in.set_codec(roomv1::CODEC_OPUS);
    in.set_timestamp(static_cast<uint32_t>(index) * 960);
    in.set_data(packet.data(), bytes);
    Send(message);
  }
  void Send(const jobv1::ToJob& message) {
    std::string out;
    AppendFrame(message.SerializeAsString(), out);
    PARLEY_CHECK(send(fds_[1], out.data(), out.size(), 0) == static_cast<ssize_t>(out.size()));
  }
  void ReadAll() {
    char buffer[65'536];
    ssize_t got = 0;
    while ((got = recv(fds_[1], buffer, sizeof buffer, MSG_DONTWAIT)) > 0) sent_ += got;
  }
  // The stream and the segment of the text that the job wants to hear.
  std::pair<uint32_t, uint64_t> AwaitedSpeech() {
    char buffer[65'536];
    FrameReader reader;
    jobv1::FromJob message;
    const int64_t until_us = loop_.NowMicros() + 5'000'000;
    while (loop_.NowMicros() < until_us) {
      loop_.Turn();
      const ssize_t got = recv(fds_[1], buffer, sizeof buffer, MSG_DONTWAIT);
      if (got > 0) reader.Append({buffer, static_cast<size_t>(got)});
      for (auto frame = reader.Next(); frame.ok() && frame->has_value(); frame = reader.Next()) {
        PARLEY_CHECK(message.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size())));
        if (message.tts().has_flush()) {
          return {message.tts().stream(), message.tts().flush().segment()};
        }
      }
    }
    ADD_FAILURE() << "nothing is said";
    return {};
  }
  // Allocations while the job takes one frame from its socket and does what is due.
  int64_t Take() {
    const int before_handled = handled_;
    const int64_t before = allocations.load();
    while (handled_ == before_handled) loop_.Turn();
    return allocations.load() - before;
  }

  std::array<int, 2> fds_{};
  event::Loop loop_;
  RoomView room_;
  std::unique_ptr<JobLink> link_;
  std::unique_ptr<Conversation> conversation_;
  audio::OpusEncoder encoder_ = *audio::OpusEncoder::Create();
  uint64_t seq_ = 0;
  int handled_ = 0;
  int64_t sent_ = 0;  // bytes, by the job
};

TEST_F(HotPathTest, AnAllocationIsCounted) {
  const int64_t before = allocations.load();
  const auto made = std::make_unique<std::string>(100, 'x');
  EXPECT_EQ(allocations.load() - before, 2);
}

TEST_F(HotPathTest, NothingIsAllocatedForAFrameOfSilence) {
  int64_t counted = 0;
  for (int i = 0; i < kWarm + kFrames; ++i) {
    Give(i, false);
    const int64_t now = Take();
    if (i >= kWarm) counted += now;
    ReadAll();
  }
  EXPECT_EQ(counted, 0);
}

TEST_F(HotPathTest, NothingIsAllocatedForAFrameOfSpeech) {
  int64_t counted = 0;
  for (int i = 0; i < kWarm + kFrames; ++i) {
    Give(i, true);
    const int64_t now = Take();
    if (i >= kWarm) counted += now;
    ReadAll();
  }
  EXPECT_LE(counted, 2) << "two buffers, once, when the messages' numbers get longer";
  EXPECT_GT(sent_, kFrames * 640) << "the recogniser is to be fed";
}

// The greeting, at the pace of real time.
TEST_F(HotPathTest, NothingIsAllocatedForAFrameThatIsSaid) {
  const auto [stream, segment] = AwaitedSpeech();
  jobv1::ToJob message;
  message.set_seq(++seq_);
  message.mutable_room_event()->mutable_track_subscribed()->set_track_sid("TR_agent");
  Send(message);
  Take();
  message.set_seq(++seq_);
  auto& audio = *message.mutable_tts()->mutable_response()->mutable_audio();
  message.mutable_tts()->set_stream(stream);
  audio.set_segment(segment);
  audio.set_data(std::string(Playout::kFrameSamples * 2 * 80, '\x11'));
  Send(message);
  Take();
  int allocating = 0;
  int frames = 0;
  const int64_t until_us = loop_.NowMicros() + 2'000'000;  // 1.6 s of speech
  while (loop_.NowMicros() < until_us) {
    const int64_t sent = sent_;
    const int64_t before = allocations.load();
    loop_.Turn();
    const int64_t now = allocations.load() - before;
    ReadAll();
    if (sent_ > sent && ++frames > 10) allocating += now > 0 ? 1 : 0;
  }
  EXPECT_GE(frames, 15) << "a busy machine sends several at a time";
  EXPECT_LE(allocating, 2) << "the transcript's words, with which they go, and nothing else";
}

// Played at the pace of real time, a frame each 20 ms.
TEST(PlayoutTest, NothingIsAllocatedForAFrameThatIsPlayed) {
  event::Loop loop;
  int frames = 0;
  int64_t before = 0;
  int64_t counted = -1;
  Playout playout(loop, *Playout::MakeEncoder(),
                  {.frame =
                       [&](const Playout::Frame&) {
                         if (++frames == 10) before = allocations.load();
                         if (frames == 60) {
                           counted = allocations.load() - before;
                           loop.Stop();
                         }
                       },
                   .cut = [](int64_t) {},
                   .progress = [](uint64_t, int64_t) {}});
  playout.Begin();
  playout.Append(std::vector<int16_t>(Playout::kFrameSamples * 70, 1'000));
  playout.Start(1);
  loop.Run();
  EXPECT_EQ(counted, 0);
}

// Opus that is ready goes out as it is, in its place between what is encoded here.
TEST(PlayoutTest, ReadyPacketsGoOutAsTheyAre) {
  event::Loop loop;
  std::vector<std::string> packets;
  std::vector<uint32_t> levels;
  std::vector<uint32_t> timestamps;
  int64_t said_us = 0;
  constexpr int64_t kAll = 7 * 20'000 - 10'000;  // the second piece of samples is half a frame
  Playout playout(loop, *Playout::MakeEncoder(),
                  {.frame =
                       [&](const Playout::Frame& frame) {
                         packets.emplace_back(frame.packet);
                         levels.push_back(frame.level);
                         timestamps.push_back(frame.timestamp);
                       },
                   .cut = [](int64_t) {},
                   .progress =
                       [&](uint64_t, int64_t position_us) {
                         said_us = position_us;
                         if (said_us == kAll) loop.Stop();
                       }});
  playout.Begin();
  playout.Append(std::vector<int16_t>(Playout::kFrameSamples, 1'000));
  playout.AppendPacket("one", 30);
  playout.AppendPacket("two", 40);
  playout.Append(std::vector<int16_t>(Playout::kFrameSamples / 2, 1'000));
  playout.AppendPacket(std::string(audio::OpusEncoder::kMaxPacketBytes + 1, 'x'), 0);
  playout.AppendPacket("", 0);
  playout.AppendPacket("three", 50);
  playout.Start(1);
  event::Timer later(loop);
  later.StartOnce(absl::Milliseconds(30), [&] {
    playout.AppendPacket("four", 60);
    playout.Append(std::vector<int16_t>(Playout::kFrameSamples, 1'000));
  });
  event::Timer enough(loop);
  enough.StartOnce(absl::Seconds(10), [&] { loop.Stop(); });
  loop.Run();
  ASSERT_EQ(packets.size(), 7U);
  EXPECT_EQ(packets[1], "one");
  EXPECT_EQ(packets[2], "two");
  EXPECT_EQ(packets[4], "three");
  EXPECT_EQ(packets[5], "four");
  EXPECT_EQ(levels[1], 30U);
  EXPECT_EQ(levels[5], 60U);
  for (size_t i = 1; i < timestamps.size(); ++i) EXPECT_EQ(timestamps[i] - timestamps[i - 1], 960U);
  EXPECT_EQ(said_us, kAll);
}

// When all is said the loop sleeps; what comes then is played at once, on the same media clock.
TEST(PlayoutTest, SleepsWhenThereIsNothingToPlay) {
  event::Loop loop;
  std::vector<uint32_t> timestamps;
  Playout playout(
      loop, *Playout::MakeEncoder(),
      {.frame = [&](const Playout::Frame& frame) { timestamps.push_back(frame.timestamp); },
       .cut = [](int64_t) {},
       .progress = [](uint64_t, int64_t) {}});
  playout.Begin();
  playout.Append(std::vector<int16_t>(Playout::kFrameSamples * 2, 1'000));
  playout.Start(1);
  event::Timer later(loop);
  later.StartOnce(absl::Milliseconds(200), [&] {
    EXPECT_EQ(timestamps.size(), 2U);
    playout.Append(std::vector<int16_t>(Playout::kFrameSamples, 1'000));
    EXPECT_EQ(timestamps.size(), 3U) << "not at the next tick of a clock that runs for nothing";
    loop.Stop();
  });
  loop.Run();
  EXPECT_EQ(timestamps[1] - timestamps[0], 960U);
  const uint32_t pause_ms = (timestamps[2] - timestamps[1]) / 48;
  EXPECT_GE(pause_ms, 140U);
  EXPECT_EQ(pause_ms % 20, 0U);
}

// What a server that keeps the pace was given, and what it was told to drop again.
class AheadTest : public ::testing::Test {
 protected:
  struct Given {
    uint32_t timestamp;
    int64_t due_us;
    bool ahead;
  };
  AheadTest()
      : playout_(
            loop_, *Playout::MakeEncoder(),
            {.frame =
                 [this](const Playout::Frame& frame) {
                   const int64_t now_us = loop_.NowMicros();
                   EXPECT_LE(frame.due_us, now_us + absl::ToInt64Microseconds(Playout::kMostAhead));
                   given_.push_back({frame.timestamp, frame.due_us == 0 ? now_us : frame.due_us,
                                     frame.due_us != 0});
                   messages_ += frame.more ? 0 : 1;
                 },
             .cut =
                 [this](int64_t after_us) {
                   std::erase_if(given_, [&](const Given& one) { return one.due_us > after_us; });
                   ++cuts_;
                 },
             .progress =
                 [this](uint64_t, int64_t position_us) {
                   EXPECT_GE(position_us, position_us_);
                   position_us_ = position_us;
                   if (position_us == ends_at_us_) loop_.Stop();
                 }},
            Playout::kMostAhead) {}

  // So many frames and a piece of one, each different.
  void Speak(size_t frames, size_t piece) {
    std::vector<int16_t> samples(frames * Playout::kFrameSamples + piece);
    for (size_t i = 0; i < samples.size(); ++i) {
      const double hz = 200 + 20 * static_cast<double>(i / Playout::kFrameSamples);
      samples[i] = static_cast<int16_t>(
          8'000 * std::sin(2 * M_PI * hz * static_cast<double>(i) / Playout::kRateHz));
    }
    ends_at_us_ = audio::SamplesToMicros(static_cast<int64_t>(samples.size()), Playout::kRateHz);
    playout_.Begin();
    playout_.Append(samples);
    start_us_ = loop_.NowMicros();
    playout_.Start(1);
  }
  // What is handed over too late, on a busy machine, says no time.
  void ExpectSteady(size_t frames) {
    ASSERT_EQ(given_.size(), frames);
    for (size_t i = 1; i < frames; ++i) {
      EXPECT_EQ(given_[i].timestamp - given_[i - 1].timestamp, 960U) << i;
      if (!given_[i].ahead || !given_[i - 1].ahead) continue;
      EXPECT_EQ(given_[i].due_us - given_[i - 1].due_us, 20'000) << i;
    }
  }

  event::Loop loop_;
  std::vector<Given> given_;
  int messages_ = 0;
  int cuts_ = 0;
  int64_t position_us_ = 0;
  int64_t ends_at_us_ = -1;
  int64_t start_us_ = 0;
  Playout playout_;
};

TEST_F(AheadTest, WakesUpOnceForSeveralFrames) {
  Speak(50, 100);
  loop_.Run();
  EXPECT_GE(loop_.NowMicros() - start_us_, 1'000'000) << "it is over when it has been heard";
  ExpectSteady(51);
  EXPECT_LE(messages_, 8) << "51 frames, eleven at a time";
  EXPECT_EQ(cuts_, 0);
}

TEST_F(AheadTest, WhatWasNotHeardIsHeardAfterAPause) {
  event::Timer pause(loop_);
  event::Timer resume(loop_);
  int64_t heard_us = 0;
  int64_t paused_us = 0;  // when the timers fired: on a busy machine later than asked for
  int64_t resumed_us = 0;
  size_t kept = 0;
  pause.StartOnce(absl::Milliseconds(210), [&] {
    playout_.Pause();
    paused_us = loop_.NowMicros();
    heard_us = position_us_;
    kept = given_.size();
    resume.StartOnce(absl::Milliseconds(190), [&] {
      playout_.Resume();
      resumed_us = loop_.NowMicros();
    });
  });
  Speak(30, 0);
  loop_.Run();
  EXPECT_EQ(cuts_, 1);
  EXPECT_EQ(heard_us, static_cast<int64_t>(kept) * 20'000) << "as much as the server kept";
  EXPECT_GE(heard_us, 200'000);
  EXPECT_LE(heard_us, paused_us - start_us_ + 90'000) << "not what was handed over only";
  ASSERT_EQ(given_.size(), 30U) << "nothing twice, nothing lost";
  const int64_t pause_us = resumed_us - paused_us;
  EXPECT_GE(given_[kept].due_us - given_[kept - 1].due_us, pause_us - 90'000);
  EXPECT_EQ((given_[kept].timestamp - given_[kept - 1].timestamp) % 960, 0U);
  EXPECT_GE(given_[kept].timestamp - given_[kept - 1].timestamp, (pause_us / 20'000 - 4) * 960);
}

TEST_F(AheadTest, AnInterruptionTakesBackWhatWasHandedOver) {
  event::Timer interrupt(loop_);
  interrupt.StartOnce(absl::Milliseconds(210), [&] {
    playout_.TellProgress();
    EXPECT_GE(position_us_, 200'000);
    playout_.Clear();
    const size_t kept = given_.size();
    EXPECT_LE(given_.back().due_us, loop_.NowMicros() + 10'000);
    playout_.Begin();
    playout_.Append(std::vector<int16_t>(Playout::kFrameSamples, 1'000));
    position_us_ = 0;
    ends_at_us_ = 20'000;
    playout_.Start(2);
    EXPECT_EQ(given_.size(), kept + 1);
    EXPECT_GE(given_[kept].due_us - given_[kept - 1].due_us, 20'000) << "no two at a time";
  });
  Speak(30, 0);
  loop_.Run();
  EXPECT_EQ(cuts_, 1);
}

}  // namespace
}  // namespace parley::agent
