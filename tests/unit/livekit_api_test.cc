// The LiveKit edge of api_server without any other service: Twirp's forms, limits, and who gets a
// token from connection-details.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <parley/livekit/v1/server.pb.h>

#include <filesystem>
#include <fstream>

#include "api_server/livekit_convert.h"
#include "api_server/rate_limit.h"
#include "api_server/routes.h"
#include "api_server/twirp.h"
#include "testing/fake_clock.h"
#include "testing/matchers.h"
#include "testing/redis_fixture.h"

namespace parley::api_server {
namespace {

using ::parley::testing::HasReason;
using ::testing::HasSubstr;

TEST(TwirpTest, FormsComeFromTheContentType) {
  EXPECT_EQ(twirp::FormOf("application/json"), twirp::Form::kJson);
  EXPECT_EQ(twirp::FormOf("Application/JSON; charset=utf-8"), twirp::Form::kJson);
  EXPECT_EQ(twirp::FormOf("application/protobuf"), twirp::Form::kProtobuf);
  EXPECT_EQ(twirp::FormOf("text/plain"), std::nullopt);
  EXPECT_EQ(twirp::FormOf(""), std::nullopt);
}

TEST(TwirpTest, JsonIsReadInBothSpellingsAndWrittenInSnakeCase) {
  for (const char* text :
       {R"({"name": "r", "emptyTimeout": 7, "agents": [{"agentName": "a"}], "unknown": [1]})",
        R"({"name": "r", "empty_timeout": "7", "agents": [{"agent_name": "a"}]})"}) {
    lk::CreateRoomRequest request;
    PARLEY_ASSERT_OK(twirp::Read(twirp::Form::kJson, text, &request));
    EXPECT_EQ(request.empty_timeout(), 7u);
    EXPECT_EQ(request.agents(0).agent_name(), "a");
  }
  lk::AgentDispatch dispatch;
  dispatch.mutable_state()->set_created_at(1'800'000'000'000'000'000);
  const http::Response response = twirp::Write(twirp::Form::kJson, dispatch);
  EXPECT_EQ(response.content_type, "application/json");
  const Json json = Json::parse(response.body);
  EXPECT_EQ(json["agent_name"], "") << "defaults are written";
  EXPECT_EQ(json["restart_policy"], "JRP_ON_FAILURE");
  EXPECT_EQ(json["state"]["created_at"], "1800000000000000000") << "64 bits as text";
}

TEST(TwirpTest, WhatIsNoMessageIsMalformed) {
  lk::CreateRoomRequest request;
  const std::string deep = std::string(R"({"agents": )") + std::string(100, '[');
  for (const std::string& text : {std::string(), std::string("[1]"), std::string("{\"name\": 7}"),
                                  std::string("{\"name\": \"\xff\"}"), std::string("{"), deep}) {
    const absl::Status status = twirp::Read(twirp::Form::kJson, text, &request);
    EXPECT_THAT(status, HasReason("MALFORMED")) << text;
    const http::Response response = twirp::Error(status);
    EXPECT_EQ(response.status, 400);
    EXPECT_EQ(Json::parse(response.body)["code"], "malformed");
  }
  for (const std::string& bytes :
       {std::string("\x0a\x7f", 2), std::string("\xff\xff\xff"), std::string("\x0a\x01\xff", 3),
        std::string(twirp::kMaxBodyBytes + 1, '\0')}) {
    EXPECT_THAT(twirp::Read(twirp::Form::kProtobuf, bytes, &request), HasReason("MALFORMED"));
  }
}

TEST(TwirpTest, TheCallerSetsTheDeadlineWithinLimits) {
  http::Request request;
  EXPECT_EQ(twirp::TimeoutOf(request), absl::Seconds(10));
  for (const auto& [text, wanted] :
       std::map<std::string, absl::Duration>{{"250", absl::Milliseconds(250)},
                                             {"0", absl::Milliseconds(1)},
                                             {"-5", absl::Milliseconds(1)},
                                             {"99999999", absl::Minutes(1)},
                                             {"soon", absl::Seconds(10)},
                                             {"99999999999999999999999", absl::Seconds(10)}}) {
    request.headers["x-twirp-timeout-ms"] = text;
    EXPECT_EQ(twirp::TimeoutOf(request), wanted) << text;
  }
}

TEST(TwirpTest, TheRoomMustBeTheTokensOwn) {
  auth::Claims claims;
  claims.video.room_create = true;
  EXPECT_THAT(twirp::RequireExactRoom(claims, "lobby"), HasReason("GRANT_MISSING"));
  claims.video.room_admin = true;
  claims.video.room = "lobby";
  PARLEY_EXPECT_OK(twirp::RequireExactRoom(claims, "lobby"));
  EXPECT_THAT(twirp::RequireExactRoom(claims, "Lobby"), HasReason("GRANT_MISSING"));
}

TEST(ConvertTest, JobStatesAreLiveKitsWords) {
  namespace dv = dispatch::v1;
  const std::tuple<dv::JobState, dv::JobReason, lk::JobStatus> cases[] = {
      {dv::JOB_STATE_PENDING, dv::JOB_REASON_UNSPECIFIED, lk::JS_PENDING},
      {dv::JOB_STATE_OFFERED, dv::JOB_REASON_UNSPECIFIED, lk::JS_PENDING},
      {dv::JOB_STATE_ASSIGNED, dv::JOB_REASON_UNSPECIFIED, lk::JS_PENDING},
      {dv::JOB_STATE_RUNNING, dv::JOB_REASON_UNSPECIFIED, lk::JS_RUNNING},
      {dv::JOB_STATE_SUCCEEDED, dv::JOB_REASON_SHUTDOWN, lk::JS_SUCCESS},
      {dv::JOB_STATE_CANCELLED, dv::JOB_REASON_TERMINATED, lk::JS_SUCCESS},
      {dv::JOB_STATE_FAILED, dv::JOB_REASON_REJECTED, lk::JS_SUCCESS},
      {dv::JOB_STATE_FAILED, dv::JOB_REASON_PROCESS_CRASHED, lk::JS_FAILED},
  };
  for (const auto& [state, reason, wanted] : cases) {
    dv::Dispatch dispatch;
    dispatch.add_jobs()->set_state(state);
    dispatch.mutable_jobs(0)->set_reason(reason);
    const lk::AgentDispatch converted = ToLiveKit(dispatch);
    EXPECT_EQ(converted.state().jobs(0).state().status(), wanted) << state << reason;
    EXPECT_EQ(converted.state().jobs(0).state().error(),
              wanted == lk::JS_FAILED ? "PROCESS_CRASHED" : "");
  }
}

TEST(ConvertTest, DeploymentsAreChecked) {
  lk::RoomAgentDispatch agent;
  for (const std::string& bad : {std::string("a b"), std::string("a_b"), std::string("a\x7f"),
                                 std::string("\n"), std::string(65, 'a')}) {
    agent.set_deployment(bad);
    EXPECT_FALSE(FromLiveKit(agent).ok()) << bad;
  }
  agent.set_deployment(std::string(64, 'a'));
  agent.set_restart_policy(lk::JRP_NEVER);
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto converted, FromLiveKit(agent));
  EXPECT_TRUE(converted.never_restart());
}

TEST(RateLimitTest, GivesAMinutesWorthAndThenAsTimePasses) {
  testing::FakeClock clock;
  RateLimit limit(60, clock);
  for (int i = 0; i < 60; ++i) PARLEY_ASSERT_OK(limit.Take("a"));
  const absl::Status refused = limit.Take("a");
  EXPECT_THAT(refused, HasReason("RATE_LIMITED"));
  EXPECT_EQ(ReasonOf(refused).metadata.at("retry_after_ms"), "1000");
  PARLEY_EXPECT_OK(limit.Take("b"));
  clock.Advance(absl::Seconds(2));
  PARLEY_EXPECT_OK(limit.Take("a"));
  PARLEY_EXPECT_OK(limit.Take("a"));
  EXPECT_FALSE(limit.Take("a").ok());
  clock.Advance(absl::Hours(1));
  for (int i = 0; i < 60; ++i) PARLEY_ASSERT_OK(limit.Take("a"));
  EXPECT_FALSE(limit.Take("a").ok()) << "an hour of quiet is worth one minute";
  RateLimit none(0, clock);
  for (int i = 0; i < 1000; ++i) PARLEY_ASSERT_OK(none.Take("a"));
}

TEST(RateLimitTest, RemembersABoundedNumber) {
  testing::FakeClock clock;
  RateLimit limit(1, clock, /*max_keys=*/3);
  for (const char* key : {"a", "b", "c"}) PARLEY_ASSERT_OK(limit.Take(key));
  EXPECT_FALSE(limit.Take("a").ok());  // and so b was quiet the longest
  PARLEY_ASSERT_OK(limit.Take("d"));
  EXPECT_FALSE(limit.Take("a").ok());
  PARLEY_EXPECT_OK(limit.Take("b")) << "forgotten, so it begins anew";
}

TEST(RateLimitTest, AnIpv6ClientIsItsNetwork) {
  EXPECT_EQ(ClientKey("192.0.2.7"), "192.0.2.7");
  EXPECT_EQ(ClientKey("::ffff:192.0.2.7"), "192.0.2.7");
  EXPECT_EQ(ClientKey("2001:db8:1:2::5"), ClientKey("2001:db8:1:2:aaaa::9"));
  EXPECT_NE(ClientKey("2001:db8:1:2::5"), ClientKey("2001:db8:1:3::5"));
  EXPECT_EQ(ClientKey("not an address"), "not an address");
}

// connection-details of an installation with keys of its own, called without sockets.
class TokenEndpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string path = directory_.path() + "/keys.yaml";
    std::ofstream(path) << "cluster_key: 0123456789abcdef0123456789abcdef\n"
                           "keys: [{key: APIhotel, secret: 0123456789abcdef, project: hotel}]\n";
    std::filesystem::permissions(path, std::filesystem::perms::owner_read);
    config_.common.keys_file = path;
    config_.common.grpc_port = -1;
    config_.public_url = "wss://voice.example";
    config_.open_agents = {"front-desk"};
  }
  // Once config_ is as the test wants it.
  void Start() {
    auto context = service::Context::Create("api-server", config_.common);
    ASSERT_TRUE(context.ok()) << context.status();
    context_ = *std::move(context);
    backend_ = std::make_unique<Backend>(config_, *context_);
    AddTokenRoutes(*backend_, routes_);
  }
  http::Response Post(const std::string& body, const std::string& token = {},
                      const std::string& sandbox = {}) {
    http::Request request;
    request.body = body;
    request.peer = "192.0.2.1";
    request.headers = headers_;
    if (!token.empty()) request.headers["authorization"] = "Bearer " + token;
    if (!sandbox.empty()) request.headers["x-sandbox-id"] = sandbox;
    return routes_[0].handler(request);
  }
  std::string Token(bool room_create) {
    auth::Claims claims;
    claims.video.room_create = room_create;
    return auth::Sign(claims, *context_->keys()->Find("APIhotel"), absl::Hours(1));
  }
  auth::Claims ClaimsOf(const http::Response& response) {
    EXPECT_EQ(response.status, 201) << response.body;
    const Json json = Json::parse(response.body, nullptr, false);
    const auto claims = context_->AuthenticateToken(json.value("participant_token", ""));
    EXPECT_TRUE(claims.ok()) << claims.status();
    return claims.ok() ? *claims : auth::Claims();
  }

  testing::TemporaryDirectory directory_;
  ApiServerConfig config_;
  std::map<std::string, std::string> headers_;
  std::unique_ptr<service::Context> context_;
  std::unique_ptr<Backend> backend_;
  std::vector<Route> routes_;
};

constexpr char kDesk[] = R"("room_config": {"agents": [{"agent_name": "front-desk"}]})";

std::string With(const std::string& fields) { return "{" + fields + ", " + kDesk + "}"; }

TEST_F(TokenEndpointTest, StrangersGetAnInventedRoomAndIdentityForAShortTime) {
  Start();
  const http::Response response = Post(std::string("{") + kDesk + "}");
  const auth::Claims claims = ClaimsOf(response);
  EXPECT_EQ(Json::parse(response.body)["server_url"], "wss://voice.example");
  EXPECT_THAT(claims.video.room, HasSubstr("room-"));
  EXPECT_THAT(claims.identity, HasSubstr("user-"));
  EXPECT_EQ(claims.room_agents[0].agent_name, "front-desk");
  EXPECT_LE(claims.expires, absl::Now() + absl::Minutes(15));
  EXPECT_NE(ClaimsOf(Post(std::string("{") + kDesk + "}")).video.room, claims.video.room);
}

TEST_F(TokenEndpointTest, StrangersMaySetOnlyWhatTheListsName) {
  config_.open_rooms = {"lobby", "demo-*"};
  config_.open_identities = {"guest-*"};
  config_.open_attributes = {"lang", "ui.*"};
  Start();
  const std::tuple<std::string, int, std::string> cases[] = {
      {With(R"("room_name": "lobby")"), 201, ""},
      {With(R"("room_name": "demo-7")"), 201, ""},
      {With(R"("room_name": "lobby2")"), 403, "room_name"},
      {With(R"("participant_identity": "guest-1")"), 201, ""},
      {With(R"("participant_identity": "agent-AJ_1")"), 403, "participant_identity"},
      {With(R"("participant_attributes": {"lang": "de", "ui.size": "2"})"), 201, ""},
      {With(R"("participant_attributes": {"lk.agent.state": "x"})"), 403,
       "participant_attributes.lk.agent.state"},
      {R"({"room_config": {"agents": [{"agent_name": "front-desk"}], "max_participants": 9}})", 403,
       "room_config.max_participants"},
      {R"({"room_config": {"agents": [{"agent_name": "billing"}]}})", 403, ""},
      {R"({"room_config": {"agents": []}})", 403, ""},
      {"{}", 403, ""},
      {R"({"room_config": {"agents": [7]}})", 400, ""},
      {R"({"room_name": 7})", 400, ""},
  };
  for (const auto& [body, status, field] : cases) {
    const http::Response response = Post(body);
    EXPECT_EQ(response.status, status) << body << response.body;
    if (field.empty()) continue;
    EXPECT_EQ(Json::parse(response.body)["meta"]["field"], field) << body;
  }
}

TEST_F(TokenEndpointTest, ABearerTokenThatMayCreateRoomsMaySetAll) {
  Start();
  const std::string body =
      R"({"roomName": "anything", "participantIdentity": "ann", "participantAttributes": {"x": "y"},
          "roomConfig": {"maxParticipants": 3, "agents": [{"agentName": "billing",
          "restartPolicy": "JRP_NEVER"}]}})";
  EXPECT_EQ(Post(body, Token(false)).status, 401);
  const auth::Claims claims = ClaimsOf(Post(body, Token(true)));
  EXPECT_EQ(claims.video.room, "anything");
  EXPECT_EQ(claims.identity, "ann");
  EXPECT_EQ(claims.project, "hotel");
  EXPECT_TRUE(claims.room_agents.at(0).never_restart);
  EXPECT_THAT(claims.room_config_json, HasSubstr("maxParticipants"));
}

TEST_F(TokenEndpointTest, WithoutAListNobodyIsLetIn) {
  config_.open_agents.clear();
  Start();
  EXPECT_EQ(Post(std::string("{") + kDesk + "}").status, 401);
}

TEST_F(TokenEndpointTest, SandboxesAreAskedForWhereThereAreSome) {
  config_.open_sandboxes = {"hotel-demo-1x2y"};
  Start();
  const std::string body = std::string("{") + kDesk + "}";
  EXPECT_EQ(Post(body).status, 401);
  EXPECT_EQ(Post(body, "", "other").status, 401);
  EXPECT_EQ(Post(body, "", "hotel-demo-1x2y").status, 201);
}

TEST_F(TokenEndpointTest, TooManyCallsAreHeldBackByAddressAndByKey) {
  config_.token_rate_per_address = 3;
  config_.token_rate_per_key = 5;
  config_.trust_forwarded_for = true;
  Start();
  const std::string body = std::string("{") + kDesk + "}";
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Post(body).status, 201);
  const http::Response refused = Post(body);
  EXPECT_EQ(refused.status, 429);
  EXPECT_THAT(refused.headers, ::testing::Contains(::testing::Pair("Retry-After", "20")));
  headers_["x-forwarded-for"] = "192.0.2.1, 198.51.100.9";
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Post(body).status, 201) << "another address";
  EXPECT_EQ(Post(body).status, 429) << "but the same key";
  headers_["x-forwarded-for"] = "203.0.113.9, 198.51.100.9";
  EXPECT_EQ(Post(body).status, 429) << "what a client puts before the proxy's word counts nothing";
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Post(body, Token(true)).status, 201);
  EXPECT_EQ(Post(body, Token(true)).status, 429) << "keys of their own have a limit of their own";
}

TEST_F(TokenEndpointTest, PagesOfListedOriginsMayReadTheAnswer) {
  config_.open_origins = {"https://shop.example"};
  Start();
  const std::string body = std::string("{") + kDesk + "}";
  EXPECT_EQ(Post(body).status, 401);
  headers_["origin"] = "https://shop.example";
  const http::Response response = Post(body);
  EXPECT_EQ(response.status, 201);
  EXPECT_THAT(response.headers, ::testing::Contains(::testing::Pair("Access-Control-Allow-Origin",
                                                                    "https://shop.example")));
}

}  // namespace
}  // namespace parley::api_server
