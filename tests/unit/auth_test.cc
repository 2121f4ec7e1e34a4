#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/stat.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "auth/token.h"
#include "auth/webhook.h"
#include "testing/fake_clock.h"
#include "testing/matchers.h"
#include "testing/redis_fixture.h"

namespace parley::auth {
namespace {

using ::parley::testing::HasCode;
using ::parley::testing::HasReason;
using ::testing::HasSubstr;

class TokenTest : public ::testing::Test {
 protected:
  TokenTest() {
    key_.key = "APIhotel";
    key_.secret = "a secret of a hotel, long enough";
    key_.project = "hotel";
    key_.agent_names = {"front-desk"};
    ring_ = KeyRing::Of({key_}, "a cluster key of thirty-two letters");
  }
  absl::StatusOr<Claims> Check(std::string_view token) { return Verify(token, *ring_, clock_); }
  std::string Token(absl::Duration ttl = absl::Hours(1)) {
    Claims claims;
    claims.identity = "ann";
    return Sign(claims, key_, ttl, clock_);
  }

  // What a token of this payload says.
  Claims ClaimsOf(nlohmann::json payload) {
    payload["iss"] = key_.key;
    payload["exp"] = absl::ToUnixSeconds(clock_.Now()) + 3600;
    const std::string head = Base64Url(R"({"alg":"HS256"})") + "." + Base64Url(payload.dump());
    std::array<unsigned char, 32> digest{};
    unsigned int size = 0;
    HMAC(EVP_sha256(), key_.secret.data(), static_cast<int>(key_.secret.size()),
         reinterpret_cast<const unsigned char*>(head.data()), head.size(), digest.data(), &size);
    const std::string_view mac(reinterpret_cast<const char*>(digest.data()), size);
    const auto claims = Check(head + "." + Base64Url(mac));
    EXPECT_TRUE(claims.ok()) << claims.status();
    return claims.ok() ? *claims : Claims();
  }
  static std::string Base64Url(std::string_view bytes) {
    std::string out(bytes.size() * 4 / 3 + 4, '\0');
    const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                     reinterpret_cast<const unsigned char*>(bytes.data()),
                                     static_cast<int>(bytes.size()));
    out.resize(static_cast<size_t>(size));
    for (char& letter : out) letter = letter == '+' ? '-' : letter == '/' ? '_' : letter;
    while (out.ends_with('=')) out.pop_back();
    return out;
  }
  static nlohmann::json PayloadOf(const std::string& token) {
    std::string text = token.substr(token.find('.') + 1);
    text.resize(text.find('.'));
    for (char& letter : text) letter = letter == '-' ? '+' : letter == '_' ? '/' : letter;
    const size_t padding = (4 - text.size() % 4) % 4;
    text.append(padding, '=');
    std::string out(text.size() / 4 * 3, '\0');
    EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                    reinterpret_cast<const unsigned char*>(text.data()),
                    static_cast<int>(text.size()));
    out.resize(out.size() - padding);
    return nlohmann::json::parse(out);
  }

  testing::FakeClock clock_;
  ApiKey key_;
  std::shared_ptr<const KeyRing> ring_;
};

TEST_F(TokenTest, ClaimsComeBackAsTheyWent) {
  Claims claims;
  claims.identity = "ann";
  claims.name = "Ann";
  claims.kind = "standard";
  claims.metadata = R"({"seat": 4})";
  claims.attributes = {{"lang", "de"}};
  claims.video.room_join = true;
  claims.video.room = "lobby";
  claims.video.can_publish = false;
  claims.video.can_publish_sources = {"microphone"};
  claims.agent_admin = true;
  claims.session_id = "AS_1";
  claims.room_agents = {{"front-desk", "{}", {{"a", "b"}}, "canary"}};
  PARLEY_ASSERT_OK_AND_ASSIGN(Claims got, Check(Sign(claims, key_, absl::Hours(1), clock_)));
  EXPECT_EQ(got.issuer, "APIhotel");
  EXPECT_EQ(got.project, "hotel");
  EXPECT_EQ(got.agent_names, std::vector<std::string>{"front-desk"});
  EXPECT_EQ(got.identity, "ann");
  EXPECT_EQ(got.metadata, claims.metadata);
  EXPECT_EQ(got.attributes, claims.attributes);
  EXPECT_TRUE(got.video.room_join);
  EXPECT_EQ(got.video.can_publish, false);
  EXPECT_FALSE(got.video.can_subscribe.has_value());
  EXPECT_EQ(got.video.can_publish_sources, claims.video.can_publish_sources);
  EXPECT_TRUE(got.agent_admin);
  EXPECT_EQ(got.session_id, "AS_1");
  ASSERT_EQ(got.room_agents.size(), 1u);
  EXPECT_EQ(got.room_agents[0].deployment, "canary");
  EXPECT_EQ(got.room_agents[0].attributes.at("a"), "b");
  EXPECT_EQ(got.expires, clock_.Now() + absl::Hours(1));
}

// Every claim of a LiveKit token, as its SDKs write it, is there again once read and signed.
TEST_F(TokenTest, EveryLiveKitClaimIsReadAndWritten) {
  const nlohmann::json written = nlohmann::json::parse(R"({
    "sub": "ann", "name": "Ann", "kind": "agent", "kindDetails": ["cloud_agent", "forwarded"],
    "video": {"roomCreate": true, "roomList": true, "roomRecord": true, "roomAdmin": true,
      "roomJoin": true, "room": "lobby", "canPublish": false, "canSubscribe": true,
      "canPublishData": false, "canPublishSources": ["camera", "screen_share_audio"],
      "canUpdateOwnMetadata": true, "ingressAdmin": true, "hidden": true, "recorder": true,
      "agent": true, "canSubscribeMetrics": true, "canManageAgentSession": false,
      "destinationRoom": "elsewhere"},
    "sip": {"admin": true, "call": true},
    "agent": {"admin": true, "simulationAdmin": true, "databaseAdmin": true},
    "inference": {"perform": true}, "observability": {"write": true},
    "roomConfig": {"emptyTimeout": 30, "maxParticipants": 2, "metadata": "m",
      "agents": [{"agentName": "a", "metadata": "n", "restartPolicy": "JRP_NEVER",
        "deployment": "blue", "attributes": {"k": "v"}}]},
    "roomPreset": "small", "sha256": "aGFzaA==", "metadata": "x", "attributes": {"lang": "de"}})");
  const Claims claims = ClaimsOf(written);
  EXPECT_TRUE(claims.other.sip_call);
  EXPECT_TRUE(claims.room_agents.at(0).never_restart);
  EXPECT_EQ(claims.room_preset, "small");
  nlohmann::json again = PayloadOf(Sign(claims, key_, absl::Hours(1), clock_));
  for (const char* ours : {"iss", "iat", "nbf", "exp"}) again.erase(ours);
  EXPECT_EQ(again, written);
}

// docs/livekit.md is written from this list.
TEST_F(TokenTest, ClaimsAreAsTheListSays) {
  std::ifstream file(std::string(std::getenv("PARLEY_SOURCE_DIR")) + "/docs/livekit-surface.json");
  const nlohmann::json rows = nlohmann::json::parse(file);
  int walked = 0;
  for (const nlohmann::json& row : rows) {
    if (!row.contains("claim")) continue;
    ++walked;
    nlohmann::json again = PayloadOf(Sign(ClaimsOf(row["claim"]), key_, absl::Hours(1), clock_));
    for (const char* ours : {"iss", "iat", "nbf", "exp"}) again.erase(ours);
    EXPECT_EQ(again == row["claim"], row["status"] != "not yet") << row << again;
  }
  EXPECT_GT(walked, 30);
}

TEST_F(TokenTest, RoomConfigsSpeakBothSpellings) {
  for (const char* text : {R"({"agents": [{"agentName": "a", "restartPolicy": 1}]})",
                           R"({"agents": [{"agent_name": "a", "restart_policy": "JRP_NEVER"}]})"}) {
    const std::vector<RoomAgent> agents = ReadRoomAgents(text);
    ASSERT_EQ(agents.size(), 1u);
    EXPECT_EQ(agents[0].agent_name, "a");
    EXPECT_TRUE(agents[0].never_restart);
  }
  EXPECT_TRUE(ReadRoomAgents("[]").empty());
  EXPECT_TRUE(ReadRoomAgents(R"({"agents": "a"})").empty());
  EXPECT_TRUE(ReadRoomAgents(std::string(100'000, '[')).empty());
}

// Made by Python's hmac and json, spaces in the JSON and a key order of its own included.
TEST_F(TokenTest, ReadsTokensOfOtherMakers) {
  constexpr std::string_view kToken =
      "eyJ0eXAiOiAiSldUIiwgImFsZyI6ICJIUzI1NiJ9.eyJpc3MiOiAiQVBJaG90ZWwiLCAic3ViIjogInB"
      "5LWNhbGxlciIsICJuYmYiOiAxNzk5OTk5MDAwLCAiZXhwIjogMTgwMDAwMzYwMCwgIm5hbWUiOiAiUHk"
      "iLCAidmlkZW8iOiB7InJvb21Kb2luIjogdHJ1ZSwgInJvb20iOiAibG9iYnkiLCAiY2FuUHVibGlzaCI"
      "6IHRydWV9LCAicm9vbUNvbmZpZyI6IHsiYWdlbnRzIjogW3siYWdlbnROYW1lIjogImZyb250LWRlc2s"
      "iLCAibWV0YWRhdGEiOiAibSJ9XX0sICJzaXAiOiB7ImNhbGwiOiB0cnVlfSwgInVua25vd25DbGFpbSI"
      "6IFsxLCAyXX0.EY2LRhtEPYRaL4JLXlNLXtKelqpIFT4L3-hHwBgsVXo";
  PARLEY_ASSERT_OK_AND_ASSIGN(Claims got, Check(kToken));
  EXPECT_EQ(got.identity, "py-caller");
  EXPECT_TRUE(got.video.room_join);
  EXPECT_EQ(got.video.room, "lobby");
  ASSERT_EQ(got.room_agents.size(), 1u);
  EXPECT_EQ(got.room_agents[0].agent_name, "front-desk");
}

TEST_F(TokenTest, ExpiryHasALeewayOfAMinute) {
  const std::string token = Token(absl::Hours(1));
  clock_.Advance(absl::Hours(1) + absl::Seconds(60));
  PARLEY_EXPECT_OK(Check(token));
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(Check(token), HasReason("TOKEN_EXPIRED"));
  EXPECT_THAT(Check(token), HasCode(absl::StatusCode::kUnauthenticated));
}

TEST_F(TokenTest, TokensOfTheFutureAreRefused) {
  testing::FakeClock ahead(clock_.Now() + absl::Seconds(60));
  Claims claims;
  PARLEY_EXPECT_OK(Check(Sign(claims, key_, absl::Hours(1), ahead)));
  ahead.Advance(absl::Seconds(1));
  EXPECT_THAT(Check(Sign(claims, key_, absl::Hours(1), ahead)), HasReason("TOKEN_NOT_YET_VALID"));
}

TEST_F(TokenTest, NamesWhatIsWrong) {
  EXPECT_THAT(Check(""), HasReason("TOKEN_MISSING"));
  for (const char* text : {"x", "a.b", "a.b.c", "a.b.c.d", "....", "!!.@@.##"}) {
    EXPECT_THAT(Check(text), HasReason("TOKEN_MALFORMED")) << text;
  }
  ApiKey other = key_;
  other.key = "APIother";
  EXPECT_THAT(Check(Sign({}, other, absl::Hours(1), clock_)), HasReason("KEY_UNKNOWN"));
  other = key_;
  other.secret += "!";
  EXPECT_THAT(Check(Sign({}, other, absl::Hours(1), clock_)), HasReason("SIGNATURE_WRONG"));
}

TEST_F(TokenTest, EveryChangedLetterIsNoticed) {
  const std::string token = Token();
  for (size_t i = 0; i + 1 < token.size(); ++i) {  // the last letter holds two unused bits
    std::string changed = token;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    if (changed == token) continue;
    EXPECT_FALSE(Check(changed).ok()) << i;
  }
}

TEST_F(TokenTest, OnlyHs256) {
  const std::string token = Token();
  const std::string rest = token.substr(token.find('.'));
  // {"alg":"none"}, {"alg":"NONE"}, {"typ":"JWT"}
  for (const char* header : {"eyJhbGciOiJub25lIn0", "eyJhbGciOiJOT05FIn0", "eyJ0eXAiOiJKV1QifQ"}) {
    EXPECT_THAT(Check(header + rest), HasReason("TOKEN_UNSIGNED")) << header;
  }
  EXPECT_THAT(Check("eyJhbGciOiJSUzI1NiJ9" + rest), HasReason("TOKEN_MALFORMED"));  // RS256
  EXPECT_THAT(Check(token.substr(0, token.rfind('.') + 1)), HasReason("TOKEN_UNSIGNED"));
}

TEST_F(TokenTest, MessagesNeverQuoteTheToken) {
  ApiKey other = key_;
  other.secret += "!";
  const std::string token = Sign({}, other, absl::Hours(1), clock_);
  const absl::Status status = Check(token).status();
  EXPECT_EQ(Message(status).find(token.substr(0, 20)), std::string_view::npos);
  EXPECT_EQ(Message(status).find("secret of a hotel"), std::string_view::npos);
}

TEST_F(TokenTest, OnlyTheClusterKeyMakesServicesAndJobs) {
  Claims claims;
  claims.service = "dispatch-broker";
  claims.project = "hotel";
  claims.job = JobGrant{"AJ_1", 18'000'000'000'000'000'000u, "AW_1", "cafe"};
  PARLEY_ASSERT_OK_AND_ASSIGN(Claims service,
                              Check(SignService(claims, *ring_, absl::Minutes(1), clock_)));
  EXPECT_TRUE(service.is_service());
  EXPECT_EQ(service.project, "hotel");
  ASSERT_TRUE(service.job.has_value());
  EXPECT_EQ(service.job->fencing_token, 18'000'000'000'000'000'000u);
  EXPECT_EQ(service.job->instance, "cafe");
  claims.project = "other";
  PARLEY_ASSERT_OK_AND_ASSIGN(Claims pretended,
                              Check(Sign(claims, key_, absl::Minutes(1), clock_)));
  EXPECT_FALSE(pretended.is_service());
  EXPECT_FALSE(pretended.job.has_value());
  EXPECT_EQ(pretended.project, "hotel");
}

TEST_F(TokenTest, RoomConfigIsReadInBothSpellings) {
  Claims claims;
  claims.room_config_json =
      R"({"emptyTimeout": 30, "agents": [{"agent_name": "a"}, {"agentName": "b"}, 7]})";
  PARLEY_ASSERT_OK_AND_ASSIGN(Claims got, Check(Sign(claims, key_, absl::Hours(1), clock_)));
  ASSERT_EQ(got.room_agents.size(), 2u);
  EXPECT_EQ(got.room_agents[0].agent_name, "a");
  EXPECT_EQ(got.room_agents[1].agent_name, "b");
  EXPECT_THAT(got.room_config_json, HasSubstr(R"("emptyTimeout":30)"));
}

TEST_F(TokenTest, GrantsAreAskedForByName) {
  Claims claims;
  EXPECT_THAT(RequireAgentAdmin(claims), HasReason("GRANT_MISSING"));
  EXPECT_THAT(std::string(Message(RequireAgentAdmin(claims))), HasSubstr("agent.admin"));
  EXPECT_THAT(RequireRoomJoin(claims), HasCode(absl::StatusCode::kUnauthenticated));
  claims.video.room_admin = true;
  claims.video.room = "lobby";
  PARLEY_EXPECT_OK(RequireRoomAdmin(claims, "lobby"));
  EXPECT_THAT(RequireRoomAdmin(claims, "cellar"), HasReason("GRANT_MISSING"));
  EXPECT_THAT(RequireRoomCreate(claims), HasReason("GRANT_MISSING"));
  EXPECT_THAT(RequireService(claims), HasReason("GRANT_MISSING"));
  Claims service;
  service.service = "room-server";
  PARLEY_EXPECT_OK(RequireAgentAdmin(service));
  PARLEY_EXPECT_OK(RequireRoomAdmin(service, "cellar"));
  PARLEY_EXPECT_OK(RequireWorker(service));
  EXPECT_THAT(RequireRoomJoin(service), HasReason("GRANT_MISSING"));
}

class KeysFileTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<const KeyRing>> Load(std::string_view text, mode_t mode = 0600) {
    const std::string path = folder_.path() + "/keys.yaml";
    std::ofstream(path) << text;
    chmod(path.c_str(), mode);
    return KeyRing::Load(path);
  }
  std::string ErrorOf(std::string_view text) {
    const auto ring = Load(text);
    return ring.ok() ? "it loads" : std::string(Message(ring.status()));
  }
  testing::TemporaryDirectory folder_;
};

constexpr std::string_view kKeys = R"(cluster_key: 0123456789abcdef0123456789abcdef
keys:
  - {key: APIhotel, secret: a-secret-of-a-hotel, project: hotel, agent_names: [front-desk]}
  - {key: devkey, secret: secret}
)";

TEST_F(KeysFileTest, Loads) {
  PARLEY_ASSERT_OK_AND_ASSIGN(auto ring, Load(kKeys));
  ASSERT_EQ(ring->keys().size(), 2u);
  EXPECT_EQ(ring->Find("APIhotel")->project, "hotel");
  EXPECT_EQ(ring->Find("devkey")->project, "default");
  EXPECT_TRUE(ring->has_development_key());
  EXPECT_EQ(ring->Find("nobody"), nullptr);
}

TEST_F(TokenTest, WebhooksAreSignedForTheirBody) {
  const std::string token = SignWebhook("hello", key_);
  const auto claims = Verify(token, *ring_);
  PARLEY_ASSERT_OK(claims);
  EXPECT_EQ(claims->sha256,
            "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=");  // by sha256sum, base64
  PARLEY_EXPECT_OK(VerifyWebhook("hello", token, *ring_));
  EXPECT_THAT(VerifyWebhook("hello!", token, *ring_), HasReason("BODY_CHANGED"));
  EXPECT_THAT(VerifyWebhook("hello", Sign({}, key_, absl::Hours(1)), *ring_),
              HasReason("BODY_CHANGED"));
  ApiKey other = key_;
  other.secret = "another secret, long enough for it";
  EXPECT_THAT(VerifyWebhook("hello", SignWebhook("hello", other), *ring_),
              HasReason("SIGNATURE_WRONG"));
}

TEST_F(KeysFileTest, QuotasOfProjects) {
  const std::string keys(kKeys);
  PARLEY_ASSERT_OK_AND_ASSIGN(
      auto ring, Load(keys + "projects:\n  - {project: hotel, weight: 4, max_jobs: 200}\n"
                             "  - {project: school, max_queued: 7}\n"));
  ASSERT_EQ(ring->quotas().size(), 2u);
  EXPECT_EQ(ring->quotas()[0], (ProjectQuota{"hotel", 4, 200, 0}));
  EXPECT_EQ(ring->quotas()[1], (ProjectQuota{"school", 1, 0, 7}));
  for (const char* bad : {"weight: 0", "weight: 1001", "weight: 1.5", "max_jobs: -1",
                          "max_jobs: many", "max_queued: [1]", "max_job: 1"}) {
    EXPECT_THAT(
        ErrorOf(keys + "projects:\n  - {project: hotel, " + bad + "}\n"),
        HasSubstr(":6: projects[0]." + std::string(bad).substr(0, std::string(bad).find(':'))))
        << bad;
  }
}

TEST_F(KeysFileTest, RefusesFilesThatOthersMayRead) {
  for (const mode_t mode : {0644, 0640, 0604, 0666}) {
    EXPECT_THAT(Load(kKeys, mode), HasCode(absl::StatusCode::kPermissionDenied)) << mode;
  }
  EXPECT_THAT(KeyRing::Load("/nowhere/keys.yaml"), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(KeysFileTest, NamesLineAndField) {
  const std::string cluster = "cluster_key: 0123456789abcdef0123456789abcdef\n";
  EXPECT_THAT(ErrorOf("cluster_key: short\nkeys: []\n"), HasSubstr("keys.yaml:1: cluster_key: "));
  EXPECT_THAT(ErrorOf(cluster + "keys: []\n"), HasSubstr("keys.yaml:2: keys: must be a list"));
  EXPECT_THAT(ErrorOf(cluster + "keys:\n  - {key: a}\n"),
              HasSubstr(":3: keys[0].secret: is missing"));
  EXPECT_THAT(ErrorOf(cluster + "keys:\n  - {key: a, secret: b}\n"),
              HasSubstr(":3: keys[0].secret: must have at least 16"));
  EXPECT_THAT(
      ErrorOf(cluster + "keys:\n  - key: a\n    secret: 0123456789abcdef\n    porject: x\n"),
      HasSubstr(":5: keys[0].porject: is not a known field"));
  EXPECT_THAT(ErrorOf(cluster + "keys:\n  - &a {key: a, secret: 0123456789abcdef}\n  - *a\n"),
              HasSubstr("keys[1].key: stands here twice"));
  EXPECT_THAT(ErrorOf(cluster + "keys: [\n"), HasSubstr("keys.yaml:"));
  EXPECT_THAT(ErrorOf("just text"), HasSubstr("must be a map"));
}

}  // namespace
}  // namespace parley::auth
