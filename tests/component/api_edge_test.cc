// The real api_server alone: its routes against its own description, and what it refuses. What it
// asks of other services is tested end to end.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "auth/token.h"
#include "base/status.h"
#include "health_client.h"
#include "http/client.h"
#include "testing/cluster.h"
#include "testing/fake_clock.h"

namespace parley {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class ApiEdgeTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    testing::ClusterOptions options;
    options.services = {"api-server"};
    options.agent_servers = 0;
    options.extra_arguments["api-server"] = {"--demo"};
    auto cluster = testing::Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = cluster->release();
  }
  static void TearDownTestSuite() { delete cluster_; }

  http::Reply Fetch(const std::string& method, const std::string& path,
                    const std::string& body = {}, const std::string& token = {}) {
    http::Call call;
    call.method = method;
    call.url = "http://" + cluster_->Address("api-server") + path;
    if (!token.empty()) call.headers.emplace_back("authorization", "Bearer " + token);
    call.body = body;
    call.reach = http::Reach::kLoopbackToo;
    const auto reply = client_.Fetch(call);
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.ok() ? *reply : http::Reply();
  }
  static std::string Admin() {
    auth::Claims claims;
    claims.agent_admin = true;
    claims.video.room_create = true;
    claims.video.room_list = true;
    return auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(1));
  }
  static std::string Reason(const http::Reply& reply) {
    return json::parse(reply.body)["meta"].value("reason", "");
  }

  static testing::Cluster* cluster_;
  http::Client client_;
};
testing::Cluster* ApiEdgeTest::cluster_ = nullptr;

TEST_F(ApiEdgeTest, EveryDescribedRouteIsServedAndNoOther) {
  const json document = json::parse(Fetch("GET", "/openapi.json").body);
  int described = 0;
  for (const auto& [pattern, operations] : document["paths"].items()) {
    std::string path = pattern;
    for (size_t open; (open = path.find('{')) != std::string::npos;)
      path.replace(open, path.find('}') - open + 1, "x");
    for (const char* method : {"GET", "POST", "PUT", "DELETE"}) {
      std::string lower = method;
      for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      const http::Reply reply = Fetch(method, path);
      if (operations.contains(lower)) {
        ++described;
        EXPECT_NE(reply.status, 405) << method << " " << path;
        EXPECT_THAT(reply.body, ::testing::Not(HasSubstr("there is nothing at")))
            << method << " " << path;
      } else if (path != "/api/agents/register") {  // also reads as the agent "register"
        EXPECT_EQ(reply.status, 405) << method << " " << path;
      }
    }
  }
  EXPECT_GT(described, 20);
  const http::Reply unknown = Fetch("GET", "/api/nothing");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(json::parse(unknown.body)["code"], "not_found");
}

TEST_F(ApiEdgeTest, BadTokensAre401NamingTheCause) {
  EXPECT_EQ(Fetch("POST", "/api/sessions", R"({"agent":"x"})").status, 401);
  EXPECT_EQ(Reason(Fetch("POST", "/api/sessions", R"({"agent":"x"})")), "TOKEN_MISSING");
  testing::FakeClock long_ago(absl::FromUnixSeconds(1'500'000'000));
  const auth::ApiKey key = auth::KeyRing::Development()->keys()[0];
  EXPECT_EQ(
      Reason(Fetch("POST", "/api/sessions", "{}", auth::Sign({}, key, absl::Hours(1), long_ago))),
      "TOKEN_EXPIRED");
  auth::ApiKey foreign = key;
  foreign.key = "APIforeign";
  EXPECT_EQ(
      Reason(Fetch("POST", "/v1/audio/speech", "{}", auth::Sign({}, foreign, absl::Hours(1)))),
      "KEY_UNKNOWN");
  auth::Claims person;
  person.identity = "p";
  person.video.room_join = true;
  person.video.room = "r";
  const http::Reply participant =
      Fetch("POST", "/api/sessions", R"({"agent":"x"})", auth::Sign(person, key, absl::Hours(1)));
  EXPECT_EQ(participant.status, 401);
  EXPECT_EQ(Reason(participant), "GRANT_MISSING");
}

// Browsers do not tell why a WebSocket was refused: LiveKit's clients ask here.
TEST_F(ApiEdgeTest, ValidateTellsClientsWhatIsWrongWithTheirToken) {
  auth::Claims person;
  person.identity = "p";
  person.video.room_join = true;
  person.video.room = "r";
  auth::Claims outsider = person;
  outsider.video.room_join = false;
  auth::Claims nobody = person;
  nobody.identity.clear();
  testing::FakeClock long_ago(absl::FromUnixSeconds(1'500'000'000));
  const auth::ApiKey key = auth::KeyRing::Development()->keys()[0];
  const std::string good = auth::Sign(person, key, absl::Hours(1));
  for (const std::string path : {"/rtc/validate", "/rtc/v1/validate"}) {
    const auto ask = [&](const std::string& token) {
      const http::Reply reply = Fetch("GET", path + "?access_token=" + token);
      EXPECT_EQ(reply.headers.at("access-control-allow-origin"), "*");
      return fmt::format("{} {}", reply.status, reply.body);
    };
    EXPECT_EQ(ask(good), "200 success");
    EXPECT_THAT(ask(""), ::testing::StartsWith("401 "));
    EXPECT_THAT(ask(good.substr(0, good.size() - 4) + "AAAA"),
                ::testing::AllOf(::testing::StartsWith("401 "), HasSubstr("signature")));
    EXPECT_THAT(ask(auth::Sign(person, key, absl::Hours(1), long_ago)),
                ::testing::AllOf(::testing::StartsWith("401 "), HasSubstr("expired")));
    EXPECT_THAT(ask(auth::Sign(outsider, key, absl::Hours(1))),
                ::testing::AllOf(::testing::StartsWith("401 "), HasSubstr("roomJoin")));
    EXPECT_THAT(ask(auth::Sign(nobody, key, absl::Hours(1))),
                ::testing::AllOf(::testing::StartsWith("401 "), HasSubstr("identity")));
  }
}

TEST_F(ApiEdgeTest, BadBodiesAreRefusedByField) {
  const std::string token = Admin();
  const http::Reply unknown = Fetch("POST", "/api/sessions", R"({"agent":"x","romm":"y"})", token);
  EXPECT_EQ(unknown.status, 400);
  EXPECT_EQ(json::parse(unknown.body)["meta"]["field"], "romm");
  EXPECT_THAT(Fetch("POST", "/api/sessions", "{\n\"agent\": x}", token).body, HasSubstr("line 2"));
  EXPECT_EQ(Fetch("POST", "/api/dispatches", R"({"room":"r","priority":12})", token).status, 400);
  EXPECT_EQ(Fetch("POST", "/v1/audio/speech", R"({"input":""})", token).status, 400);
  EXPECT_EQ(
      Fetch("POST", "/v1/audio/speech", json({{"input", std::string(5000, 'a')}}).dump(), token)
          .status,
      400);
  EXPECT_EQ(Fetch("POST", "/v1/audio/transcriptions", "x", token).status, 400);
  EXPECT_EQ(Fetch("POST", "/api/connection-details", "[1]").status, 400);
}

TEST_F(ApiEdgeTest, SpeaksGrpcHealth) {
  EXPECT_EQ(testing::HealthOf(cluster_->GrpcAddress("api-server"), ""), 1);
  EXPECT_EQ(testing::HealthOf(cluster_->GrpcAddress("api-server"), "ready"), 1);
}

TEST_F(ApiEdgeTest, NeighboursAwayIs503) {
  const http::Reply reply = Fetch("GET", "/api/agents", {}, Admin());
  EXPECT_EQ(reply.status, 503) << reply.body;
}

TEST_F(ApiEdgeTest, ConnectionDetailsInventsWhatIsMissing) {
  for (
      const char* body :
      {"", "{}",
       R"({"roomName":"lobby","participantIdentity":"alice","roomConfig":{"agents":[{"agentName":"a"}]}})",
       R"({"room_name":"lobby","participant_identity":"alice","room_config":{"agents":[{"agent_name":"a"}]}})"}) {
    const http::Reply reply = Fetch("POST", "/api/connection-details", body);
    ASSERT_EQ(reply.status, 201) << reply.body;
    const json answer = json::parse(reply.body);
    EXPECT_THAT(answer["server_url"].get<std::string>(), HasSubstr("ws://127.0.0.1:"));
    const auto claims =
        auth::Verify(answer["participant_token"].get<std::string>(), *auth::KeyRing::Development());
    ASSERT_TRUE(claims.ok()) << claims.status();
    EXPECT_TRUE(auth::RequireRoomJoin(*claims).ok());
    if (std::string_view(body).size() < 3) continue;
    EXPECT_EQ(claims->video.room, "lobby");
    EXPECT_EQ(claims->identity, "alice");
    ASSERT_EQ(claims->room_agents.size(), 1u);
    EXPECT_EQ(claims->room_agents[0].agent_name, "a");
  }
}

TEST_F(ApiEdgeTest, DemoToolAnswers) {
  EXPECT_EQ(json::parse(Fetch("GET", "/demo/room-rate/single").body)["rate"], 80);
  EXPECT_EQ(Fetch("GET", "/demo/room-rate/tent").status, 404);
}

}  // namespace
}  // namespace parley
