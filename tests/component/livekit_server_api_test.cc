// LiveKit's server API on a real api_server, with a real room server, broker and Redis.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <parley/livekit/v1/server.pb.h>

#include <cstdlib>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>

#include "auth/token.h"
#include "caller/connection.h"
#include "http/client.h"
#include "testing/cluster.h"
#include "testing/matchers.h"
#include "testing/redis_fixture.h"

namespace parley {
namespace {

namespace lk = ::parley::livekit::v1;
namespace roomv1 = ::parley::room::v1;
using nlohmann::json;
using ::parley::testing::Eventually;
using ::testing::HasSubstr;

constexpr char kRooms[] = "/twirp/livekit.RoomService/";
constexpr char kDispatches[] = "/twirp/livekit.AgentDispatchService/";

class LiveKitServerApiTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = new testing::TemporaryDirectory();
    const std::string presets = directory_->path() + "/presets.json";
    std::ofstream(presets) << R"({"small": {"maxParticipants": 1, "metadata": "of the preset",
                                  "emptyTimeout": 17, "agents": [{"agentName": "greeter"}]}})";
    testing::ClusterOptions options;
    options.services = {"agent-registry", "dispatch-broker", "room-server", "api-server"};
    options.agent_servers = 0;
    options.extra_arguments["room-server"] = {"--room-presets-file", presets};
    auto cluster = testing::Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = cluster->release();
  }
  static void TearDownTestSuite() {
    delete cluster_;
    delete directory_;
  }

  static std::string Sign(const auth::Claims& claims) {
    return auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(1));
  }
  static std::string Manager() {
    auth::Claims claims;
    claims.video.room_create = true;
    claims.video.room_list = true;
    return Sign(claims);
  }
  static std::string Admin(const std::string& room) {
    auth::Claims claims;
    claims.video.room_admin = true;
    claims.video.room = room;
    return Sign(claims);
  }

  http::Reply Send(const std::string& method, const std::string& path, const std::string& type,
                   const std::string& body, const std::string& token) {
    http::Call call;
    call.method = method;
    call.url = "http://" + cluster_->Address("api-server") + path;
    if (!type.empty()) call.headers.emplace_back("Content-Type", type);
    if (!token.empty()) call.headers.emplace_back("Authorization", "Bearer " + token);
    if (!request_id_.empty()) call.headers.emplace_back("X-Livekit-Request-Id", request_id_);
    call.body = body;
    call.reach = http::Reach::kLoopbackToo;
    const auto reply = client_.Fetch(call);
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.ok() ? *reply : http::Reply();
  }
  http::Reply Post(const std::string& path, const json& body, const std::string& token) {
    return Send("POST", path, "application/json", body.dump(), token);
  }
  // The answer of a call that must work.
  json Ask(const std::string& path, const json& body, const std::string& token) {
    const http::Reply reply = Post(path, body, token);
    EXPECT_EQ(reply.status, 200) << path << " " << reply.body;
    return json::parse(reply.body, nullptr, false);
  }
  static std::string CodeOf(const http::Reply& reply) {
    const json body = json::parse(reply.body, nullptr, false);
    return body.is_object() ? body.value("code", "") : "no JSON: " + reply.body;
  }
  std::unique_ptr<caller::Connection> Join(const std::string& room, const std::string& identity,
                                           auth::Claims claims = {}, bool listens = true) {
    claims.identity = identity;
    claims.video.room_join = true;
    claims.video.room = room;
    roomv1::JoinRoom join;
    join.set_token(Sign(claims));
    join.mutable_options()->set_auto_subscribe(listens);
    auto joined =
        caller::Connection::Join(cluster_->Address("room-server"), join, absl::Seconds(5));
    EXPECT_TRUE(joined.ok()) << joined.status();
    return joined.ok() ? *std::move(joined) : nullptr;
  }
  // The next event of this kind that the person sees.
  static std::optional<roomv1::RoomEvent> Next(caller::Connection& person,
                                               roomv1::RoomEvent::EventCase which) {
    const absl::Time until = absl::Now() + absl::Seconds(5);
    while (absl::Now() < until) {
      const auto received = person.Receive(until - absl::Now());
      if (!received.message) return std::nullopt;
      if (received.message->event().event_case() == which) return received.message->event();
    }
    return std::nullopt;
  }

  static bool NextAudio(caller::Connection& person) {
    const absl::Time until = absl::Now() + absl::Seconds(5);
    while (absl::Now() < until) {
      const auto received = person.Receive(until - absl::Now());
      if (!received.message) return false;
      if (received.message->has_audio()) return true;
    }
    return false;
  }

  static testing::Cluster* cluster_;
  static testing::TemporaryDirectory* directory_;
  std::string request_id_;
  http::Client client_;
};
testing::Cluster* LiveKitServerApiTest::cluster_ = nullptr;
testing::TemporaryDirectory* LiveKitServerApiTest::directory_ = nullptr;

TEST_F(LiveKitServerApiTest, RoomsAreMadeListedChangedAndDeleted) {
  const std::string manager = Manager();
  const json room = Ask(std::string(kRooms) + "CreateRoom",
                        {{"name", "hall"}, {"emptyTimeout", 60}, {"metadata", "m"}}, manager);
  EXPECT_THAT(room["sid"].get<std::string>(), HasSubstr("RM_"));
  EXPECT_EQ(room["empty_timeout"], 60);
  EXPECT_EQ(room["departure_timeout"], 20);
  EXPECT_EQ(room["num_participants"], 0) << "defaults are written";
  EXPECT_EQ(Ask(std::string(kRooms) + "CreateRoom", {{"name", "hall"}}, manager)["sid"],
            room["sid"]);
  const json list = Ask(std::string(kRooms) + "ListRooms", {{"names", {"hall"}}}, manager);
  ASSERT_EQ(list["rooms"].size(), 1u);
  EXPECT_EQ(list["rooms"][0]["metadata"], "m");
  const json changed = Ask(std::string(kRooms) + "UpdateRoomMetadata",
                           {{"room", "hall"}, {"metadata", "n"}}, Admin("hall"));
  EXPECT_EQ(changed["metadata"], "n");
  Ask(std::string(kRooms) + "DeleteRoom", {{"room", "hall"}}, manager);
  const http::Reply gone = Post(std::string(kRooms) + "DeleteRoom", {{"room", "hall"}}, manager);
  EXPECT_EQ(gone.status, 404);
  EXPECT_EQ(CodeOf(gone), "not_found");
}

TEST_F(LiveKitServerApiTest, ProtobufIsAnsweredInProtobuf) {
  lk::CreateRoomRequest request;
  request.set_name("bytes");
  request.set_max_participants(3);
  http::Reply reply = Send("POST", std::string(kRooms) + "CreateRoom", "application/protobuf",
                           request.SerializeAsString(), Manager());
  ASSERT_EQ(reply.status, 200) << reply.body;
  lk::Room room;
  ASSERT_TRUE(room.ParseFromString(reply.body));
  EXPECT_EQ(room.name(), "bytes");
  EXPECT_EQ(room.max_participants(), 3u);
  // Errors are JSON in any case.
  reply = Send("POST", std::string(kRooms) + "CreateRoom", "application/protobuf", "\xff\xff",
               Manager());
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(CodeOf(reply), "malformed");
}

TEST_F(LiveKitServerApiTest, ParticipantsAreSeenChangedMutedToldAndRemoved) {
  const std::string admin = Admin("stage");
  auth::Claims claims;
  claims.attributes = {{"lang", "de"}, {"seat", "4"}};
  const auto ann = Join("stage", "ann", claims);
  ASSERT_NE(ann, nullptr);
  roomv1::JoinRequest publish;
  publish.mutable_command()->mutable_publish()->set_cid("mic");
  publish.mutable_command()->mutable_publish()->set_kind(roomv1::TRACK_KIND_AUDIO);
  publish.mutable_command()->mutable_publish()->set_source(roomv1::TRACK_SOURCE_MICROPHONE);
  publish.mutable_command()->mutable_publish()->set_codec(roomv1::CODEC_OPUS);
  ASSERT_TRUE(ann->Send(publish));
  ASSERT_TRUE(Next(*ann, roomv1::RoomEvent::kTrackPublished));

  const json list = Ask(std::string(kRooms) + "ListParticipants", {{"room", "stage"}}, admin);
  ASSERT_EQ(list["participants"].size(), 1u);
  const json& one = list["participants"][0];
  EXPECT_EQ(one["identity"], "ann");
  EXPECT_EQ(one["state"], "ACTIVE");
  EXPECT_EQ(one["kind"], "STANDARD");
  EXPECT_EQ(one["is_publisher"], true);
  EXPECT_EQ(one["permission"]["can_publish"], true);
  ASSERT_EQ(one["tracks"].size(), 1u);
  EXPECT_EQ(one["tracks"][0]["source"], "MICROPHONE");

  const json changed = Ask(std::string(kRooms) + "UpdateParticipant",
                           {{"room", "stage"},
                            {"identity", "ann"},
                            {"name", "Ann"},
                            {"attributes", {{"lang", "fr"}, {"seat", ""}}},
                            {"permission", {{"canSubscribe", true}, {"canPublish", true}}}},
                           admin);
  EXPECT_EQ(changed["name"], "Ann");
  EXPECT_EQ(changed["attributes"], json({{"lang", "fr"}}));
  EXPECT_EQ(changed["permission"]["can_publish_data"], false);
  EXPECT_EQ(Ask(std::string(kRooms) + "GetParticipant", {{"room", "stage"}, {"identity", "ann"}},
                admin)["name"],
            "Ann");

  json mute = {{"room", "stage"},
               {"identity", "ann"},
               {"track_sid", one["tracks"][0]["sid"]},
               {"muted", true}};
  EXPECT_EQ(Ask(std::string(kRooms) + "MutePublishedTrack", mute, admin)["track"]["muted"], true);
  mute["muted"] = false;
  EXPECT_EQ(CodeOf(Post(std::string(kRooms) + "MutePublishedTrack", mute, admin)),
            "failed_precondition")
      << "only its publisher unmutes a track";

  const auto told = [&](const json& destinations) {
    json data = {{"room", "stage"}, {"data", "aGVsbG8="}, {"kind", "RELIABLE"}, {"topic", "t"}};
    data.update(destinations);
    Ask(std::string(kRooms) + "SendData", data, admin);
  };
  told({{"destination_identities", {"nobody"}}, {"topic", "not for ann"}});
  told({{"destination_sids", {"PA_unknown"}}, {"topic", "not for ann"}});
  told({{"destination_sids", {one["sid"]}}, {"topic", "by sid"}});
  told(json::object());
  for (const char* topic : {"by sid", "t"}) {
    const auto data = Next(*ann, roomv1::RoomEvent::kData);
    ASSERT_TRUE(data) << topic;
    EXPECT_EQ(data->data().topic(), topic);
    EXPECT_EQ(data->data().payload(), "hello");
    EXPECT_EQ(data->data().from_identity(), "");
  }

  Ask(std::string(kRooms) + "RemoveParticipant", {{"room", "stage"}, {"identity", "ann"}}, admin);
  const auto out = Next(*ann, roomv1::RoomEvent::kDisconnected);
  ASSERT_TRUE(out);
  EXPECT_EQ(out->disconnected().reason(), roomv1::DISCONNECT_REASON_PARTICIPANT_REMOVED);
  const http::Reply gone = Post(std::string(kRooms) + "RemoveParticipant",
                                {{"room", "stage"}, {"identity", "ann"}}, admin);
  EXPECT_EQ(gone.status, 404);
}

TEST_F(LiveKitServerApiTest, SubscriptionsAreChangedForSomebody) {
  const auto ann = Join("heard", "ann");
  const auto bob = Join("heard", "bob", {}, false);
  ASSERT_TRUE(ann != nullptr && bob != nullptr);
  roomv1::JoinRequest publish;
  publish.mutable_command()->mutable_publish()->set_cid("mic");
  publish.mutable_command()->mutable_publish()->set_kind(roomv1::TRACK_KIND_AUDIO);
  publish.mutable_command()->mutable_publish()->set_source(roomv1::TRACK_SOURCE_MICROPHONE);
  publish.mutable_command()->mutable_publish()->set_codec(roomv1::CODEC_OPUS);
  ASSERT_TRUE(ann->Send(publish));
  const auto published = Next(*ann, roomv1::RoomEvent::kTrackPublished);
  ASSERT_TRUE(published);
  const std::string sid = published->track_published().track().sid();
  json change = {{"room", "heard"},
                 {"identity", "bob"},
                 {"subscribe", true},
                 {"track_sids", {"TR_of_nobody"}},
                 {"participant_tracks", {{{"participant_sid", "x"}, {"track_sids", {sid}}}}}};
  Ask(std::string(kRooms) + "UpdateSubscriptions", change, Admin("heard"));
  const auto started = Next(*bob, roomv1::RoomEvent::kSubscriptionStarted);
  ASSERT_TRUE(started);
  EXPECT_EQ(started->subscription_started().track().sid(), sid);
  roomv1::JoinRequest frame;
  frame.mutable_audio()->set_track_sid(sid);
  frame.mutable_audio()->set_data("opus");
  ASSERT_TRUE(ann->Send(frame));
  ASSERT_TRUE(NextAudio(*bob));
  change["subscribe"] = false;
  Ask(std::string(kRooms) + "UpdateSubscriptions", change, Admin("heard"));
  change["identity"] = "nobody";
  EXPECT_EQ(CodeOf(Post(std::string(kRooms) + "UpdateSubscriptions", change, Admin("heard"))),
            "not_found");
}

TEST_F(LiveKitServerApiTest, MethodsOfParticipantsAreCalled) {
  const auto ann = Join("office", "ann");
  ASSERT_NE(ann, nullptr);
  json call = {{"room", "office"},
               {"destination_identity", "ann"},
               {"method", "add"},
               {"payload", "1+2"},
               {"response_timeout_ms", 4000}};
  // What she answers to the next request.
  const auto answer = [&](const roomv1::RpcResponse& response) {
    const auto asked = Next(*ann, roomv1::RoomEvent::kRpc);
    ASSERT_TRUE(asked);
    EXPECT_EQ(asked->rpc().request().method(), "add");
    EXPECT_EQ(asked->rpc().request().payload(), "1+2");
    roomv1::JoinRequest reply;
    roomv1::RpcPacket& packet = *reply.mutable_command()->mutable_rpc();
    packet.set_request_id(asked->rpc().request_id());
    packet.set_destination_identity(asked->rpc().from_identity());
    packet.mutable_ack();
    ASSERT_TRUE(ann->Send(reply));
    *packet.mutable_response() = response;
    ASSERT_TRUE(ann->Send(reply));
  };
  const auto post = [&](const json& body) {
    return std::async(std::launch::async, [this, body] {
      return Post(std::string(kRooms) + "PerformRpc", body, Admin("office"));
    });
  };
  roomv1::RpcResponse good;
  good.set_payload("3");
  auto waiting = post(call);
  answer(good);
  http::Reply reply = waiting.get();
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(json::parse(reply.body)["payload"], "3");

  roomv1::RpcResponse bad;
  bad.mutable_error()->set_code(1500);
  bad.mutable_error()->set_message("Application error in method handler");
  bad.mutable_error()->set_data("no such number");
  waiting = post(call);
  answer(bad);
  reply = waiting.get();
  EXPECT_EQ(CodeOf(reply), "internal");
  EXPECT_THAT(reply.body, HasSubstr("no such number"));

  call["response_timeout_ms"] = 300;
  waiting = post(call);  // and she says nothing
  EXPECT_EQ(CodeOf(waiting.get()), "canceled");
  EXPECT_TRUE(Next(*ann, roomv1::RoomEvent::kRpc));

  call["response_timeout_ms"] = 4000;
  waiting = post(call);
  ASSERT_TRUE(Next(*ann, roomv1::RoomEvent::kRpc));
  Ask(std::string(kRooms) + "RemoveParticipant", {{"room", "office"}, {"identity", "ann"}},
      Admin("office"));
  EXPECT_EQ(CodeOf(waiting.get()), "unavailable") << "she left";
  EXPECT_EQ(CodeOf(post(call).get()), "not_found");
  call["payload"] = std::string(20'000, 'x');
  EXPECT_EQ(CodeOf(post(call).get()), "invalid_argument");
}

TEST_F(LiveKitServerApiTest, DispatchesAreMadeListedAndDeletedWithTheirJobs) {
  const std::string admin = Admin("desk");
  const json made = Ask(std::string(kDispatches) + "CreateDispatch",
                        {{"agentName", "nobody-yet"},
                         {"room", "desk"},
                         {"metadata", "{}"},
                         {"restartPolicy", "JRP_NEVER"},
                         {"attributes", {{"k", "v"}}}},
                        admin);
  EXPECT_THAT(made["id"].get<std::string>(), HasSubstr("AD_"));
  EXPECT_EQ(made["restart_policy"], "JRP_NEVER");
  EXPECT_EQ(made["attributes"], json({{"k", "v"}}));
  EXPECT_GT(std::stoll(made["state"]["created_at"].get<std::string>()), 1'700'000'000'000'000'000);
  json list = Ask(std::string(kDispatches) + "ListDispatch", {{"room", "desk"}}, admin);
  ASSERT_EQ(list["agent_dispatches"].size(), 1u);
  const json& job = list["agent_dispatches"][0]["state"]["jobs"].at(0);
  EXPECT_EQ(job["state"]["status"], "JS_PENDING");
  EXPECT_EQ(job["dispatch_id"], made["id"]);
  EXPECT_EQ(job["room"]["name"], "desk");
  EXPECT_EQ(job["type"], "JT_ROOM");

  // An SDK that asks again under the same request id gets the dispatch that there is.
  request_id_ = "0b0e7e6c-1";
  const json wish = {{"agent_name", "nobody-yet"}, {"room", "desk-2"}};
  const json one = Ask(std::string(kDispatches) + "CreateDispatch", wish, Admin("desk-2"));
  EXPECT_EQ(Ask(std::string(kDispatches) + "CreateDispatch", wish, Admin("desk-2"))["id"],
            one["id"]);
  request_id_ = "0b0e7e6c-2";
  EXPECT_NE(Ask(std::string(kDispatches) + "CreateDispatch", wish, Admin("desk-2"))["id"],
            one["id"]);
  request_id_.clear();

  // Nobody but the room's own administrator finds it.
  EXPECT_EQ(Ask(std::string(kDispatches) + "ListDispatch", {{"room", "other"}},
                Admin("other"))["agent_dispatches"]
                .size(),
            0u);
  for (const char* method : {"ListDispatch", "DeleteDispatch"}) {
    const http::Reply foreign =
        Post(std::string(kDispatches) + method, {{"room", "other"}, {"dispatch_id", made["id"]}},
             Admin("other"));
    EXPECT_EQ(CodeOf(foreign), "not_found") << method;
  }

  const json deleted = Ask(std::string(kDispatches) + "DeleteDispatch",
                           {{"room", "desk"}, {"dispatch_id", made["id"]}}, admin);
  EXPECT_EQ(deleted["id"], made["id"]);
  EXPECT_NE(deleted["state"]["deleted_at"], "0");
  list = Ask(std::string(kDispatches) + "ListDispatch", {{"room", "desk"}}, admin);
  EXPECT_EQ(list["agent_dispatches"].size(), 0u);
}

TEST_F(LiveKitServerApiTest, MissingGrantsAre401WhateverIsMissing) {
  Ask(std::string(kRooms) + "CreateRoom", {{"name", "locked"}}, Manager());
  auth::Claims person;
  person.identity = "p";
  person.video.room_join = true;
  person.video.room = "locked";
  auth::Claims foreign;
  foreign.video.room_admin = true;
  foreign.video.room = "locked";
  auth::ApiKey other = auth::KeyRing::Development()->keys()[0];
  other.key = "APIother";
  const std::pair<const char*, std::string> tokens[] = {
      {"none", ""},
      {"no token", "abc"},
      {"unknown key", auth::Sign(foreign, other, absl::Hours(1))},
      {"a person's", Sign(person)},
      {"another room's", Admin("other")},
      {"no grant", Sign({})},
  };
  const std::pair<std::string, json> calls[] = {
      {std::string(kRooms) + "CreateRoom", {{"name", "x"}}},
      {std::string(kRooms) + "ListRooms", json::object()},
      {std::string(kRooms) + "DeleteRoom", {{"room", "locked"}}},
      {std::string(kRooms) + "ListParticipants", {{"room", "locked"}}},
      {std::string(kRooms) + "GetParticipant", {{"room", "locked"}, {"identity", "a"}}},
      {std::string(kRooms) + "RemoveParticipant", {{"room", "locked"}, {"identity", "a"}}},
      {std::string(kRooms) + "MutePublishedTrack", {{"room", "locked"}}},
      {std::string(kRooms) + "UpdateParticipant", {{"room", "locked"}}},
      {std::string(kRooms) + "SendData", {{"room", "locked"}}},
      {std::string(kRooms) + "UpdateRoomMetadata", {{"room", "locked"}}},
      {std::string(kRooms) + "UpdateSubscriptions", {{"room", "locked"}}},
      {std::string(kRooms) + "PerformRpc", {{"room", "locked"}}},
      {std::string(kDispatches) + "CreateDispatch", {{"room", "locked"}, {"agent_name", "a"}}},
      {std::string(kDispatches) + "ListDispatch", {{"room", "locked"}}},
      {std::string(kDispatches) + "DeleteDispatch", {{"room", "locked"}, {"dispatch_id", "x"}}},
  };
  for (const auto& [path, body] : calls) {
    for (const auto& [what, token] : tokens) {
      const http::Reply reply = Post(path, body, token);
      EXPECT_EQ(reply.status, 401) << path << " " << what;
      EXPECT_EQ(CodeOf(reply), "unauthenticated") << path << " " << what;
    }
    const bool rooms = body.contains("room") && path.find("DeleteRoom") == std::string::npos;
    if (!rooms) continue;
    EXPECT_EQ(Post(path, body, Manager()).status, 401) << path << " with roomCreate";
  }
}

TEST_F(LiveKitServerApiTest, WhatIsMalformedIsSaidByCode) {
  const std::string manager = Manager(), admin = Admin("lobby");
  struct Case {
    std::string path, type, body, token;
    int status;
    std::string code;
  };
  const std::string create = std::string(kRooms) + "CreateRoom";
  const std::string dispatch = std::string(kDispatches) + "CreateDispatch";
  const Case cases[] = {
      {create, "application/json", "{", manager, 400, "malformed"},
      {create, "application/json", "", manager, 400, "malformed"},
      {create, "application/json", R"(["x"])", manager, 400, "malformed"},
      {create, "application/json", std::string(5000, '['), manager, 400, "malformed"},
      {create, "application/json", R"({"name": {"a": 1}})", manager, 400, "malformed"},
      {create, "application/json", R"({"name": ""})", manager, 400, "invalid_argument"},
      {create, "application/json", json({{"name", std::string(300, 'a')}}).dump(), manager, 400,
       "invalid_argument"},
      {create, "application/json", R"({"name": "x", "room_preset": "none"})", manager, 400,
       "invalid_argument"},
      {create, "application/json", R"({"name": "x", "egress": {}})", manager, 501, "unimplemented"},
      {create, "application/json", R"({"name": "x", "agents": [{"deployment": "a b"}]})", manager,
       400, "invalid_argument"},
      {create, "text/plain", "{}", manager, 404, "bad_route"},
      {create, "", "{}", manager, 404, "bad_route"},
      {create, "application/protobuf", std::string("\x0a\xff\xff\xff\xff\x0f", 6), manager, 400,
       "malformed"},
      {std::string(kRooms) + "Nothing", "application/json", "{}", manager, 404, "bad_route"},
      {"/twirp/livekit.Nothing/CreateRoom", "application/json", "{}", manager, 404, "bad_route"},
      {"/twirp/", "application/json", "{}", manager, 404, "bad_route"},
      {std::string(kRooms) + "MoveParticipant", "application/json", "{}", manager, 501,
       "unimplemented"},
      {std::string(kRooms) + "PerformRpc", "application/json", R"({"room": "lobby"})", admin, 404,
       "not_found"},
      {dispatch, "application/json", R"({"room": ""})", Admin(""), 400, "invalid_argument"},
      {dispatch, "application/json",
       json({{"room", "lobby"}, {"agent_name", "a"}, {"metadata", std::string(600 << 10, 'm')}})
           .dump(),
       admin, 400, "invalid_argument"},
      {std::string(kDispatches) + "DeleteDispatch", "application/json",
       R"({"room": "lobby", "dispatch_id": "AD_nothing"})", admin, 404, "not_found"},
      {std::string(kRooms) + "ListParticipants", "application/json", R"({"room": "lobby"})", admin,
       404, "not_found"},
  };
  for (const Case& one : cases) {
    const http::Reply reply = Send("POST", one.path, one.type, one.body, one.token);
    EXPECT_EQ(reply.status, one.status) << one.path << " " << one.body.substr(0, 80);
    EXPECT_EQ(CodeOf(reply), one.code) << one.path << " " << one.body.substr(0, 80);
  }
  EXPECT_EQ(Send("GET", create, "application/json", "", manager).status, 405);
}

// docs/livekit.md is written from this list.
TEST_F(LiveKitServerApiTest, CallsAndMessagesAreAsTheListSays) {
  std::ifstream file(std::string(std::getenv("PARLEY_SOURCE_DIR")) + "/docs/livekit-surface.json");
  const json rows = json::parse(file);
  int calls = 0, fields = 0;
  for (const json& row : rows) {
    const bool there = row["status"] != "not yet";
    const std::string name = row["name"];
    if (row.contains("rpc")) {
      ++calls;
      const http::Reply reply =
          Post("/twirp/" + row["rpc"].get<std::string>(), json::object(), Manager());
      const std::string code = CodeOf(reply);
      EXPECT_EQ(code != "unimplemented" && code != "bad_route", there) << row << reply.body;
    }
    if (!row.contains("message")) continue;
    ++fields;
    const std::string message = row["message"];
    const auto* descriptor = lk::Room::descriptor()->file()->pool()->FindMessageTypeByName(
        "parley.livekit.v1." + message);
    ASSERT_NE(descriptor, nullptr) << message;
    const auto* field = descriptor->FindFieldByNumber(row["number"]);
    EXPECT_EQ(field != nullptr, there) << row;
    if (field == nullptr) continue;
    EXPECT_EQ(field->name(), name.substr(name.find('.') + 1));
  }
  EXPECT_GT(calls, 15);
  EXPECT_GT(fields, 40);
}

TEST_F(LiveKitServerApiTest, PresetsAreTakenByNameAndTheRequestGoesOverThem) {
  const json room =
      Ask(std::string(kRooms) + "CreateRoom",
          {{"name", "tiny"}, {"room_preset", "small"}, {"empty_timeout", 40}}, Manager());
  EXPECT_EQ(room["max_participants"], 1);
  EXPECT_EQ(room["metadata"], "of the preset");
  EXPECT_EQ(room["empty_timeout"], 40);
  const json made =
      Ask(std::string(kDispatches) + "ListDispatch", {{"room", "tiny"}}, Admin("tiny"));
  ASSERT_EQ(made["agent_dispatches"].size(), 1u);
  EXPECT_EQ(made["agent_dispatches"][0]["agent_name"], "greeter");

  auth::Claims claims;
  claims.room_preset = "small";
  claims.room_config_json = R"({"metadata": "of the token"})";
  const auto ann = Join("joined", "ann", claims);
  ASSERT_NE(ann, nullptr);
  EXPECT_EQ(ann->joined().room().max_participants(), 1);
  EXPECT_EQ(ann->joined().room().metadata(), "of the token");
  EXPECT_TRUE(Eventually([&] {
    return Ask(std::string(kDispatches) + "ListDispatch", {{"room", "joined"}},
               Admin("joined"))["agent_dispatches"]
               .size() == 1;
  }));
  claims.room_preset = "none";
  claims.identity = "bob";
  claims.video.room_join = true;
  claims.video.room = "refused";
  roomv1::JoinRoom join;
  join.set_token(Sign(claims));
  EXPECT_THAT(
      caller::Connection::Join(cluster_->Address("room-server"), join, absl::Seconds(5)).status(),
      testing::HasReason("ROOM_PRESET_UNKNOWN"));
}

TEST_F(LiveKitServerApiTest, HealthDeadlinesAndPages) {
  const http::Reply health = Send("GET", "/", "", "", "");
  EXPECT_EQ(health.status, 200);
  EXPECT_EQ(health.body, "OK");
  const http::Reply preflight = Send("OPTIONS", std::string(kRooms) + "ListRooms", "", "", "");
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.headers.at("access-control-allow-origin"), "*");
  EXPECT_EQ(Post(std::string(kRooms) + "ListRooms", json::object(), Manager())
                .headers.at("access-control-allow-origin"),
            "*");
}

}  // namespace
}  // namespace parley
