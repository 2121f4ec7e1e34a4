// Rooms: seats, permissions, tracks, packets, timeouts, identity, and the fence of jobs.
#include "room/room.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "room/early_speech.h"
#include "room/rooms.h"
#include "testing/fake_clock.h"
#include "testing/matchers.h"

namespace parley::room {
namespace {

using ::parley::testing::FakeClock;
using ::parley::testing::HasCode;
using ::parley::testing::HasReason;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Remembers what it was told.
class RecordingSink : public ParticipantSink {
 public:
  bool TakesEarlySpeech() const override { return takes_early_speech_; }
  bool SaysWhenItHears() const override { return says_when_it_hears_; }
  void OnJoined(const Joined& joined) override { joined_ = joined; }
  void OnEvent(const Event& event) override { events_.push_back(event); }
  void OnFrame(uint32_t track_number, const Frame& frame) override {
    frames_.emplace_back(track_number, std::string(frame.data));
  }

  template <typename T>
  std::vector<T> All() const {
    std::vector<T> found;
    for (const Event& event : events_) {
      if (const T* match = std::get_if<T>(&event)) found.push_back(*match);
    }
    return found;
  }
  template <typename T>
  T Last() const {
    const std::vector<T> all = All<T>();
    EXPECT_FALSE(all.empty());
    return all.empty() ? T{} : all.back();
  }

  bool takes_early_speech_ = true;
  bool says_when_it_hears_ = false;
  Joined joined_;
  std::vector<Event> events_;
  std::vector<std::pair<uint32_t, std::string>> frames_;
};

struct Guest {
  std::shared_ptr<RecordingSink> sink = std::make_shared<RecordingSink>();
  std::shared_ptr<Participant> seat;

  bool gone() const { return !sink->All<Disconnected>().empty(); }
  LeaveReason reason() const { return sink->Last<Disconnected>().reason; }
};

JoinRequest Person(std::string identity) {
  JoinRequest request;
  request.identity = std::move(identity);
  return request;
}

JoinRequest Agent(std::string identity, std::string job, uint64_t token,
                  std::string worker = "AW_1", std::string instance = "i1") {
  JoinRequest request;
  request.identity = std::move(identity);
  request.kind = Kind::kAgent;
  request.permission.can_update_metadata = true;
  request.job = JobClaim{std::move(job), token, std::move(worker), std::move(instance)};
  return request;
}

class RoomTest : public ::testing::Test {
 protected:
  void SetUp() override { Make({.project = "p", .name = "r"}); }
  // Seats and their room hold each other until it closes.
  void TearDown() override { room_->Close(LeaveReason::kRoomClosed); }

  void Make(RoomOptions options) {
    auto room = Room::Create(std::move(options), clock_, [this](const AdmissionRecord& record) {
      const char* what = record.outcome == AdmissionRecord::Outcome::kAdmit    ? "admit"
                         : record.outcome == AdmissionRecord::Outcome::kRefuse ? "refuse"
                                                                               : "remove";
      admissions_.push_back(fmt::format("{} {}#{}", what, record.job.job_id, record.job.token));
    });
    PARLEY_ASSERT_OK(room);
    room_ = *std::move(room);
  }

  absl::StatusOr<Guest> TryJoin(const JoinRequest& request) {
    Guest guest;
    PARLEY_ASSIGN_OR_RETURN(guest.seat, room_->Join(request, guest.sink));
    return guest;
  }
  Guest Join(const JoinRequest& request) {
    auto guest = TryJoin(request);
    EXPECT_THAT(guest, ::parley::testing::IsOk());
    return guest.ok() ? *guest : Guest{};
  }

  FakeClock clock_;
  std::shared_ptr<Room> room_;
  std::vector<std::string> admissions_;
};

// ---- who speaks, and how well ----

class SpeakersTest : public RoomTest {
 protected:
  void SetUp() override {
    RoomTest::SetUp();
    ann_ = Join(Person("ann"));
    bob_ = Join(Person("bob"));
    track_ = ann_.seat->Publish({.cid = "mic"})->sid;
  }
  // So many frames of 20 ms.
  void Speak(int frames, uint32_t level) {
    for (int i = 0; i < frames; ++i) {
      clock_.Advance(absl::Milliseconds(20));
      ann_.seat->SendFrame(0, {.timestamp = 0, .level = level, .data = "x"});
    }
  }
  std::vector<bool> Told() {  // of ann
    std::vector<bool> told;
    for (const auto& changed : bob_.sink->All<SpeakersChanged>()) {
      for (const Speaker& speaker : changed.speakers) {
        EXPECT_EQ(speaker.identity, "ann");
        if (told.empty() || told.back() != speaker.active) told.push_back(speaker.active);
      }
    }
    return told;
  }
  Guest ann_;
  Guest bob_;
  std::string track_;
};

TEST_F(SpeakersTest, LoudSpeechIsNoticedABreathIsNot) {
  Speak(40, 60);
  EXPECT_THAT(Told(), IsEmpty()) << "too soft";
  Speak(40, 20);
  EXPECT_THAT(Told(), ElementsAre(true));
  EXPECT_GT(bob_.sink->Last<SpeakersChanged>().speakers[0].level, 0.04);
  Speak(15, 127);
  Speak(40, 20);
  EXPECT_THAT(Told(), ElementsAre(true));
  Speak(60, 127);
  EXPECT_THAT(Told(), ElementsAre(true, false));
  EXPECT_EQ(bob_.sink->Last<SpeakersChanged>().speakers[0].level, 0);
}

TEST_F(SpeakersTest, SilenceWithoutFramesAndAMutedMicrophoneAreNoticed) {
  Speak(40, 20);
  for (int i = 0; i < 20; ++i) {
    clock_.Advance(absl::Milliseconds(100));
    EXPECT_FALSE(room_->CloseIfDue());
  }
  EXPECT_THAT(Told(), ElementsAre(true, false));
  Speak(40, 20);
  PARLEY_ASSERT_OK(ann_.seat->SetMuted(track_, true));
  EXPECT_THAT(Told(), ElementsAre(true, false, true, false));
}

TEST_F(SpeakersTest, NewcomersHearWhoSpeaksAndHowWellTheyAreConnected) {
  Speak(40, 20);
  ann_.seat->SetQuality(Quality::kPoor, 2.5F);
  ann_.seat->SetQuality(Quality::kPoor, 2.4F);  // no news
  EXPECT_EQ(bob_.sink->All<QualityChanged>().size(), 1);
  const Guest carol = Join(Person("carol"));
  EXPECT_EQ(carol.sink->Last<SpeakersChanged>().speakers[0].identity, "ann");
  EXPECT_EQ(carol.sink->Last<QualityChanged>().sid, ann_.seat->sid());
  EXPECT_EQ(carol.sink->Last<QualityChanged>().quality, Quality::kPoor);
}

TEST_F(RoomTest, CallsReachWhomTheyNameAndAreRefusedOtherwise) {
  const Guest ann = Join(Person("ann"));
  const Guest bob = Join(Person("bob"));
  const Guest carol = Join(Person("carol"));
  RpcPacket call;
  call.request_id = "1";
  call.method = "add";
  call.from_identity = "carol";  // a lie
  call.destination_identity = "bob";
  PARLEY_ASSERT_OK(ann.seat->SendRpc(call));
  EXPECT_EQ(bob.sink->Last<RpcPacket>().from_identity, "ann");
  EXPECT_THAT(carol.sink->All<RpcPacket>(), IsEmpty());
  call.destination_identity = "dave";
  PARLEY_ASSERT_OK(ann.seat->SendRpc(call));
  EXPECT_EQ(ann.sink->Last<RpcPacket>().error_code, 1401);
  call.step = RpcPacket::Step::kResponse;
  PARLEY_ASSERT_OK(bob.seat->SendRpc(call));  // the caller has left: nobody to tell
  EXPECT_EQ(bob.sink->All<RpcPacket>().size(), 1);
  call.payload = std::string(kMaxDataBytes + 1, 'x');
  EXPECT_THAT(ann.seat->SendRpc(call), HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(RoomTest, HowSomebodyLeftIsKnownForAWhile) {
  Guest ann = Join(Person("ann"));
  ann.seat->Leave(LeaveReason::kConnectionLost);
  EXPECT_EQ(ReasonOf(room_->Find("ann").status()).metadata.at("left"), "connection_lost");
  ann = Join(Person("ann"));
  PARLEY_EXPECT_OK(room_->Find("ann"));
  ann.seat->Leave(LeaveReason::kClientInitiated);
  EXPECT_EQ(ReasonOf(room_->Find("ann").status()).metadata.at("left"), "client_initiated");
  for (int i = 0; i < 64; ++i) {
    Join(Person(fmt::format("guest-{}", i))).seat->Leave(LeaveReason::kClientInitiated);
  }
  EXPECT_EQ(ReasonOf(room_->Find("ann").status()).reason, "") << "forgotten";
  EXPECT_THAT(room_->Find("ann"), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(RoomTest, TheServerCallsAndHearsWhoAnswers) {
  const Guest ann = Join(Person("ann"));
  const Guest bob = Join(Person("bob"));
  std::vector<RpcPacket> heard;
  const auto hear = [&](const RpcPacket& packet) { heard.push_back(packet); };
  RpcPacket call;
  call.request_id = "rpc-1";
  call.method = "add";
  call.destination_identity = "bob";
  PARLEY_ASSERT_OK(room_->Call(call, hear));
  EXPECT_EQ(bob.sink->Last<RpcPacket>().from_identity, "rpc-1");
  RpcPacket answer;
  answer.request_id = "rpc-1";
  answer.destination_identity = "rpc-1";
  answer.step = RpcPacket::Step::kResponse;
  PARLEY_ASSERT_OK(ann.seat->SendRpc(answer));
  EXPECT_THAT(heard, IsEmpty()) << "ann was not asked";
  answer.step = RpcPacket::Step::kAck;
  PARLEY_ASSERT_OK(bob.seat->SendRpc(answer));
  answer.step = RpcPacket::Step::kResponse;
  answer.payload = "3";
  PARLEY_ASSERT_OK(bob.seat->SendRpc(answer));
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(heard[0].step, RpcPacket::Step::kAck);
  EXPECT_EQ(heard[1].payload, "3");
  bob.seat->Leave(LeaveReason::kClientInitiated);
  ASSERT_EQ(heard.size(), 3u);
  EXPECT_EQ(heard[2].error_code, 1503u);
  room_->EndCall("rpc-1");
  call.request_id = "rpc-2";
  PARLEY_ASSERT_OK(room_->Call(call, hear));
  EXPECT_EQ(heard.back().error_code, 1401u) << "bob has left";
  call.payload = std::string(kMaxRpcBytes + 1, 'x');
  EXPECT_THAT(room_->Call(call, hear), HasCode(absl::StatusCode::kInvalidArgument));
  call.payload.clear();
  for (size_t i = 0; i < kMaxCalls - 1; ++i) {
    call.request_id = fmt::format("many-{}", i);
    PARLEY_ASSERT_OK(room_->Call(call, hear));
  }
  call.request_id = "one too many";
  EXPECT_THAT(room_->Call(call, hear), HasCode(absl::StatusCode::kResourceExhausted));
}

TEST_F(RoomTest, BytesGoToOthersWithTheirSender) {
  const Guest ann = Join(Person("ann"));
  const Guest bob = Join(Person("bob"));
  BytePacket packet;
  packet.stream_id = "s";
  packet.content = std::string("\x00\xff", 2);
  PARLEY_ASSERT_OK(ann.seat->SendBytes(packet));
  EXPECT_EQ(bob.sink->Last<BytePacket>().content, packet.content);
  EXPECT_EQ(bob.sink->Last<BytePacket>().from_identity, "ann");
  JoinRequest mute = Person("mute");
  mute.permission.can_publish_data = false;
  const Guest silent = Join(mute);
  EXPECT_THAT(silent.seat->SendBytes(packet), HasCode(absl::StatusCode::kPermissionDenied));
}

TEST_F(RoomTest, NewcomerSeesOthersAndOthersSeeIt) {
  const Guest ann = Join(Person("ann"));
  const Guest bob = Join(Person("bob"));
  EXPECT_EQ(ann.sink->joined_.self.identity, "ann");
  EXPECT_THAT(ann.sink->joined_.others, IsEmpty());
  ASSERT_EQ(bob.sink->joined_.others.size(), 1u);
  EXPECT_EQ(bob.sink->joined_.others[0].identity, "ann");
  EXPECT_EQ(ann.sink->Last<ParticipantJoined>().participant.identity, "bob");
  EXPECT_EQ(bob.sink->joined_.room.num_participants, 2);

  bob.seat->Leave(LeaveReason::kClientInitiated);
  EXPECT_EQ(ann.sink->Last<ParticipantLeft>().identity, "bob");
  EXPECT_EQ(bob.reason(), LeaveReason::kClientInitiated);
  EXPECT_THAT(bob.seat->SendData({.payload = "x"}), HasCode(absl::StatusCode::kFailedPrecondition));
}

TEST_F(RoomTest, HiddenParticipantsAreNotSeen) {
  const Guest ann = Join(Person("ann"));
  JoinRequest request = Person("ghost");
  request.permission.hidden = true;
  const Guest ghost = Join(request);
  EXPECT_THAT(ann.sink->events_, IsEmpty());
  EXPECT_THAT(Join(Person("bob")).sink->joined_.others, ::testing::SizeIs(1));
  EXPECT_THAT(ghost.seat->Publish({}), HasCode(absl::StatusCode::kPermissionDenied));
  PARLEY_EXPECT_OK(ghost.seat->SendData({.payload = "boo"}));
  EXPECT_EQ(ann.sink->Last<DataPacket>().from_identity, "");
  ghost.seat->Leave(LeaveReason::kClientInitiated);
  EXPECT_THAT(ann.sink->All<ParticipantLeft>(), IsEmpty());
}

TEST_F(RoomTest, FramesGoToSubscribersUnderTheirNumber) {
  const Guest ann = Join(Person("ann"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const Track track, ann.seat->Publish({.cid = "mic"}));
  EXPECT_EQ(ann.sink->Last<TrackPublished>().cid, "mic");
  EXPECT_EQ(ann.seat->SendFrame(0, {.data = "nobody"}), FrameResult::kUnheard);
  EXPECT_THAT(ann.sink->All<TrackSubscribed>(), IsEmpty());

  const Guest bob = Join(Person("bob"));
  EXPECT_EQ(bob.sink->Last<SubscriptionStarted>().track.sid, track.sid);
  EXPECT_EQ(ann.sink->Last<TrackSubscribed>().subscriber_identity, "bob");
  JoinRequest deaf = Person("carl");
  deaf.auto_subscribe = false;
  const Guest carl = Join(deaf);
  EXPECT_THAT(ann.sink->All<TrackSubscribed>(), ::testing::SizeIs(1)) << "the first one only";

  EXPECT_EQ(ann.seat->SendFrame(0, {.data = "hello"}), FrameResult::kForwarded);
  EXPECT_THAT(bob.sink->frames_, ElementsAre(std::pair(0u, std::string("hello"))));
  EXPECT_THAT(carl.sink->frames_, IsEmpty());
  PARLEY_EXPECT_OK(carl.seat->SetSubscribed(track.sid, true));
  PARLEY_EXPECT_OK(bob.seat->SetSubscribed(track.sid, false));
  ann.seat->SendFrame(0, {.data = "again"});
  EXPECT_THAT(bob.sink->frames_, ::testing::SizeIs(1));
  EXPECT_THAT(carl.sink->frames_, ElementsAre(std::pair(0u, std::string("again"))));
}

TEST_F(RoomTest, PublishersAreToldOfAListenerOnceItHears) {
  const Guest ann = Join(Person("ann"));
  const Guest bob = Join(Person("bob"));
  bob.sink->says_when_it_hears_ = true;
  PARLEY_ASSERT_OK(ann.seat->Publish({.cid = "mic"}));
  const uint32_t number = bob.sink->Last<SubscriptionStarted>().track_number;
  EXPECT_THAT(ann.sink->All<TrackSubscribed>(), IsEmpty());
  bob.seat->NowHears(number + 1);  // none of its tracks
  EXPECT_THAT(ann.sink->All<TrackSubscribed>(), IsEmpty());
  bob.seat->NowHears(number);
  EXPECT_EQ(ann.sink->Last<TrackSubscribed>().subscriber_identity, "bob");
  bob.seat->NowHears(number);
  Join(Person("carl"));
  EXPECT_THAT(ann.sink->All<TrackSubscribed>(), ::testing::SizeIs(1)) << "the first one only";
}

TEST_F(RoomTest, IndicesOfTracksStayAfterUnpublishing) {
  const Guest ann = Join(Person("ann"));
  const Guest bob = Join(Person("bob"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const Track first, ann.seat->Publish({.cid = "1"}));
  PARLEY_ASSERT_OK_AND_ASSIGN(const Track second, ann.seat->Publish({.cid = "2"}));
  PARLEY_EXPECT_OK(ann.seat->Unpublish(first.sid));
  EXPECT_EQ(bob.sink->Last<TrackUnpublished>().track_sid, first.sid);
  EXPECT_EQ(ann.seat->SendFrame(0, {.data = "x"}), FrameResult::kNoTrack);
  EXPECT_EQ(ann.seat->SendFrame(1, {.data = "y"}), FrameResult::kForwarded);
  EXPECT_EQ(ann.seat->SendFrame(2, {.data = "z"}), FrameResult::kNoTrack);
  EXPECT_EQ(ann.seat->TrackIndex(second.sid), 1u);
  EXPECT_EQ(ann.seat->TrackIndex(first.sid), std::nullopt);
}

TEST_F(RoomTest, FramesOfTheWrongSizeAreRefused) {
  const Guest ann = Join(Person("ann"));
  Join(Person("bob"));
  PARLEY_ASSERT_OK(ann.seat->Publish({.codec = Codec::kPcm16}));
  EXPECT_EQ(ann.seat->SendFrame(0, {.data = {}}), FrameResult::kInvalid);
  EXPECT_EQ(ann.seat->SendFrame(0, {.data = std::string(100, 'x')}), FrameResult::kInvalid);
  EXPECT_EQ(ann.seat->SendFrame(0, {.data = std::string(1920, 'x')}), FrameResult::kForwarded);
  EXPECT_EQ(ann.seat->SendFrame(0, {.data = std::string(kMaxFrameBytes + 1, 'x')}),
            FrameResult::kInvalid);
}

TEST_F(RoomTest, MutedTracksCarryNothingAndOnlyThePublisherUnmutes) {
  const Guest ann = Join(Person("ann"));
  const Guest bob = Join(Person("bob"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const Track track, ann.seat->Publish({}));
  PARLEY_ASSERT_OK(room_->MuteTrack("ann", track.sid, true));
  EXPECT_TRUE(bob.sink->Last<TrackMuted>().muted);
  EXPECT_EQ(ann.seat->SendFrame(0, {.data = "x"}), FrameResult::kMuted);
  EXPECT_THAT(room_->MuteTrack("ann", track.sid, false),
              HasCode(absl::StatusCode::kFailedPrecondition));
  PARLEY_EXPECT_OK(ann.seat->SetMuted(track.sid, false));
  EXPECT_EQ(ann.seat->SendFrame(0, {.data = "x"}), FrameResult::kForwarded);
}

TEST_F(RoomTest, PermissionsAreNamedWhenTheyAreMissing) {
  JoinRequest request = Person("ann");
  request.permission = {.can_subscribe = false, .can_publish = false, .can_publish_data = false};
  const Guest ann = Join(request);
  const Guest bob = Join(Person("bob"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const Track track, bob.seat->Publish({}));
  EXPECT_THAT(ann.sink->All<SubscriptionStarted>(), IsEmpty());
  EXPECT_THAT(ann.seat->SetSubscribed(track.sid, true),
              HasCode(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(ann.seat->SendData({}), HasCode(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(ann.seat->SendText({}), HasCode(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(ann.seat->Update({}), HasCode(absl::StatusCode::kPermissionDenied));
  const auto refused = ann.seat->Publish({});
  EXPECT_THAT(refused, HasCode(absl::StatusCode::kPermissionDenied));
  EXPECT_NE(Message(refused.status()).find("canPublish"), std::string_view::npos);
  EXPECT_THAT(bob.seat->Publish({.kind = TrackKind::kVideo}),
              HasCode(absl::StatusCode::kUnimplemented));
}

TEST_F(RoomTest, PublishSourcesAreHeld) {
  JoinRequest request = Person("ann");
  request.permission.can_publish_sources = {TrackSource::kMicrophone};
  const Guest ann = Join(request);
  PARLEY_EXPECT_OK(ann.seat->Publish({.source = TrackSource::kMicrophone}));
  EXPECT_THAT(ann.seat->Publish({.source = TrackSource::kScreenShareAudio}),
              HasCode(absl::StatusCode::kPermissionDenied));
}

TEST_F(RoomTest, TakingPermissionsAwayActsAtOnce) {
  const Guest ann = Join(Person("ann"));
  const Guest bob = Join(Person("bob"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const Track of_ann, ann.seat->Publish({}));
  PARLEY_ASSERT_OK(bob.seat->Publish({}));
  PARLEY_ASSERT_OK(room_->UpdateParticipant(
      "ann", {.permission = Permission{.can_subscribe = false, .can_publish = false}}));
  EXPECT_EQ(bob.sink->Last<TrackUnpublished>().track_sid, of_ann.sid);
  EXPECT_EQ(bob.seat->SendFrame(0, {.data = "x"}), FrameResult::kUnheard);
  PARLEY_ASSERT_OK(room_->UpdateParticipant("ann", {.permission = Permission{}}));
  EXPECT_EQ(bob.seat->SendFrame(0, {.data = "x"}), FrameResult::kForwarded);
}

TEST_F(RoomTest, AttributesAreMergedAndBounded) {
  const Guest ann = Join(Person("ann"));
  const Guest agent = Join(Agent("agent", "AJ_1", 1));
  PARLEY_ASSERT_OK(
      agent.seat->Update({.attributes = {{"lk.agent.state", "listening"}, {"a", "1"}}}));
  PARLEY_ASSERT_OK(agent.seat->Update({.attributes = {{"a", ""}}}));
  EXPECT_THAT(ann.sink->Last<ParticipantUpdated>().participant.attributes,
              ElementsAre(std::pair("lk.agent.state", "listening")));
  const std::string big(kMaxAttributesBytes, 'x');
  EXPECT_THAT(agent.seat->Update({.attributes = {{"b", big}}}),
              HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(agent.seat->Update({.metadata = std::string(kMaxMetadataBytes + 1, 'x')}),
              HasCode(absl::StatusCode::kInvalidArgument));
  PARLEY_ASSERT_OK_AND_ASSIGN(const ParticipantInfo info, room_->Find("agent"));
  EXPECT_EQ(info.attributes.size(), 1u) << "a refused change changes nothing";
}

TEST_F(RoomTest, PacketsReachWhomTheyAreFor) {
  const Guest ann = Join(Person("ann"));
  const Guest bob = Join(Person("bob"));
  const Guest agent = Join(Agent("agent", "AJ_1", 1));
  PARLEY_EXPECT_OK(ann.seat->SendData({.payload = "all", .topic = "t", .from_identity = "bob"}));
  EXPECT_EQ(bob.sink->Last<DataPacket>().from_identity, "ann") << "nobody chooses its name";
  EXPECT_THAT(ann.sink->All<DataPacket>(), IsEmpty());
  PARLEY_EXPECT_OK(ann.seat->SendData({.payload = "one", .destination_identities = {"agent"}}));
  EXPECT_THAT(bob.sink->All<DataPacket>(), ::testing::SizeIs(1));
  EXPECT_THAT(agent.sink->All<DataPacket>(), ::testing::SizeIs(2));

  PARLEY_EXPECT_OK(ann.seat->SendText({.text = "hi", .from_identity = "bob"}));
  EXPECT_EQ(agent.sink->Last<TextPacket>().from_identity, "ann");
  PARLEY_EXPECT_OK(agent.seat->SendText({.text = "hi", .from_identity = "ann"}));
  EXPECT_EQ(bob.sink->Last<TextPacket>().from_identity, "ann")
      << "agents speak for those they transcribe";
  EXPECT_THAT(ann.seat->SendData({.payload = std::string(kMaxDataBytes + 1, 'x')}),
              HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ann.seat->SendText({.text = "\xff"}), HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(RoomTest, SameIdentityTakesTheOlderOnesPlace) {
  const Guest first = Join(Person("ann"));
  const Guest second = Join(Person("ann"));
  EXPECT_EQ(first.reason(), LeaveReason::kDuplicateIdentity);
  EXPECT_FALSE(second.gone());
  EXPECT_EQ(room_->info().num_participants, 1);
  first.seat->Leave(LeaveReason::kConnectionLost);  // its stream ends later
  EXPECT_FALSE(second.gone());
  EXPECT_EQ(room_->info().num_participants, 1);
}

TEST_F(RoomTest, AnAgentPutsOutNobody) {
  const Guest ann = Join(Person("ann"));
  const Guest agent = Join(Agent("ann", "AJ_1", 1));
  const Guest other = Join(Agent("ann", "AJ_2", 1));
  EXPECT_FALSE(ann.gone());
  EXPECT_EQ(agent.sink->joined_.self.identity, "ann-AJ_1");
  EXPECT_EQ(other.sink->joined_.self.identity, "ann-AJ_2");
  const Guest again = Join(Agent("ann", "AJ_1", 2));
  EXPECT_EQ(agent.reason(), LeaveReason::kReplaced);
  EXPECT_EQ(again.sink->joined_.self.identity, "ann-AJ_1");
  ann.seat->Leave(LeaveReason::kClientInitiated);
  EXPECT_EQ(Join(Agent("ann", "AJ_2", 2)).sink->joined_.self.identity, "ann");
}

TEST_F(RoomTest, FullForPeopleOnly) {
  Make({.project = "p", .name = "r", .max_participants = 1});
  Join(Person("ann"));
  EXPECT_THAT(TryJoin(Person("bob")), HasReason("ROOM_FULL"));
  Join(Agent("agent", "AJ_1", 1));
  Join(Person("ann"));  // takes its own place
  EXPECT_EQ(room_->info().num_participants, 1);
  EXPECT_EQ(room_->info().num_agents, 1);
}

TEST_F(RoomTest, EmptyRoomClosesAfterItsTimeout) {
  Make({.project = "p", .name = "r", .empty_timeout = absl::Seconds(300)});
  const Guest agent = Join(Agent("agent", "AJ_1", 1));
  clock_.Advance(absl::Seconds(299));
  EXPECT_FALSE(room_->CloseIfDue());
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(room_->CloseIfDue()) << "agents do not keep a room open";
  EXPECT_EQ(agent.reason(), LeaveReason::kRoomClosed);
  EXPECT_THAT(TryJoin(Person("late")), HasReason("ROOM_CLOSED"));
}

TEST_F(RoomTest, RoomClosesAfterTheLastPersonLeft) {
  const Guest ann = Join(Person("ann"));
  const Guest agent = Join(Agent("agent", "AJ_1", 1));
  clock_.Advance(absl::Hours(5));
  EXPECT_FALSE(room_->CloseIfDue());
  ann.seat->Leave(LeaveReason::kClientInitiated);
  clock_.Advance(absl::Seconds(19));
  EXPECT_FALSE(room_->CloseIfDue());
  const Guest bob = Join(Person("bob"));
  clock_.Advance(absl::Seconds(19));
  EXPECT_FALSE(room_->CloseIfDue());
  bob.seat->Leave(LeaveReason::kClientInitiated);
  clock_.Advance(absl::Seconds(20));
  EXPECT_TRUE(room_->CloseIfDue());
  EXPECT_EQ(agent.reason(), LeaveReason::kRoomClosed);
}

TEST_F(RoomTest, OneThatGoesOnKeepsItsSidAndWaitsAsAfterADeparture) {
  Make({.project = "p", .name = "r", .sid = "RM_before", .had_people = true});
  EXPECT_EQ(room_->info().sid, "RM_before");
  const Guest agent = Join(Agent("agent", "AJ_1", 1));
  clock_.Advance(absl::Seconds(19));
  EXPECT_FALSE(room_->CloseIfDue());
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(room_->CloseIfDue());
}

TEST_F(RoomTest, HigherTokenReplacesLowerIsRefused) {
  const Guest ann = Join(Person("ann"));
  const Guest old = Join(Agent("agent", "AJ_1", 3, "AW_1"));
  const Guest fresh = Join(Agent("agent", "AJ_1", 5, "AW_2"));
  EXPECT_EQ(old.reason(), LeaveReason::kReplaced);
  EXPECT_FALSE(fresh.gone());
  const auto stale = TryJoin(Agent("agent", "AJ_1", 4, "AW_3"));
  EXPECT_THAT(stale, HasReason("STALE_TOKEN"));
  EXPECT_EQ(ReasonOf(stale.status()).metadata.at("highest_token"), "5");
  EXPECT_FALSE(fresh.gone()) << "a refused one disturbs nobody";
  EXPECT_THAT(admissions_,
              ElementsAre("admit AJ_1#3", "remove AJ_1#3", "admit AJ_1#5", "refuse AJ_1#4"))
      << "the old one leaves before the new one is in";
}

TEST_F(RoomTest, EqualTokenIsForTheSameWorkerAndInstance) {
  const Guest first = Join(Agent("agent", "AJ_1", 3, "AW_1", "i1"));
  EXPECT_THAT(TryJoin(Agent("agent", "AJ_1", 3, "AW_2", "i1")), HasReason("STALE_TOKEN"));
  EXPECT_THAT(TryJoin(Agent("agent", "AJ_1", 3, "AW_1", "i2")), HasReason("STALE_TOKEN"));
  EXPECT_FALSE(first.gone());
  Join(Agent("agent", "AJ_1", 3, "AW_1", "i1"));
  EXPECT_EQ(first.reason(), LeaveReason::kDuplicateIdentity);
  EXPECT_EQ(room_->info().num_agents, 1);
}

TEST_F(RoomTest, AttemptsOfOneJobNeverOverlapWhateverTheirIdentity) {
  const Guest old = Join(Agent("agent-1", "AJ_1", 1));
  Join(Agent("agent-2", "AJ_1", 2));
  EXPECT_TRUE(old.gone());
  Join(Agent("other", "AJ_2", 1));
  EXPECT_EQ(room_->info().num_agents, 2) << "another job is no rival";
}

TEST_F(RoomTest, FenceRemovesAndRefuses) {
  const Guest agent = Join(Agent("agent", "AJ_1", 3));
  room_->Fence("AJ_1", 3);
  EXPECT_FALSE(agent.gone()) << "three is the lowest admitted";
  room_->Fence("AJ_1", 4);
  EXPECT_EQ(agent.reason(), LeaveReason::kParticipantRemoved);
  EXPECT_THAT(TryJoin(Agent("agent", "AJ_1", 3)), HasReason("STALE_TOKEN"));
  room_->Fence("AJ_1", 2);  // an older word changes nothing
  EXPECT_THAT(TryJoin(Agent("agent", "AJ_1", 3)), HasReason("STALE_TOKEN"));
  Join(Agent("agent", "AJ_1", 4));
}

// ---- what is said before an agent is there ----

class EarlySpeechTest : public RoomTest {
 protected:
  void SetUp() override {
    RoomTest::SetUp();
    ann_ = Join(Person("ann"));
    PARLEY_ASSERT_OK(ann_.seat->Publish({.cid = "mic"}));
  }
  void Say(const std::string& word) {
    ann_.seat->SendFrame(0, {.timestamp = 960 * ++said_, .level = 30, .data = word});
  }
  std::vector<std::string> HeardBy(const Guest& guest) {
    std::vector<std::string> words;
    for (const auto& [track, word] : guest.sink->frames_) words.push_back(word);
    return words;
  }
  Guest ann_;
  uint32_t said_ = 0;
};

TEST_F(EarlySpeechTest, AnExpectedAgentHearsItFirstOfAll) {
  Say("unheard");  // nobody is asked for yet
  room_->ExpectAgents(1);
  Say("how");
  Say("much");
  const Guest agent = Join(Agent("agent", "AJ_1", 1));
  Say("is it");
  EXPECT_THAT(HeardBy(agent), ElementsAre("how", "much", "is it"));
  EXPECT_EQ(agent.sink->frames_[0].first, agent.sink->All<SubscriptionStarted>()[0].track_number);
  // It is there: nothing is kept for whoever comes next.
  EXPECT_THAT(HeardBy(Join(Agent("other", "AJ_2", 1))), IsEmpty());
}

TEST_F(EarlySpeechTest, EachOfSeveralHearsAllOfIt) {
  room_->ExpectAgents(2);
  Say("one");
  const Guest first = Join(Agent("first", "AJ_1", 1));
  Say("two");
  EXPECT_THAT(HeardBy(first), ElementsAre("one", "two"));
  EXPECT_THAT(HeardBy(Join(Agent("again", "AJ_1", 2))), ElementsAre("one", "two"))
      << "the same job: the other agent is still to come";
  EXPECT_THAT(HeardBy(Join(Agent("second", "AJ_2", 1))), ElementsAre("one", "two"));
  EXPECT_THAT(HeardBy(Join(Agent("third", "AJ_3", 1))), IsEmpty());
}

TEST_F(EarlySpeechTest, IsForgottenWhenNobodyComes) {
  room_->ExpectAgents(1);
  Say("hello");
  room_->ExpectAgents(-1);
  EXPECT_THAT(HeardBy(Join(Agent("agent", "AJ_1", 1))), IsEmpty());
}

TEST_F(EarlySpeechTest, TheLastTenSecondsOfFourPeople) {
  room_->ExpectAgents(1);
  for (int i = 0; i < 700; ++i) Say(std::to_string(i));
  std::vector<Guest> others;
  for (int i = 0; i < 5; ++i) {
    others.push_back(Join(Person("p" + std::to_string(i))));
    PARLEY_ASSERT_OK(others.back().seat->Publish({.cid = "mic"}));
    others.back().seat->SendFrame(0, {.data = "other"});
  }
  const std::vector<std::string> heard = HeardBy(Join(Agent("agent", "AJ_1", 1)));
  ASSERT_EQ(heard.size(), EarlySpeech::kMostFrames + EarlySpeech::kMostTracks - 1);
  EXPECT_EQ(heard.front(), "200");
}

TEST_F(EarlySpeechTest, OnlyPeopleInTheClearAndOnlyForThoseWhoTakeIt) {
  room_->ExpectAgents(2);
  const Guest machine = Join(Agent("machine", "AJ_9", 1));
  PARLEY_ASSERT_OK(machine.seat->Publish({.cid = "voice"}));
  machine.seat->SendFrame(0, {.data = "beep"});
  Guest secret = Join(Person("secret"));
  PARLEY_ASSERT_OK(secret.seat->Publish({.cid = "mic", .encryption = Encryption::kGcm}));
  secret.seat->SendFrame(0, {.data = "cipher"});
  Say("hello");
  EXPECT_THAT(HeardBy(Join(Person("listener"))), IsEmpty());
  Guest wants_none;
  wants_none.sink->takes_early_speech_ = false;
  PARLEY_ASSERT_OK(room_->Join(Agent("none", "AJ_1", 1), wants_none.sink));
  EXPECT_THAT(HeardBy(wants_none), IsEmpty());
}

TEST_F(EarlySpeechTest, WhatIsSaidWhileAnAgentIsLostIsForItsSuccessor) {
  const Guest agent = Join(Agent("agent", "AJ_1", 1));
  Say("before");
  agent.seat->Leave(LeaveReason::kConnectionLost);
  Say("meanwhile");
  EXPECT_THAT(HeardBy(Join(Agent("agent", "AJ_1", 2))), ElementsAre("meanwhile"));
  PARLEY_ASSERT_OK(room_->Remove("agent", LeaveReason::kAgentError));
  Say("later");
  clock_.Advance(absl::Seconds(61));
  Say("much later");
  EXPECT_THAT(HeardBy(Join(Agent("agent", "AJ_1", 3))), IsEmpty());
  PARLEY_ASSERT_OK(room_->Remove("agent", LeaveReason::kClientInitiated));
  Say("it has said goodbye");
  EXPECT_THAT(HeardBy(Join(Agent("agent", "AJ_1", 4))), IsEmpty());
}

TEST_F(RoomTest, NamesAndSizesAreChecked) {
  EXPECT_THAT(TryJoin(Person("")), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(TryJoin(Person(std::string(257, 'x'))), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(TryJoin(Person("\xc3")), HasCode(absl::StatusCode::kInvalidArgument));
  Join(Person(std::string(256, 'x')));
  EXPECT_THAT(Room::Create({.name = ""}, clock_), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Room::Create({.name = std::string(257, 'x')}, clock_),
              HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(
      Room::Create({.name = "r", .metadata = std::string(kMaxMetadataBytes + 1, 'x')}, clock_),
      HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Room::Create({.name = "r", .empty_timeout = absl::Seconds(-1)}, clock_),
              HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(RoomTest, TracksOfOneParticipantAreBounded) {
  const Guest ann = Join(Person("ann"));
  for (size_t i = 0; i < kMaxTracks; ++i) PARLEY_ASSERT_OK(ann.seat->Publish({}));
  EXPECT_THAT(ann.seat->Publish({}), HasCode(absl::StatusCode::kResourceExhausted));
}

TEST_F(RoomTest, DeletedRoomSendsEverybodyAway) {
  const Guest ann = Join(Person("ann"));
  const Guest bob = Join(Person("bob"));
  room_->Close(LeaveReason::kRoomDeleted, "gone");
  EXPECT_EQ(ann.reason(), LeaveReason::kRoomDeleted);
  EXPECT_EQ(bob.reason(), LeaveReason::kRoomDeleted);
  EXPECT_TRUE(std::holds_alternative<Disconnected>(ann.sink->events_.back())) << "the last event";
  EXPECT_TRUE(room_->closed());
}

TEST(RoomsTest, OpensOnceAndForgetsTheClosed) {
  FakeClock clock;
  Rooms rooms(clock);
  const RoomOptions options{.project = "p", .name = "r"};
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto first, rooms.Open(options));
  EXPECT_TRUE(first.created);
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto again, rooms.Open(options));
  EXPECT_FALSE(again.created);
  EXPECT_EQ(first.room, again.room);
  EXPECT_EQ(rooms.Find("other project", "r"), nullptr);
  clock.Advance(absl::Seconds(300));
  EXPECT_THAT(rooms.CloseDue(), ElementsAre(first.room));
  EXPECT_EQ(rooms.Find("p", "r"), nullptr);
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto anew, rooms.Open(options));
  EXPECT_TRUE(anew.created);
  EXPECT_NE(anew.room->sid(), first.room->sid());
}

TEST(RoomsTest, FencesOutliveTheirRoom) {
  FakeClock clock;
  Rooms rooms(clock);
  const RoomOptions options{.project = "p", .name = "r"};
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto first, rooms.Open(options));
  PARLEY_ASSERT_OK(first.room->Join(Agent("agent", "AJ_1", 7), std::make_shared<RecordingSink>()));
  rooms.Close("p", "r", LeaveReason::kRoomDeleted);
  rooms.Fence("p", "r", "AJ_2", 9);  // a room that is not here
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto second, rooms.Open(options));
  EXPECT_THAT(second.room->Join(Agent("a", "AJ_1", 6), std::make_shared<RecordingSink>()),
              HasReason("STALE_TOKEN"));
  EXPECT_THAT(second.room->Join(Agent("a", "AJ_2", 8), std::make_shared<RecordingSink>()),
              HasReason("STALE_TOKEN"));
}

TEST(RoomsTest, HoldsABoundedNumber) {
  FakeClock clock;
  Rooms rooms(clock, {}, 1);
  PARLEY_ASSERT_OK(rooms.Open({.project = "p", .name = "a"}));
  EXPECT_THAT(rooms.Open({.project = "p", .name = "b"}),
              HasCode(absl::StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace parley::room
