// Which agents a room asks the broker for, and that no wish is lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <parley/room/v1/directory.pb.h>

#include <fstream>

#include "component/room_server_fixture.h"
#include "room_redis/directory.h"
#include "room_server/room_config.h"

namespace parley {
namespace {

using ::parley::testing::Eventually;
using ::parley::testing::HasCode;

class RoomDispatchTest : public RoomServerTest {
 protected:
  void SetUp() override {
    RoomServerTest::SetUp();
    config_.presets_file = directory_.path() + "/presets.json";
    std::ofstream(config_.presets_file) << R"({"staffed": {"agents": [
        {"agentName": "host"},
        {"agentName": "waiter", "attributes": {"parley.each_join": "true"}}]}})";
  }

  static auth::Claims WithAgent(auth::Claims claims, const std::string& agent) {
    auth::RoomAgent wanted;
    wanted.agent_name = agent;
    wanted.metadata = "for " + agent;
    claims.room_agents.push_back(wanted);
    return claims;
  }
  bool RequestsBecome(size_t count) {
    return Eventually([&] { return broker_.requests().size() == count; });
  }
  absl::StatusOr<pb::CreateRoomResponse> CreateRoom(const std::vector<std::string>& agents,
                                                    const std::string& key = {}) {
    pb::CreateRoomRequest request;
    request.set_name("lobby");
    for (const std::string& agent : agents) request.add_agents()->set_agent_name(agent);
    request.set_idempotency_key(key);
    request.set_session_id(agents.empty() ? "" : "AS_1");
    pb::CreateRoomResponse response;
    PARLEY_RETURN_IF_ERROR(
        Call(*Rooms(), &pb::RoomService::Stub::CreateRoom, AdminToken(), request, &response));
    return response;
  }

  const testing::TemporaryDirectory directory_;
};

TEST_F(RoomDispatchTest, NamedAgentsAreAskedForOnce) {
  Peer ann = Join(WithAgent(Joiner("ann"), "front-desk"));
  ASSERT_TRUE(RequestsBecome(1));
  const auto request = broker_.requests()[0];
  const std::string sid = ann.connection().joined().room().sid();
  EXPECT_EQ(request.agent_name(), "front-desk");
  EXPECT_EQ(request.room(), "lobby");
  EXPECT_EQ(request.room_sid(), sid);
  EXPECT_EQ(request.project(), "default");
  EXPECT_EQ(request.metadata(), "for front-desk");
  EXPECT_EQ(request.idempotency_key(), sid + "/front-desk");
  const auto claims = server().context().AuthenticateToken(broker_.tokens()[0]);
  PARLEY_ASSERT_OK(claims);
  EXPECT_TRUE(claims->is_service());

  Peer bob = Join(WithAgent(Joiner("bob"), "front-desk"));
  Peer carl = Join(WithAgent(Joiner("carl"), "billing"));
  ASSERT_TRUE(RequestsBecome(2)) << "a room that exists gets the agents of later tokens too";
  EXPECT_EQ(broker_.requests()[1].agent_name(), "billing");
}

// What a room server that died had said of its room last.
class HeritageTest : public RoomDispatchTest {
 protected:
  void DiesWith(const std::map<std::string, std::string>& agents) {
    pb::Room room;
    room.set_sid("RM_before");
    room.set_name("lobby");
    room.set_metadata("the old one's");
    room.mutable_empty_timeout()->set_seconds(300);
    room.mutable_departure_timeout()->set_seconds(20);
    room.set_max_participants(2);
    room.set_num_participants(1);
    pb::RoomHeritage heritage;
    heritage.mutable_agents()->insert(agents.begin(), agents.end());
    room_redis::Directory dead(pool(), {"RS_dead", "127.0.0.1:1"}, absl::Milliseconds(300));
    PARLEY_ASSERT_OK(
        dead.TakeRoom("default", "lobby", room.SerializeAsString() + heritage.SerializeAsString()));
  }
  // Blocks until the dead one's lease is over. Until then its address is told, where nobody
  // answers.
  Peer JoinAfter(const auth::Claims& claims) {
    auto peer = TryJoin(Token(claims));
    EXPECT_TRUE(peer.ok()) << peer.status();
    return peer.ok() ? *std::move(peer) : Peer();
  }
};

TEST_F(HeritageTest, ARoomGoesOnUnderItsSidAndNobodyIsAskedForTwice) {
  DiesWith({{"front-desk", "AD_before"}});
  Peer ann = JoinAfter(WithAgent(Joiner("ann"), "front-desk"));
  const pb::Room room = ann.connection().joined().room();
  EXPECT_EQ(room.sid(), "RM_before");
  EXPECT_EQ(room.metadata(), "the old one's");
  EXPECT_EQ(room.max_participants(), 2);
  EXPECT_EQ(room.media_url(), server().url());
  Peer bob = Join(WithAgent(Joiner("bob"), "billing"));
  ASSERT_TRUE(RequestsBecome(1)) << "another agent is asked for";
  EXPECT_EQ(broker_.requests()[0].agent_name(), "billing");
  EXPECT_EQ(broker_.requests()[0].idempotency_key(), "RM_before/billing");
  const auto created = CreateRoom({"front-desk"});
  PARLEY_ASSERT_OK(created);
  EXPECT_FALSE(created->created());
  ASSERT_EQ(created->dispatch_ids_size(), 1);
  EXPECT_EQ(created->dispatch_ids(0), "AD_before");
  EXPECT_EQ(broker_.requests().size(), 1u);
  // And so on: what this one said of it is its own successor's heritage.
  room_redis::Directory next(pool(), {"RS_next", server().url()});
  EXPECT_TRUE(Eventually([&] {
    const auto listed = next.List("default");
    pb::RoomHeritage heritage;
    return listed.ok() && listed->size() == 1 && heritage.ParseFromString(listed->at(0).summary) &&
           heritage.agents().size() == 2 && heritage.agents().at("front-desk") == "AD_before";
  }));
}

TEST_F(HeritageTest, AnAgentWhomNoBrokerHadConfirmedIsAskedForUnderTheSameKey) {
  DiesWith({});
  Peer ann = JoinAfter(Joiner("ann"));
  ASSERT_TRUE(RequestsBecome(1));
  EXPECT_EQ(broker_.requests()[0].idempotency_key(), "RM_before/") << "the broker knows it, or not";
}

TEST_F(HeritageTest, WhoNamedAnAgentGetsNoOtherByComingBackWithoutAName) {
  DiesWith({{"front-desk", "AD_before"}});
  Peer ann = JoinAfter(Joiner("ann"));
  Peer bob = Join(WithAgent(Joiner("bob"), "billing"));
  ASSERT_TRUE(RequestsBecome(1));
  EXPECT_EQ(broker_.requests()[0].agent_name(), "billing");
}

TEST_F(HeritageTest, WhomAnotherTokenNamedBeforeIsFound) {
  broker_.Answer(WithReason(AlreadyExists("it belongs to a different request"), "KEY_REUSED",
                            {{"dispatch_id", "AD_before"}}));
  const auto created = CreateRoom({"front-desk"});
  PARLEY_ASSERT_OK(created);
  ASSERT_EQ(created->dispatch_ids_size(), 1);
  EXPECT_EQ(created->dispatch_ids(0), "AD_before");
  EXPECT_THAT(CreateRoom({"billing"}, "the caller's own key"),
              HasCode(absl::StatusCode::kAlreadyExists));
}

TEST_F(HeritageTest, NonsenseMakesANewRoom) {
  room_redis::Directory dead(pool(), {"RS_dead", "127.0.0.1:1"}, absl::Milliseconds(100));
  PARLEY_ASSERT_OK(dead.TakeRoom("default", "lobby", std::string("\xff\xff nonsense", 11)));
  Peer ann = JoinAfter(WithAgent(Joiner("ann"), "front-desk"));
  EXPECT_TRUE(ann.connection().joined().room().sid().starts_with("RM_"));
  ASSERT_TRUE(RequestsBecome(1));
}

TEST_F(RoomDispatchTest, NoNameMeansWhatServesSuchRooms) {
  auth::Claims claims = Joiner("ann");
  claims.metadata = R"({"agentId":"front-desk"})";
  Peer ann = Join(claims);
  ASSERT_TRUE(RequestsBecome(1));
  EXPECT_EQ(broker_.requests()[0].agent_name(), "");
  EXPECT_EQ(broker_.requests()[0].metadata(), claims.metadata);
  Peer bob = Join(Joiner("bob"));
  EXPECT_EQ(broker_.requests().size(), 1u) << "for the creation of the room only";
}

TEST_F(RoomDispatchTest, UnservedIsNoError) {
  broker_.Answer(WithReason(FailedPrecondition("nobody"), "UNSERVED"));
  Peer ann = Join(Joiner("ann"));
  ASSERT_TRUE(RequestsBecome(1));
  absl::SleepFor(absl::Milliseconds(300));  // longer than the first retry would take
  EXPECT_EQ(broker_.requests().size(), 1u);
}

TEST_F(RoomDispatchTest, AgentsTriggerNothing) {
  AgentStream agents(server(), server().context().ServiceToken("default"));
  agents.Open(1, JobToken("AJ_1", 1));
  agents.Opened(1);
  Peer ann = Join(WithAgent(Joiner("ann"), "marker"));
  ASSERT_TRUE(RequestsBecome(1));
  EXPECT_EQ(broker_.requests()[0].agent_name(), "marker");
}

TEST_F(RoomDispatchTest, CreateRoomAnswersTheDispatches) {
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto first, CreateRoom({"front-desk", "billing"}, "my key"));
  EXPECT_TRUE(first.created());
  ASSERT_EQ(first.dispatch_ids_size(), 2);
  EXPECT_EQ(broker_.requests()[0].idempotency_key(), "my key");
  EXPECT_EQ(broker_.requests()[0].session_id(), "AS_1");
  EXPECT_EQ(broker_.requests()[1].idempotency_key(), first.room().sid() + "/billing");
  EXPECT_EQ(broker_.requests()[1].session_id(), "") << "the session is that of the first agent";
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto again, CreateRoom({"front-desk", "billing"}, "my key"));
  EXPECT_FALSE(again.created());
  EXPECT_THAT(again.dispatch_ids(), ::testing::ElementsAreArray(first.dispatch_ids()));
  Peer ann = Join(WithAgent(Joiner("ann"), "front-desk"));
  EXPECT_EQ(broker_.requests().size(), 2u) << "once per room, whoever asks";
}

TEST_F(RoomDispatchTest, AnAgentForEachJoinWhereTheTokenAsksForIt) {
  const auto each = [&](const std::string& who) {
    auth::Claims claims = WithAgent(Joiner(who), "companion");
    claims.room_agents[0].attributes = {{"parley.each_join", "true"}};
    claims.room_agents[0].never_restart = true;
    return claims;
  };
  Peer ann = Join(each("ann"));
  Peer bob = Join(each("bob"));
  ASSERT_TRUE(RequestsBecome(2));
  const auto requests = broker_.requests();
  const auto key = [](Peer& peer) {
    const pb::Joined& joined = peer.connection().joined();
    return joined.room().sid() + "/companion/" + joined.participant().sid();
  };
  EXPECT_THAT((std::vector{requests[0].idempotency_key(), requests[1].idempotency_key()}),
              ::testing::UnorderedElementsAre(key(ann), key(bob)));
  EXPECT_EQ(requests[0].restart_policy(), dispatch::v1::RESTART_POLICY_NEVER);
  Peer carl = Join(WithAgent(Joiner("carl"), "companion"));
  ASSERT_TRUE(RequestsBecome(3)) << "the room's own one is still to come";
  Peer dora = Join(WithAgent(Joiner("dora"), "companion"));
  Peer eve = Join(each("eve"));
  ASSERT_TRUE(RequestsBecome(4));
}

TEST_F(RoomDispatchTest, AgentsOfAPresetAreAskedForWhereNoneIsNamed) {
  const auto preset = [](auth::Claims claims) {
    claims.room_preset = "staffed";
    return claims;
  };
  pb::CreateRoomRequest request;
  request.set_name("lobby");
  request.set_room_preset("staffed");
  pb::CreateRoomResponse response;
  PARLEY_ASSERT_OK(
      Call(*Rooms(), &pb::RoomService::Stub::CreateRoom, AdminToken(), request, &response));
  EXPECT_EQ(response.dispatch_ids_size(), 1);
  ASSERT_TRUE(RequestsBecome(1)) << "nobody has joined: not the one for each";
  EXPECT_EQ(broker_.requests()[0].agent_name(), "host");
  Peer ann = Join(preset(Joiner("ann")));
  ASSERT_TRUE(RequestsBecome(2));
  EXPECT_EQ(broker_.requests()[1].agent_name(), "waiter");
  Peer bob = Join(WithAgent(preset(Joiner("bob")), "cook"));
  ASSERT_TRUE(RequestsBecome(3));
  EXPECT_EQ(broker_.requests()[2].agent_name(), "cook") << "the token's go over the preset's";
}

TEST_F(RoomDispatchTest, AFileOfPresetsSaysWhatItMay) {
  const testing::TemporaryDirectory directory;
  const std::string path = directory.path() + "/presets.json";
  const auto load = [&](const std::string& text) {
    std::ofstream(path) << text;
    return room_server::RoomPresets::Load(path).status();
  };
  PARLEY_EXPECT_OK(load(R"({"a": {"name": "a", "empty_timeout": 5, "agents": [{}]}, "b": {}})"));
  const std::pair<const char*, const char*> bad[] = {
      {"[", "JSON object"},
      {R"({"a": 1})", "a: must be"},
      {R"({"": {}})", "without a name"},
      {R"({"a": {"egress": {}}})", "a: there is no field egress"},
      {R"({"a": {"emptyTimeout": "soon"}})", "emptyTimeout"},
      {R"({"a": {"emptyTimeout": 900000}})", "empty_timeout is outside"},
      {R"({"a": {"metadata": 5}})", "metadata"},
      {R"({"a": {"agents": ["x"]}})", "agents"},
  };
  for (const auto& [text, why] : bad) {
    const absl::Status status = load(text);
    EXPECT_THAT(status, HasCode(absl::StatusCode::kInvalidArgument)) << text;
    EXPECT_THAT(std::string(Message(status)), ::testing::HasSubstr(why));
  }
  EXPECT_THAT(room_server::RoomPresets::Load(directory.path() + "/none").status(),
              HasCode(absl::StatusCode::kNotFound));
}

TEST_F(RoomDispatchTest, ABrokerAwayDelaysButLosesNothing) {
  const int port = broker_.port();
  server();  // knows the broker's address
  broker_.Stop();
  Peer ann = Join(WithAgent(Joiner("ann"), "front-desk"));
  absl::SleepFor(absl::Milliseconds(200));
  broker_.Start(port);
  ASSERT_TRUE(Eventually([&] { return broker_.requests().size() == 1; }, absl::Seconds(15)));
  EXPECT_EQ(broker_.requests()[0].idempotency_key(),
            ann.connection().joined().room().sid() + "/front-desk");
}

TEST_F(RoomDispatchTest, CreateRoomSaysWhenTheBrokerIsAwayAndTriesOn) {
  broker_.Answer(WithReason(Unavailable("the store is away"), "STORE_UNAVAILABLE"));
  const auto created = CreateRoom({"front-desk"});
  EXPECT_THAT(created, HasCode(absl::StatusCode::kUnavailable));
  const size_t before = broker_.requests().size();
  broker_.Answer(absl::OkStatus());
  ASSERT_TRUE(Eventually([&] { return broker_.requests().size() > before; }));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto again, CreateRoom({"front-desk"}));
  EXPECT_EQ(again.dispatch_ids_size(), 1);
  for (const auto& request : broker_.requests()) {
    EXPECT_EQ(request.idempotency_key(), broker_.requests()[0].idempotency_key());
  }
}

TEST_F(RoomDispatchTest, WishesEndWithTheirRoom) {
  broker_.Answer(Unavailable("away"));
  Peer ann = Join(WithAgent(Joiner("ann"), "front-desk"));
  ASSERT_TRUE(Eventually([&] { return broker_.requests().size() >= 2; }));
  pb::DeleteRoomRequest del;
  del.set_name("lobby");
  pb::DeleteRoomResponse deleted;
  PARLEY_ASSERT_OK(Call(*Rooms(), &pb::RoomService::Stub::DeleteRoom, AdminToken(), del, &deleted));
  EXPECT_TRUE(Eventually([&] {  // one may be under way
    const size_t requests = broker_.requests().size();
    absl::SleepFor(absl::Milliseconds(1000));
    return broker_.requests().size() == requests;
  }));
}

TEST_F(RoomDispatchTest, BrokerHearsWhoIsThereAndMissesNothing) {
  std::string sid;
  const auto people = [&] {
    std::string text;
    const auto known = broker_.presence();
    const auto it = known.find(sid);
    if (it == known.end()) return text;
    if (it->second.closed()) return std::string("closed");
    for (const auto& person : it->second.people()) {
      text += (person.publishing() ? "*" : "") + person.identity() + " ";
    }
    return text;
  };
  const auto become = [&](const std::string& want) {
    return Eventually([&] { return people() == want; }, absl::Seconds(10));
  };
  Peer ann = Join(Joiner("ann"));
  sid = ann.connection().joined().room().sid();
  ASSERT_TRUE(become("ann ")) << people();
  EXPECT_EQ(broker_.presence()[sid].room(), "lobby");
  EXPECT_EQ(broker_.presence()[sid].project(), "default");
  const auto claims = server().context().AuthenticateToken(broker_.presence_token());
  PARLEY_ASSERT_OK(claims);
  EXPECT_TRUE(claims->is_service());
  AgentStream agents(server(), server().context().ServiceToken("default"));
  agents.Open(1, JobToken("AJ_1", 1));
  agents.Opened(1);
  {
    Peer bob = Join(Joiner("bob"));
    ASSERT_TRUE(become("ann bob ")) << "people only: " << people();
    const uint64_t version = broker_.presence()[sid].version();
    bob.Publish("microphone");
    ASSERT_TRUE(become("ann *bob ")) << people();
    EXPECT_GT(broker_.presence()[sid].version(), version);
    broker_.Answer(Unavailable("away"));
  }
  absl::SleepFor(absl::Milliseconds(150));  // he left while nobody took the report
  broker_.Answer(absl::OkStatus());
  ASSERT_TRUE(become("ann ")) << people();
  pb::DeleteRoomRequest del;
  del.set_name("lobby");
  pb::DeleteRoomResponse deleted;
  PARLEY_ASSERT_OK(Call(*Rooms(), &pb::RoomService::Stub::DeleteRoom, AdminToken(), del, &deleted));
  EXPECT_TRUE(become("closed")) << people();
}

TEST_F(RoomDispatchTest, RefusedWishesAreNotRepeated) {
  broker_.Answer(InvalidArgument("no such thing"));
  EXPECT_THAT(CreateRoom({"front-desk"}), HasCode(absl::StatusCode::kInvalidArgument));
  absl::SleepFor(absl::Milliseconds(300));
  EXPECT_EQ(broker_.requests().size(), 1u);
  broker_.Answer(absl::OkStatus());
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto again, CreateRoom({"front-desk"}));
  EXPECT_EQ(again.dispatch_ids_size(), 1) << "a later wish gets its chance";
}

}  // namespace
}  // namespace parley
