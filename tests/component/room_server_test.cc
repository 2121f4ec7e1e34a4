// The room server over real gRPC: media, permissions, admission, timeouts, replicas.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "component/room_server_fixture.h"

namespace parley {
namespace {

using ::parley::testing::Eventually;
using ::parley::testing::HasCode;
using ::parley::testing::HasReason;

TEST_F(RoomServerTest, TwoPeopleHearEachOther) {
  Peer ann = Join(Joiner("ann"));
  Peer bob = Join(Joiner("bob"));
  EXPECT_EQ(bob.connection().joined().others(0).identity(), "ann");
  EXPECT_EQ(
      ann.Event(pb::RoomEvent::kParticipantJoined).participant_joined().participant().identity(),
      "bob");
  ann.Publish("mic");
  const auto published = ann.Event(pb::RoomEvent::kTrackPublished).track_published();
  EXPECT_EQ(published.cid(), "mic");
  const std::string sid = published.track().sid();
  EXPECT_EQ(ann.Event(pb::RoomEvent::kTrackSubscribed).track_subscribed().subscriber_identity(),
            "bob");
  EXPECT_EQ(bob.Event(pb::RoomEvent::kSubscriptionStarted).subscription_started().track().sid(),
            sid);
  ann.SendAudio(sid, "opus packet", 960);
  const pb::AudioFrame heard = bob.Audio();
  EXPECT_EQ(heard.track_sid(), sid);
  EXPECT_EQ(heard.data(), "opus packet");
  EXPECT_EQ(heard.timestamp(), 960u);
  EXPECT_EQ(heard.level(), 30u);
  EXPECT_EQ(heard.codec(), pb::CODEC_OPUS);

  bob.Publish("mic");
  ann.Event(pb::RoomEvent::kSubscriptionStarted);
  bob.SendAudio(bob.PublishedSid(), "and back");
  EXPECT_EQ(ann.Audio().data(), "and back");
}

TEST_F(RoomServerTest, PacketsAndAttributesReachTheOthers) {
  auth::Claims claims = Joiner("ann");
  claims.video.can_update_own_metadata = true;
  Peer ann = Join(claims);
  Peer bob = Join(Joiner("bob"));
  pb::ParticipantCommand text;
  text.mutable_text()->set_topic("lk.chat");
  text.mutable_text()->set_text("hello");
  ann.Command(text);
  EXPECT_EQ(bob.Event(pb::RoomEvent::kText).text().text(), "hello");
  pb::ParticipantCommand data;
  data.mutable_data()->set_payload("bytes");
  data.mutable_data()->add_destination_identities("bob");
  ann.Command(data);
  EXPECT_EQ(bob.Event(pb::RoomEvent::kData).data().from_identity(), "ann");
  pb::ParticipantCommand update;
  update.mutable_update()->set_request(7);
  (*update.mutable_update()->mutable_attributes())["mood"] = "good";
  ann.Command(update);
  const auto result = ann.Event(pb::RoomEvent::kResult).result();
  EXPECT_EQ(result.request(), 7u);
  EXPECT_EQ(result.code(), 0);
  EXPECT_EQ(bob.Event(pb::RoomEvent::kParticipantUpdated)
                .participant_updated()
                .participant()
                .attributes()
                .at("mood"),
            "good");
  // Without a number only an error is told.
  update.mutable_update()->set_request(0);
  ann.Command(update);
  pb::ParticipantCommand again;
  again.mutable_update()->set_request(8);
  ann.Command(again);
  EXPECT_EQ(ann.Event(pb::RoomEvent::kResult).result().request(), 8u);
}

TEST_F(RoomServerTest, WhatTheTokenDoesNotGrantIsRefusedByName) {
  auth::Claims claims = Joiner("ann");
  claims.video.can_publish = false;
  Peer ann = Join(claims);
  ann.Publish("mic");
  auto result = ann.Event(pb::RoomEvent::kResult).result();
  EXPECT_EQ(result.code(), static_cast<int>(absl::StatusCode::kPermissionDenied));
  EXPECT_NE(result.message().find("canPublish"), std::string::npos) << result.message();
  Peer bob = Join(Joiner("bob"));
  bob.Publish("camera", pb::CODEC_OPUS, pb::TRACK_KIND_VIDEO);
  result = bob.Event(pb::RoomEvent::kResult).result();
  EXPECT_EQ(result.code(), static_cast<int>(absl::StatusCode::kUnimplemented));
  pb::ParticipantCommand update;
  update.mutable_update()->set_request(3);
  bob.Command(update);
  result = bob.Event(pb::RoomEvent::kResult).result();
  EXPECT_EQ(result.request(), 3u);
  EXPECT_EQ(result.code(), static_cast<int>(absl::StatusCode::kPermissionDenied));
}

TEST_F(RoomServerTest, BadTokensNameTheirCause) {
  EXPECT_THAT(TryJoin(""), HasReason("TOKEN_MISSING"));
  EXPECT_THAT(TryJoin("nonsense"), HasReason("TOKEN_MALFORMED"));
  EXPECT_THAT(TryJoin(Token(Joiner("ann"), -absl::Hours(1))), HasReason("TOKEN_EXPIRED"));
  EXPECT_THAT(
      TryJoin(auth::Sign(Joiner("ann"), {.key = "devkey", .secret = "other"}, absl::Minutes(1))),
      HasReason("SIGNATURE_WRONG"));
  EXPECT_THAT(
      TryJoin(auth::Sign(Joiner("ann"), {.key = "stranger", .secret = "secret"}, absl::Minutes(1))),
      HasReason("KEY_UNKNOWN"));
  auth::Claims no_join = Joiner("ann");
  no_join.video.room_join = false;
  EXPECT_THAT(TryJoin(Token(no_join)), HasReason("GRANT_MISSING"));
  EXPECT_THAT(TryJoin(Token(no_join)), HasCode(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(TryJoin(Token(Joiner(std::string(257, 'x')))),
              HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(TryJoin(Token(Joiner("ann", std::string(257, 'x')))),
              HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(broker_.requests().size(), 0u) << "a refused join wakes no agent";
}

TEST_F(RoomServerTest, ParticipantTokensAreNoAdminTokens) {
  pb::CreateRoomRequest create;
  create.set_name("lobby");
  pb::CreateRoomResponse created;
  EXPECT_THAT(
      Call(*Rooms(), &pb::RoomService::Stub::CreateRoom, Token(Joiner("ann")), create, &created),
      HasReason("GRANT_MISSING"));
  pb::FenceRequest fence;
  fence.set_room("lobby");
  fence.set_job_id("AJ_1");
  pb::FenceResponse fenced;
  auto admission = pb::AdmissionService::NewStub(server().channel());
  EXPECT_THAT(Call(*admission, &pb::AdmissionService::Stub::Fence, AdminToken(), fence, &fenced),
              HasCode(absl::StatusCode::kUnauthenticated));
  AgentStream stream(server(), Token(Joiner("ann")));
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(RoomServerTest, SameIdentityReplacesTheOlder) {
  Peer first = Join(Joiner("ann"));
  Peer second = Join(Joiner("ann"));
  EXPECT_EQ(first.Event(pb::RoomEvent::kDisconnected).disconnected().reason(),
            pb::DISCONNECT_REASON_DUPLICATE_IDENTITY);
  first.Next([](const auto&) { return false; });
  ASSERT_TRUE(first.done());
  PARLEY_EXPECT_OK(*first.done());
  second.Publish("mic");
  EXPECT_FALSE(second.PublishedSid().empty());
}

TEST_F(RoomServerTest, GoodbyesAndCutsAreToldApart) {
  Peer ann = Join(Joiner("ann"));
  Peer bob = Join(Joiner("bob"));
  Peer carl = Join(Joiner("carl"));
  bob.connection().HalfClose();
  auto left = ann.Event(pb::RoomEvent::kParticipantLeft).participant_left();
  EXPECT_EQ(left.identity(), "bob");
  EXPECT_EQ(left.reason(), pb::DISCONNECT_REASON_CLIENT_INITIATED);
  carl.Cut();
  left = ann.Event(pb::RoomEvent::kParticipantLeft).participant_left();
  EXPECT_EQ(left.identity(), "carl");
  EXPECT_EQ(left.reason(), pb::DISCONNECT_REASON_CONNECTION_LOST);
}

TEST_F(RoomServerTest, NothingMayBeSentBeforeJoining) {
  auto stub = pb::MediaService::NewStub(server().channel());
  grpc::ClientContext context;
  auto stream = stub->Join(&context);
  pb::JoinRequest request;
  request.mutable_audio()->set_data("x");
  stream->Write(request);
  pb::JoinResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(RoomServerTest, AgentServersBatchFramesBothWays) {
  Peer ann = Join(Joiner("ann"));
  ann.Publish("mic");
  const std::string mic = ann.PublishedSid();
  AgentStream agents(server(), server().context().ServiceToken("default"));
  agents.Open(5, JobToken("AJ_1", 1));
  const auto joined = agents.Opened(5).joined();
  EXPECT_EQ(joined.others(0).identity(), "ann");
  EXPECT_EQ(joined.participant().job_id(), "AJ_1");
  const auto seen = ann.Event(pb::RoomEvent::kParticipantJoined).participant_joined().participant();
  EXPECT_EQ(seen.kind(), pb::PARTICIPANT_KIND_AGENT);
  const auto subscription =
      agents.Event(5, pb::RoomEvent::kSubscriptionStarted).subscription_started();
  EXPECT_EQ(subscription.track().sid(), mic);

  const absl::Time begin = absl::Now();
  for (int i = 0; i < 50; ++i) ann.SendAudio(mic, fmt::format("frame {}", i), 960 * i);
  int frames = 0;
  int batches = 0;
  while (frames < 50) {
    const auto batch = agents.Next([](const auto& r) { return r.has_frames(); });
    ASSERT_TRUE(batch) << frames << " frames";
    ++batches;
    for (const auto& frame : batch->frames().frames()) {
      EXPECT_EQ(frame.session(), 5u);
      EXPECT_EQ(frame.track_number(), subscription.track_number());
      EXPECT_EQ(frame.data(), fmt::format("frame {}", frames)) << "in order";
      ++frames;
    }
  }
  // One in each tick, if they were that long on their way.
  EXPECT_LT(batches, 25 + absl::ToDoubleSeconds(absl::Now() - begin) /
                              absl::ToDoubleSeconds(config_.batch_tick))
      << "frames that arrive together travel together";

  pb::ParticipantCommand publish;
  publish.mutable_publish()->set_cid("voice");
  publish.mutable_publish()->set_kind(pb::TRACK_KIND_AUDIO);
  publish.mutable_publish()->set_codec(pb::CODEC_OPUS);
  agents.Command(5, publish);
  agents.Event(5, pb::RoomEvent::kTrackSubscribed);
  pb::AttachRequest speech;
  for (int i = 0; i < 2; ++i) {
    auto* frame = speech.mutable_frames()->add_frames();
    frame->set_session(5);
    frame->set_track_number(0);
    frame->set_data(fmt::format("speech {}", i));
  }
  agents.Send(speech);
  EXPECT_EQ(ann.Audio().data(), "speech 0");
  EXPECT_EQ(ann.Audio().data(), "speech 1");
}

TEST_F(RoomServerTest, CommandsThatComeTogetherAreDoneInOrderBeforeTheFrames) {
  Peer ann = Join(Joiner("ann"));
  AgentStream agents(server(), server().context().ServiceToken("default"));
  agents.Open(5, JobToken("AJ_1", 1));
  ASSERT_TRUE(agents.Opened(5).takes_commands());
  pb::AttachRequest all;
  const auto add = [&all] {
    all.add_commands()->set_session(5);
    return all.mutable_commands(all.commands_size() - 1)->mutable_command();
  };
  pb::PublishTrack& voice = *add()->mutable_publish();
  voice.set_cid("voice");
  voice.set_kind(pb::TRACK_KIND_AUDIO);
  voice.set_codec(pb::CODEC_OPUS);
  for (const char* text : {"first", "second"}) add()->mutable_data()->set_payload(text);
  pb::SessionFrame& frame = *all.mutable_frames()->add_frames();
  frame.set_session(5);
  frame.set_data("of the track that is new");
  agents.Send(all);
  EXPECT_EQ(ann.Event(pb::RoomEvent::kData).data().payload(), "first");
  EXPECT_EQ(ann.Event(pb::RoomEvent::kData).data().payload(), "second");
  EXPECT_EQ(ann.Audio().data(), "of the track that is new");
}

TEST_F(RoomServerTest, OneFailedSessionLeavesTheOthersAlone) {
  AgentStream agents(server(), server().context().ServiceToken("default"));
  agents.Open(1, JobToken("AJ_1", 1));
  agents.Opened(1);
  agents.Open(2, "nonsense");
  const auto closed = agents.Closed(2);
  EXPECT_EQ(closed.code(), static_cast<int>(absl::StatusCode::kUnauthenticated));
  EXPECT_EQ(closed.reason(), "TOKEN_MALFORMED");
  agents.Open(1, JobToken("AJ_2", 1));
  EXPECT_EQ(agents.Closed(1).code(), static_cast<int>(absl::StatusCode::kAlreadyExists));
  Peer ann = Join(Joiner("ann"));
  EXPECT_EQ(ann.connection().joined().others_size(), 1);
}

TEST_F(RoomServerTest, OnlyTheNewestAttemptIsInTheRoom) {
  ::parley::testing::TemporaryDirectory directory;
  config_.admission_log = directory.path() + "/admissions";
  {
    AgentStream first(server(), server().context().ServiceToken("default"), "AW_1");
    AgentStream second(server(), server().context().ServiceToken("default"), "AW_2");
    first.Open(1, JobToken("AJ_1", 4, "AW_1"));
    first.Opened(1);
    second.Open(1, JobToken("AJ_1", 6, "AW_2"));
    second.Opened(1);
    EXPECT_EQ(first.Closed(1).disconnect_reason(), pb::DISCONNECT_REASON_REPLACED);
    first.Open(2, JobToken("AJ_1", 5, "AW_1"));
    const auto stale = first.Closed(2);
    EXPECT_EQ(stale.reason(), "STALE_TOKEN");
    EXPECT_EQ(stale.highest_token(), 6u);
    PARLEY_EXPECT_OK(Fence("AJ_1", 7));
    EXPECT_EQ(second.Closed(1).disconnect_reason(), pb::DISCONNECT_REASON_PARTICIPANT_REMOVED);
    second.Open(2, JobToken("AJ_1", 6, "AW_2"));
    EXPECT_EQ(second.Closed(2).highest_token(), 7u);
  }
  std::ifstream log(config_.admission_log);
  std::vector<std::string> lines;
  for (std::string line; std::getline(log, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.at("what") == "begin") continue;
    lines.push_back(
        fmt::format("{} {}", json.at("what").get<std::string>(), json.at("token").get<int>()));
  }
  EXPECT_THAT(lines, ::testing::ElementsAre("admit 4", "remove 4", "admit 6", "refuse 5",
                                            "remove 6", "refuse 6"));
}

TEST_F(RoomServerTest, AFenceComesBeforeTheRoom) {
  PARLEY_ASSERT_OK(Fence("AJ_1", 3));
  AgentStream agents(server(), server().context().ServiceToken("default"));
  agents.Open(1, JobToken("AJ_1", 2));
  EXPECT_EQ(agents.Closed(1).reason(), "STALE_TOKEN");
}

TEST_F(RoomServerTest, LostAgentServerLeavesItsRooms) {
  Peer ann = Join(Joiner("ann"));
  {
    AgentStream agents(server(), server().context().ServiceToken("default"));
    agents.Open(1, JobToken("AJ_1", 1));
    agents.Opened(1);
  }
  const auto left = ann.Event(pb::RoomEvent::kParticipantLeft).participant_left();
  EXPECT_EQ(left.identity(), "agent-AJ_1");
  EXPECT_EQ(left.reason(), pb::DISCONNECT_REASON_CONNECTION_LOST);
}

TEST_F(RoomServerTest, RoomsCloseWhenTheirTimeIsOver) {
  config_.departure_timeout = absl::Milliseconds(200);
  Peer ann = Join(Joiner("ann"));
  AgentStream agents(server(), server().context().ServiceToken("default"));
  agents.Open(1, JobToken("AJ_1", 1));
  agents.Opened(1);
  ann.connection().HalfClose();
  EXPECT_EQ(agents.Closed(1).disconnect_reason(), pb::DISCONNECT_REASON_ROOM_CLOSED);
  pb::GetRoomRequest get;
  get.set_name("lobby");
  pb::GetRoomResponse got;
  EXPECT_TRUE(Eventually([&] {
    return Call(*Rooms(), &pb::RoomService::Stub::GetRoom, AdminToken(), get, &got).code() ==
           absl::StatusCode::kNotFound;
  }));
}

TEST_F(RoomServerTest, TheFirstTokenSettlesTheRoom) {
  auth::Claims claims = Joiner("ann");
  claims.room_config_json =
      R"({"emptyTimeout": 7, "departure_timeout": "9", "maxParticipants": 1, "metadata": "m"})";
  Peer ann = Join(claims);
  const pb::Room& room = ann.connection().joined().room();
  EXPECT_EQ(room.empty_timeout().seconds(), 7);
  EXPECT_EQ(room.departure_timeout().seconds(), 9);
  EXPECT_EQ(room.metadata(), "m");
  EXPECT_THAT(TryJoin(Token(Joiner("bob"))), HasReason("ROOM_FULL"));
  claims = Joiner("carl", "other");
  claims.room_config_json = R"({"emptyTimeout": 1e300})";
  EXPECT_THAT(TryJoin(Token(claims)), HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(RoomServerTest, AdministratorsSeeAndChange) {
  auto rooms = Rooms();
  const std::string admin = AdminToken();
  Peer ann = Join(Joiner("ann"));
  Peer bob = Join(Joiner("bob"));
  pb::ListParticipantsRequest list;
  list.set_room("lobby");
  pb::ListParticipantsResponse listed;
  PARLEY_ASSERT_OK(Call(*rooms, &pb::RoomService::Stub::ListParticipants, admin, list, &listed));
  EXPECT_EQ(listed.participants_size(), 2);
  pb::UpdateParticipantRequest update;
  update.set_room("lobby");
  update.set_identity("bob");
  update.set_name("Bob");
  pb::UpdateParticipantResponse updated;
  PARLEY_ASSERT_OK(
      Call(*rooms, &pb::RoomService::Stub::UpdateParticipant, admin, update, &updated));
  EXPECT_EQ(updated.participant().name(), "Bob");
  pb::SendDataRequest data;
  data.set_room("lobby");
  data.mutable_packet()->set_payload("from above");
  pb::SendDataResponse sent;
  PARLEY_ASSERT_OK(Call(*rooms, &pb::RoomService::Stub::SendData, admin, data, &sent));
  EXPECT_EQ(ann.Event(pb::RoomEvent::kData).data().from_identity(), "");
  pb::RemoveParticipantRequest remove;
  remove.set_room("lobby");
  remove.set_identity("bob");
  pb::RemoveParticipantResponse removed;
  PARLEY_ASSERT_OK(
      Call(*rooms, &pb::RoomService::Stub::RemoveParticipant, admin, remove, &removed));
  EXPECT_EQ(bob.Event(pb::RoomEvent::kDisconnected).disconnected().reason(),
            pb::DISCONNECT_REASON_PARTICIPANT_REMOVED);
  pb::UpdateRoomRequest metadata;
  metadata.set_name("lobby");
  metadata.set_metadata(std::string((512 << 10) + 1, 'x'));
  pb::UpdateRoomResponse changed;
  EXPECT_THAT(Call(*rooms, &pb::RoomService::Stub::UpdateRoom, admin, metadata, &changed),
              HasCode(absl::StatusCode::kInvalidArgument));
  pb::DeleteRoomRequest del;
  del.set_name("lobby");
  pb::DeleteRoomResponse deleted;
  PARLEY_ASSERT_OK(Call(*rooms, &pb::RoomService::Stub::DeleteRoom, admin, del, &deleted));
  EXPECT_EQ(ann.Event(pb::RoomEvent::kDisconnected).disconnected().reason(),
            pb::DISCONNECT_REASON_ROOM_DELETED);
  PARLEY_EXPECT_OK(Call(*rooms, &pb::RoomService::Stub::DeleteRoom, admin, del, &deleted));
}

TEST_F(RoomServerTest, TheOtherReplicaSaysWhereTheRoomIs) {
  Peer ann = Join(Joiner("ann"));
  RunningRoomServer second(config_);
  auto stub = pb::MediaService::NewStub(second.channel());
  grpc::ClientContext context;
  auto stream = stub->Join(&context);
  pb::JoinRequest request;
  request.mutable_join()->set_token(Token(Joiner("bob")));
  stream->Write(request);
  pb::JoinResponse response;
  EXPECT_FALSE(stream->Read(&response));
  const absl::Status status = rpc::FromGrpcStatus(stream->Finish());
  EXPECT_THAT(status, HasReason("ROOM_ELSEWHERE"));
  EXPECT_EQ(ReasonOf(status).metadata.at("media_url"), server().url());

  auto bob = TryJoin(Token(Joiner("bob")), {}, &second);
  PARLEY_ASSERT_OK(bob) << "our clients go where the room is";
  EXPECT_EQ(bob->connection().joined().others(0).identity(), "ann");

  auto carl = TryJoin(Token(Joiner("carl", "elsewhere")), {}, &second);
  PARLEY_ASSERT_OK(carl);
  EXPECT_EQ(carl->connection().joined().room().media_url(), second.url());
  pb::ListRoomsResponse listed;
  PARLEY_ASSERT_OK(Call(*Rooms(), &pb::RoomService::Stub::ListRooms, AdminToken(),
                        pb::ListRoomsRequest(), &listed));
  ASSERT_EQ(listed.rooms_size(), 2);
  EXPECT_EQ(listed.rooms(0).name(), "elsewhere");
  EXPECT_EQ(listed.rooms(0).media_url(), second.url());
  EXPECT_EQ(listed.rooms(1).num_participants(), 2);

  EXPECT_EQ(second.Stop(), 0);
  EXPECT_TRUE(Eventually([&] { return TryJoin(Token(Joiner("carl", "elsewhere"))).ok(); }))
      << "a replica that left in good order leaves no claims behind";
}

TEST_F(RoomServerTest, ADrainingReplicaTakesNoNewRoomsAndKeepsThoseItHas) {
  config_.common.drain = absl::Seconds(20);
  Peer ann = Join(Joiner("ann"));
  config_.common.drain = absl::Milliseconds(200);
  RunningRoomServer second(config_);
  PARLEY_ASSERT_OK(TryJoin(Token(Joiner("carl", "at the second")), {}, &second));
  server().context().RequestStop();
  absl::Status refused;
  int rooms = 0;
  EXPECT_TRUE(Eventually([&] {  // with a short timeout: our clients ask again
    pb::JoinRoom join;
    join.set_token(Token(Joiner("dora", fmt::format("new {}", ++rooms))));
    refused = caller::Connection::Join(server().url(), join, absl::Milliseconds(250)).status();
    return ReasonOf(refused).reason == "DRAINING";
  })) << refused;
  auto bob = TryJoin(Token(Joiner("bob")));
  PARLEY_ASSERT_OK(bob) << "its own rooms go on";
  EXPECT_EQ(bob->connection().joined().others_size(), 1);
  auto eve = TryJoin(Token(Joiner("eve", "at the second")));
  PARLEY_ASSERT_OK(eve) << "and it knows where others are";
  EXPECT_EQ(eve->connection().joined().room().media_url(), second.url());
  bob->Cut();
  ann.Cut();
  EXPECT_EQ(server().Stop(), 0) << "once they have left it ends";
  auto dora = TryJoin(Token(Joiner("dora", "lobby")), {}, &second);
  PARLEY_ASSERT_OK(dora);
  EXPECT_EQ(dora->connection().joined().room().media_url(), second.url());
}

TEST_F(RoomServerTest, RoomsOutliveTheStore) {
  Peer ann = Join(Joiner("ann"));
  RedisTest::server().Kill();
  Peer bob = Join(Joiner("bob"));
  EXPECT_EQ(bob.connection().joined().others_size(), 1);
  EXPECT_THAT(TryJoin(Token(Joiner("carl", "new room"))), HasReason("STORE_UNAVAILABLE"));
  PARLEY_ASSERT_OK(RedisTest::server().Restart());
  EXPECT_TRUE(Eventually([&] { return TryJoin(Token(Joiner("carl", "new room"))).ok(); }));
}

TEST_F(RoomServerTest, StoppingSaysGoodbye) {
  Peer ann = Join(Joiner("ann"));
  server().context().RequestStop();
  EXPECT_EQ(ann.Event(pb::RoomEvent::kDisconnected).disconnected().reason(),
            pb::DISCONNECT_REASON_SERVER_SHUTDOWN);
  EXPECT_EQ(server().Stop(), 0);
}

}  // namespace
}  // namespace parley
