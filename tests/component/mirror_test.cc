// An agent of ours in a room of an external LiveKit server: that server is another cluster's
// api_server and room_server, as separate processes, reached over /rtc and WebRTC.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <parley/room/v1/connector.grpc.pb.h>

#include <deque>
#include <memory>
#include <string>
#include <thread>

#include "room_server_fixture.h"
#include "testing/cluster.h"
#include "testing/matchers.h"
#include "testing/tcp_gate.h"

namespace parley {
namespace {

using ::parley::testing::Eventually;
using ::parley::testing::HasCode;
using ::testing::Contains;
using ::testing::Pair;

constexpr auto kRoom = "mirror";  // ours
constexpr uint32_t kSession = 1;

// An owner's stream.
class Owner {
 public:
  Owner(RunningRoomServer& server, const std::string& bearer, const std::string& url,
        const std::string& token)
      : stub_(pb::ConnectorService::NewStub(server.channel())) {
    rpc::SetBearer(context_, bearer);
    stream_ = stub_->Connect(&context_);
    pb::MirrorRequest request;
    request.mutable_open()->set_room(kRoom);
    request.mutable_open()->set_url(url);
    request.mutable_open()->set_token(token);
    stream_->Write(request);
    reader_ = std::thread([this] {
      pb::MirrorResponse response;
      while (stream_->Read(&response)) {
        MutexLock lock(&mutex_);
        inbox_.push_back(response);
      }
      status_ = rpc::FromGrpcStatus(stream_->Finish());
      MutexLock lock(&mutex_);
      over_ = true;
    });
  }
  ~Owner() {
    context_.TryCancel();
    if (reader_.joinable()) reader_.join();
  }
  template <typename Matches>
  bool Hears(Matches matches, absl::Duration limit = absl::Seconds(10)) {
    return Eventually(
        [&] {
          MutexLock lock(&mutex_);
          const auto found = std::ranges::find_if(inbox_, matches);
          if (found == inbox_.end()) return false;
          inbox_.erase(found);
          return true;
        },
        limit);
  }
  bool Hears(pb::MirrorResponse::MessageCase which) {
    return Hears([&](const auto& response) { return response.message_case() == which; });
  }
  bool HearsAgent(bool present) {
    return Hears([&](const auto& response) {
      return response.has_agent() && response.agent().present() == present;
    });
  }
  void Close() {
    pb::MirrorRequest request;
    request.mutable_close();
    stream_->Write(request);
  }
  absl::Status End() {
    EXPECT_TRUE(Eventually([&] {
      MutexLock lock(&mutex_);
      return over_;
    }));
    reader_.join();
    return status_;
  }

 private:
  std::unique_ptr<pb::ConnectorService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<pb::MirrorRequest, pb::MirrorResponse>> stream_;
  Mutex mutex_;
  std::deque<pb::MirrorResponse> inbox_ ABSL_GUARDED_BY(mutex_);
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_;
  std::thread reader_;
};

class MirrorTest : public RoomServerTest {
 protected:
  static void SetUpTestSuite() {
    RoomServerTest::SetUpTestSuite();
    testing::ClusterOptions options;
    options.services = {"dispatch-broker", "room-server", "api-server"};
    options.agent_servers = 0;
    auto cluster = testing::Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    external_ = cluster->release();
  }
  static void TearDownTestSuite() {
    delete external_;
    RoomServerTest::TearDownTestSuite();
  }

  // Each test has an external room of its own.
  std::string There() const {
    return ::testing::UnitTest::GetInstance()->current_test_info()->name();
  }
  Peer JoinThere(const std::string& identity) {
    pb::JoinRoom join;
    join.set_token(Token(Joiner(identity, There())));
    join.mutable_options()->set_auto_subscribe(true);
    auto connection =
        caller::Connection::Join(external_->Address("room-server"), join, absl::Seconds(5));
    EXPECT_TRUE(connection.ok()) << connection.status();
    return connection.ok() ? Peer(*std::move(connection)) : Peer();
  }
  std::string AgentTokenThere() {
    auth::Claims claims = Joiner("agent-there", There());
    claims.kind = "agent";
    claims.video.can_update_own_metadata = true;
    return Token(claims);
  }
  std::string Url() const { return "ws://" + external_->Address("api-server"); }
  std::unique_ptr<Owner> Open(const std::string& url, const std::string& token) {
    return std::make_unique<Owner>(server(), server().context().ServiceToken("default"), url,
                                   token);
  }
  // A mirror with an agent in it, and a person there.
  void Begin(const std::string& url) {
    owner_ = Open(url, AgentTokenThere());
    ASSERT_TRUE(owner_->Hears(pb::MirrorResponse::kOpened));
    ASSERT_TRUE(owner_->Hears(pb::MirrorResponse::kJoined));
    Attach(1);
    ASSERT_TRUE(owner_->HearsAgent(true));
  }
  pb::SessionOpened Attach(uint64_t fencing_token) {
    auth::Claims worker;
    worker.video.agent = true;
    agent_ = std::make_unique<AgentStream>(server(), Token(worker));
    agent_->Open(kSession, JobToken("AJ_1", fencing_token, "AW_1", "i1", kRoom));
    return agent_->Opened(kSession);
  }
  template <typename Matches>
  pb::RoomEvent AgentEvent(Matches matches) {
    const auto found =
        agent_->Next([&](const auto& r) { return r.has_event() && matches(r.event().event()); },
                     absl::Seconds(10));
    EXPECT_TRUE(found) << "the agent did not hear of it";
    return found ? found->event().event() : pb::RoomEvent();
  }
  pb::RoomEvent AgentEvent(pb::RoomEvent::EventCase which) {
    return AgentEvent([&](const auto& event) { return event.event_case() == which; });
  }
  std::string AgentPublishes() {
    pb::ParticipantCommand command;
    command.mutable_publish()->set_cid("voice");
    command.mutable_publish()->set_kind(pb::TRACK_KIND_AUDIO);
    command.mutable_publish()->set_source(pb::TRACK_SOURCE_MICROPHONE);
    command.mutable_publish()->set_codec(pb::CODEC_OPUS);
    agent_->Command(kSession, command);
    return AgentEvent([](const auto& event) {
             return event.has_track_published() && !event.track_published().cid().empty();
           })
        .track_published()
        .track()
        .sid();
  }
  void AgentSpeaks(const std::string& data, uint32_t timestamp) {
    pb::AttachRequest request;
    pb::SessionFrame& frame = *request.mutable_frames()->add_frames();
    frame.set_session(kSession);
    frame.set_track_number(0);
    frame.set_timestamp(timestamp);
    frame.set_level(20);
    frame.set_data(data);
    agent_->Send(request);
  }
  // Speaks until it is heard: a path may still be on its way.
  bool ReachesAgent(Peer& peer, const std::string& sid, const std::string& word) {
    uint32_t timestamp = 0;
    return Eventually(
        [&] {
          peer.SendAudio(sid, word, timestamp += 960);
          return agent_
              ->Next(
                  [&](const auto& r) {
                    return r.has_frames() &&
                           std::ranges::any_of(r.frames().frames(),
                                               [&](const auto& f) { return f.data() == word; });
                  },
                  absl::Milliseconds(20))
              .has_value();
        },
        absl::Seconds(20));
  }
  bool ReachesPeer(Peer& peer, const std::string& word) {
    return Eventually(
        [&] {
          AgentSpeaks(word, clock_ += 960);
          return peer
              .Next([&](const auto& m) { return m.has_audio() && m.audio().data() == word; },
                    absl::Milliseconds(20))
              .has_value();
        },
        absl::Seconds(20));
  }

  static testing::Cluster* external_;
  std::unique_ptr<Owner> owner_;
  std::unique_ptr<AgentStream> agent_;
  uint32_t clock_ = 0;
};
testing::Cluster* MirrorTest::external_ = nullptr;

TEST_F(MirrorTest, PeopleAndAgentSeeAndHearEachOther) {
  Peer ann = JoinThere("ann");
  ASSERT_NO_FATAL_FAILURE(Begin(Url()));
  const auto came = ann.Event(pb::RoomEvent::kParticipantJoined).participant_joined().participant();
  EXPECT_EQ(came.identity(), "agent-there");
  ann.Publish("mic");
  const std::string mic = ann.PublishedSid();
  AgentEvent(pb::RoomEvent::kSubscriptionStarted);
  ASSERT_TRUE(ReachesAgent(ann, mic, "from ann"));

  AgentPublishes();
  EXPECT_EQ(
      ann.Event(pb::RoomEvent::kSubscriptionStarted).subscription_started().participant_identity(),
      "agent-there");
  AgentEvent(pb::RoomEvent::kTrackSubscribed);  // only now somebody hears it
  ASSERT_TRUE(ReachesPeer(ann, "from the agent"));

  // Somebody else comes, mutes, and goes.
  Peer bob = JoinThere("bob");
  AgentEvent([](const auto& event) {
    return event.has_participant_joined() &&
           event.participant_joined().participant().identity() == "bob";
  });
  pb::ParticipantCommand mute;
  mute.mutable_set_muted()->set_track_sid(mic);
  mute.mutable_set_muted()->set_muted(true);
  ann.Command(mute);
  EXPECT_TRUE(AgentEvent(pb::RoomEvent::kTrackMuted).track_muted().muted());
  pb::ParticipantCommand leave;
  leave.mutable_leave();
  bob.Command(leave);
  EXPECT_EQ(AgentEvent(pb::RoomEvent::kParticipantLeft).participant_left().identity(), "bob");
  EXPECT_EQ(ann.Event(pb::RoomEvent::kParticipantLeft).participant_left().identity(), "bob");

  // The owner ends it: the agent's room is over, and ann is alone.
  owner_->Close();
  EXPECT_TRUE(owner_->Hears(pb::MirrorResponse::kEnded));
  PARLEY_EXPECT_OK(owner_->End());
  EXPECT_EQ(agent_->Closed(kSession).code(), 0);
  EXPECT_EQ(ann.Event(pb::RoomEvent::kParticipantLeft).participant_left().identity(),
            "agent-there");
}

TEST_F(MirrorTest, PacketsTextsCallsAndAttributesGoBothWays) {
  Peer ann = JoinThere("ann");
  Peer bob = JoinThere("bob");
  ann.Publish("mic");
  const std::string mic = ann.PublishedSid();
  ASSERT_NO_FATAL_FAILURE(Begin(Url()));
  const auto heard = AgentEvent(pb::RoomEvent::kSubscriptionStarted).subscription_started();

  pb::ParticipantCommand command;
  (*command.mutable_update()->mutable_attributes())["lk.agent.state"] = "listening";
  agent_->Command(kSession, command);
  const auto updated = ann.Next(
      [](const auto& m) {
        return m.event().has_participant_updated() &&
               m.event().participant_updated().participant().attributes().contains(
                   "lk.agent.state");
      },
      absl::Seconds(10));
  ASSERT_TRUE(updated);
  EXPECT_THAT(updated->event().participant_updated().participant().attributes(),
              Contains(Pair("lk.agent.state", "listening")));

  command.Clear();
  command.mutable_data()->set_payload("to all");
  command.mutable_data()->set_topic("t");
  command.mutable_data()->set_reliable(true);
  agent_->Command(kSession, command);
  const auto data = ann.Event(pb::RoomEvent::kData, absl::Seconds(10)).data();
  EXPECT_EQ(data.payload(), "to all");
  EXPECT_EQ(data.from_identity(), "agent-there");
  EXPECT_EQ(bob.Event(pb::RoomEvent::kData).data().payload(), "to all");
  command.mutable_data()->set_payload("to bob");
  command.mutable_data()->add_destination_identities("bob");
  agent_->Command(kSession, command);
  EXPECT_EQ(bob.Event(pb::RoomEvent::kData).data().payload(), "to bob");
  EXPECT_FALSE(ann.Next([](const auto& m) { return m.event().data().payload() == "to bob"; },
                        absl::Milliseconds(200)));
  command.Clear();
  command.mutable_data()->set_payload("back");
  command.mutable_data()->set_reliable(true);
  bob.Command(command);
  const auto back = AgentEvent(pb::RoomEvent::kData).data();
  EXPECT_EQ(back.payload(), "back");
  EXPECT_EQ(back.from_identity(), "bob");
  command.Clear();
  command.mutable_data()->set_topic("parley.dtmf");
  command.mutable_data()->set_payload("7");
  bob.Command(command);
  const auto pressed = AgentEvent(pb::RoomEvent::kData).data();
  EXPECT_EQ(pressed.payload(), "7");
  EXPECT_EQ(pressed.from_identity(), "bob");
  command.mutable_data()->set_topic("parley.dtmf");
  command.mutable_data()->set_payload("#");
  command.mutable_data()->add_destination_identities("bob");
  agent_->Command(kSession, command);
  EXPECT_EQ(bob.Event(pb::RoomEvent::kData).data().payload(), "#");

  // What ann said, told by the agent: in ann's name, and about her track as it is called there.
  command.Clear();
  pb::TextPacket& text = *command.mutable_text();
  text.set_stream_id("s1");
  text.set_topic("lk.transcription");
  text.set_text("hello");
  text.set_final(true);
  text.set_from_identity("ann");
  (*text.mutable_attributes())["lk.transcribed_track_id"] = heard.track().sid();
  agent_->Command(kSession, command);
  const auto said = bob.Next(
      [](const auto& m) { return m.event().has_text() && m.event().text().text() == "hello"; },
      absl::Seconds(10));
  ASSERT_TRUE(said);
  EXPECT_EQ(said->event().text().from_identity(), "ann");
  EXPECT_THAT(said->event().text().attributes(), Contains(Pair("lk.transcribed_track_id", mic)));
  text.Clear();
  text.set_stream_id("s2");
  text.set_topic("lk.chat");
  text.set_text("how are you?");
  text.set_final(true);
  ann.Command(command);
  const auto chat = AgentEvent(
      [](const auto& event) { return event.has_text() && event.text().text() == "how are you?"; });
  EXPECT_EQ(chat.text().from_identity(), "ann");
  EXPECT_EQ(chat.text().topic(), "lk.chat");

  // A call from there, answered by the agent.
  command.Clear();
  pb::RpcPacket& call = *command.mutable_rpc();
  call.set_request_id("c1");
  call.set_destination_identity("agent-there");
  call.mutable_request()->set_method("add");
  call.mutable_request()->set_payload("1+2");
  call.mutable_request()->set_response_timeout_ms(5'000);
  ann.Command(command);
  const auto asked = AgentEvent(pb::RoomEvent::kRpc).rpc();
  EXPECT_EQ(asked.request().payload(), "1+2");
  EXPECT_EQ(asked.from_identity(), "ann");
  command.Clear();
  command.mutable_rpc()->set_request_id("c1");
  command.mutable_rpc()->set_destination_identity("ann");
  command.mutable_rpc()->mutable_response()->set_payload("3");
  agent_->Command(kSession, command);
  const auto answer =
      ann.Next([](const auto& m) { return m.event().rpc().has_response(); }, absl::Seconds(10));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->event().rpc().response().payload(), "3");
}

TEST_F(MirrorTest, ABrokenConnectionIsTakenUpAgainAndTheCallGoesOn) {
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto gate,
                              testing::TcpGate::Start(external_->Address("api-server")));
  Peer ann = JoinThere("ann");
  ASSERT_NO_FATAL_FAILURE(Begin("ws://" + gate->address()));
  ann.Event(pb::RoomEvent::kParticipantJoined);
  ann.Publish("mic");
  const std::string mic = ann.PublishedSid();
  AgentPublishes();
  ASSERT_TRUE(ReachesAgent(ann, mic, "before"));
  ASSERT_TRUE(ReachesPeer(ann, "before"));
  gate->Cut();
  ASSERT_TRUE(Eventually([&] { return gate->accepted() >= 2; }));
  ASSERT_TRUE(ReachesAgent(ann, mic, "after"));
  ASSERT_TRUE(ReachesPeer(ann, "after"));
  // The seat was kept: nobody saw the agent go.
  EXPECT_FALSE(ann.Next([](const auto& m) { return m.event().has_participant_left(); },
                        absl::Milliseconds(100)));
  // An agent that comes again, as after its server's death, is the same participant there.
  Attach(2);
  AgentPublishes();
  ASSERT_TRUE(ReachesPeer(ann, "the next attempt"));
  EXPECT_FALSE(ann.Next([](const auto& m) { return m.event().has_participant_left(); },
                        absl::Milliseconds(100)));
}

TEST_F(MirrorTest, WhoeverIsRemovedThereIsOverHere) {
  Peer ann = JoinThere("ann");
  ASSERT_NO_FATAL_FAILURE(Begin(Url()));
  auto rooms = pb::RoomService::NewStub(rpc::MakeChannel(external_->Address("room-server")));
  pb::DeleteRoomRequest request;
  request.set_name(There());
  pb::DeleteRoomResponse response;
  PARLEY_ASSERT_OK(
      Call(*rooms, &pb::RoomService::Stub::DeleteRoom, AdminToken(), request, &response));
  EXPECT_TRUE(owner_->Hears([](const auto& r) { return r.has_ended() && r.ended().code() == 0; }));
  EXPECT_EQ(agent_->Closed(kSession).code(), 0);
}

TEST_F(MirrorTest, WhatCannotBeJoinedEndsAtOnce) {
  auto bad = Open(Url(), "no token");
  EXPECT_TRUE(bad->Hears([](const auto& r) {
    return r.has_ended() &&
           r.ended().code() == static_cast<int>(absl::StatusCode::kUnauthenticated);
  }));
  PARLEY_EXPECT_OK(bad->End());
  auto none = Open("gopher://x", "t");
  EXPECT_THAT(none->End(), HasCode(absl::StatusCode::kInvalidArgument));
  Owner stranger(server(), AdminToken(), Url(), AgentTokenThere());
  EXPECT_THAT(stranger.End(), HasCode(absl::StatusCode::kUnauthenticated));
}

}  // namespace
}  // namespace parley
